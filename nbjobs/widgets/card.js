/**
 * The card of one run.
 *
 * Everything it shows arrives as a *face*: finished words, shares and instants, made in Python by
 * `nbjobs.view.face`. The browser draws it, ticks its clock and switches at its thresholds; it
 * rounds, counts and guesses nothing. Text goes in by `textContent` only, so that whatever a job
 * puts into a name or a message is shown and never runs.
 *
 * anywidget loads the default export; other surfaces import `mountCard` and bring their own feed.
 */

/**
 * @typedef {{kind: string, text: string}} Fact
 * @typedef {{done: number | null, earlier: number, notch: number | null}} Bar
 * @typedef {{since: number, prefix: string}} Clock
 * @typedef {{at: number, mark: string, text: string, clock?: Clock | null}} Threshold
 * @typedef {{name: string, state: string, title: string, duration?: string, note?: string, since?: number}} Step
 * @typedef {{do: string, label: string, asks?: string, from_step?: string, command?: string}} Action
 *
 * @typedef {object} Face  What one run shows; `nbjobs/widgets/face.schema.json` describes it.
 * @property {string} run
 * @property {string} job
 * @property {string} name
 * @property {string} state
 * @property {string} icon
 * @property {string} word
 * @property {string} headline
 * @property {string} step
 * @property {number} attempt
 * @property {number} resumed
 * @property {string[]} marks
 * @property {number} n
 * @property {Bar | null} bar
 * @property {string} percent
 * @property {Fact[]} facts
 * @property {string} aria
 * @property {string} error
 * @property {Clock | null} clock
 * @property {Threshold[]} thresholds
 * @property {boolean} ended
 * @property {Step[]} steps
 * @property {string} earlier  Stands for the first steps of a long list.
 * @property {Action[]} actions
 * @property {number} [sent]  When the face left Python (ms): tells this browser's clock from that one's.
 *
 * @typedef {object} Details  What the open card shows besides; `nbjobs/details.py` makes it.
 * @property {{kind: string, text: string, since: number, until?: number}[]} timeline
 * @property {string} told  The time line in words.
 * @property {{text: string, duration?: string, since?: number}[]} attempts
 * @property {{label: string, text?: string, since?: number, before?: number}[]} facts
 * @property {string} result
 * @property {{text: string, place?: string, code?: string, traceback?: string} | null} error
 * @property {{first: number, lines: [stream: string, text: string][]}} output
 *
 * @typedef {object} Feed  Where faces come from.
 * @property {() => Face | null | undefined} get  The latest face.
 * @property {(changed: () => void, signal: AbortSignal) => void} subscribe  Calls `changed` after each new face, until `signal` aborts.
 * @property {(severed: () => void, signal: AbortSignal) => void} [onSevered]  Calls `severed` when nobody feeds the card any more.
 * @property {() => Details | {} | null | undefined} [details]  The latest details; empty while nobody has asked for them.
 * @property {(message: {do: string, from_step?: string, n: number}) => Promise<string> | void} [act]  Does what a
 *   button says, and tells why it was refused, or nothing. Without it a card has no buttons.
 */

const PAINT_EVERY = 100;
const SPEAK_EVERY = 5000;
const MOST_FACTS = 5;
const CATCH_UP = 1500;
const LATE = 1500;
const AGAIN = 500;
const ASK_FOR = 6000;
const SHOWN_DONE = 3;
const SVG = "http://www.w3.org/2000/svg";

/** Outlines in a 16 × 16 box. Each state has a shape of its own, so colour never speaks alone. */
const CIRCLE = "M8 1.75a6.25 6.25 0 1 1 0 12.5a6.25 6.25 0 0 1 0-12.5z";
/** @type {Record<string, {line?: string, solid?: string}>} */
const SHAPES = {
  queued: { line: CIRCLE },
  scheduled: { line: `${CIRCLE}M8 4.5V8l2.5 1.5` },
  running: { line: CIRCLE, solid: "M8 1.75a6.25 6.25 0 0 0 0 12.5z" },
  retrying: { line: "M13.25 8a5.25 5.25 0 1 1-1.7-3.85M13.25 1.75v3.5h-3.5" },
  pausing: { line: `${CIRCLE}M6.25 5.5v5M9.75 5.5v5` },
  paused: { line: "M5.25 3v10M10.75 3v10" },
  cancelling: { line: `${CIRCLE}M3.6 12.4l8.8-8.8` },
  cancelled: { line: `${CIRCLE}M3.6 12.4l8.8-8.8` },
  completed: { line: "M2.75 8.5l3.5 3.5l7-8" },
  failed: { line: "M3.5 3.5l9 9M12.5 3.5l-9 9" },
  dead: { line: `${CIRCLE}M5.5 5.5l5 5M10.5 5.5l-5 5` },
  lost: { line: `${CIRCLE}M6.2 6.4a1.8 1.8 0 1 1 2.7 1.6c-.6.35-.9.7-.9 1.3M8 11.4v.2` },
  attention: { line: `${CIRCLE}M8 4.5v4.25M8 11.3v.2` },
  play: { line: "M5 3l7.5 5L5 13z" },
  cross: { line: "M4 4l8 8M12 4l-8 8" },
  more: { line: "M3.5 6l4.5 4.5L12.5 6" },
  resumed: { line: "M4 13.5V9a3 3 0 0 1 3-3h5.5M9.5 2.75L12.75 6L9.5 9.25" },
};
/** @type {Record<string, string>} What the small buttons show; the others are found in the open card. */
const SIGNS = { pause: "paused", unpause: "play", accept: "play", retry: "retrying", cancel: "cross" };
/** @type {Record<string, [shape: string, word: string]>} */
const STEPS = {
  done: ["completed", "done"],
  running: ["running", "running"],
  stopped: ["paused", "stopped"],
  failed: ["failed", "failed"],
  coming: ["queued", "to come"],
};
/** Marks that want the user's eye; the others are told in words alone. */
const ATTENTION = new Set(["stuck", "no-worker", "changed", "away"]);

/**
 * @param {string} tag
 * @param {string} className
 * @param {(Node | string)[]} children
 */
function element(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
}

/** @param {string} shape */
function icon(shape) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const { line, solid } = SHAPES[shape];
  for (const [d, className] of [[line, "nbjobs-line"], [solid, "nbjobs-solid"]]) {
    if (!d) continue;
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    path.setAttribute("class", /** @type {string} */ (className));
    svg.append(path);
  }
  return svg;
}

/**
 * Touch the page only where it differs: an equal write would wake observers and screen readers.
 * @param {Element} node
 * @param {string} text
 */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * @param {Element} node
 * @param {string} name  One of the fixed names in this file, never data.
 * @param {string | number | null} value  null removes the attribute.
 */
function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/**
 * As many children as items, each filled anew: what is there stays, and keeps focus and selection.
 * @template T
 * @param {Element} parent
 * @param {T[]} items
 * @param {() => Element} make
 * @param {(node: any, item: T, i: number) => void} fill
 */
function list(parent, items, make, fill) {
  const nodes = parent.children;
  while (nodes.length > items.length) nodes[nodes.length - 1].remove();
  items.forEach((item, i) => {
    if (!nodes[i]) parent.append(make());
    fill(nodes[i], item, i);
  });
}

/**
 * @param {string} action
 * @param {string} className
 * @param {(Node | string)[]} children
 */
function button(action, className, ...children) {
  const node = /** @type {HTMLButtonElement} */ (element("button", className, ...children));
  node.type = "button";
  node.setAttribute("data-action", action);
  node.setAttribute("data-lm-suppress-shortcuts", "true"); // Lab's keys are not meant while it has the focus
  return node;
}

/** @param {string} text */
async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const held = /** @type {HTMLTextAreaElement} */ (element("textarea", "nbjobs-status"));
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  held.value = text;
  document.body.append(held);
  held.select();
  document.execCommand("copy");
  held.remove();
  focused?.focus();
}

/**
 * A button that copies, and says that it did.
 * @param {string} action
 * @param {string} label
 * @param {() => string} text
 */
function copier(action, label, text) {
  const node = button(action, "nbjobs-button", "Copy");
  node.setAttribute("aria-label", label);
  node.addEventListener("click", async () => {
    const worked = await copy(text()).then(() => true, () => false);
    node.textContent = worked ? "Copied" : "Not allowed";
    node.setAttribute("aria-label", `${label}: ${worked ? "copied" : "the browser does not allow it"}`);
    setTimeout(() => {
      node.textContent = "Copy";
      node.setAttribute("aria-label", label);
    }, 2000);
  });
  return node;
}

/** @type {[seconds: number, name: string, part: number, small: string][]} */
const UNITS = [
  [86400, "d", 3600, "h"],
  [3600, "h", 60, "min"],
  [60, "min", 1, "s"],
];

/**
 * A duration in its two largest units, "1 min 15 s": the words of `nbjobs.words.lasted`, which a clock
 * that ticks here has to use as well. A test compares the two.
 * @param {number} ms
 */
export function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  for (const [unit, name, part, small] of UNITS) {
    if (seconds < unit) continue;
    const rest = Math.floor((seconds % unit) / part);
    return `${Math.floor(seconds / unit)} ${name}${rest ? ` ${rest} ${small}` : ""}`;
  }
  return `${Math.max(0, seconds)} s`;
}

/**
 * The facts with the clock's in its place: behind the count. A clock that counts down ends with its time.
 * @param {Face} face
 * @param {number} now
 * @returns {Fact[]}
 */
function timed({ facts, clock }, now) {
  if (!clock) return facts;
  const ahead = clock.prefix.endsWith("in ");
  if (ahead && clock.since <= now) return facts;
  const text = clock.prefix + duration(ahead ? clock.since - now + 999 : now - clock.since);
  const place = facts[0]?.kind === "count" ? 1 : 0;
  return [...facts.slice(0, place), { kind: "clock", text }, ...facts.slice(place)];
}

/** @param {number | undefined} ms */
function clockTime(ms) {
  return ms ? `, ${new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" })}` : "";
}

/** The card's elements, and how a face is laid into them. */
class Drawing {
  constructor() {
    this.icon = element("span", "nbjobs-icon");
    this.name = element("span", "nbjobs-name");
    this.headline = element("span", "nbjobs-headline");
    this.fill = element("div", "nbjobs-fill");
    this.earlier = element("div", "nbjobs-earlier");
    this.notch = element("div", "nbjobs-notch");
    this.bar = element("div", "nbjobs-bar", element("div", "nbjobs-track", this.fill, this.earlier), this.notch);
    this.percent = element("span", "nbjobs-percent");
    this.facts = element("div", "nbjobs-facts");
    this.error = element("div", "nbjobs-error");
    this.small = element("span", "nbjobs-quick");
    this.expand = button("expand", "nbjobs-small", icon("more"));
    this.actions = element("div", "nbjobs-actions", this.small, this.expand);
    this.said = element("div", "nbjobs-said");
    this.status = element("div", "nbjobs-status");
    this.root = element(
      "div",
      "nbjobs-card",
      element(
        "div",
        "nbjobs-head",
        this.icon,
        element("div", "nbjobs-title", this.name, " ", this.headline),
        this.actions,
      ),
      element("div", "nbjobs-progress", this.bar, this.percent),
      element("div", "nbjobs-foot", this.facts),
      this.error,
      this.said,
      this.status,
    );
    this.root.setAttribute("role", "group");
    this.bar.setAttribute("role", "progressbar");
    this.bar.setAttribute("aria-valuemin", "0");
    this.bar.setAttribute("aria-valuemax", "1");
    this.percent.setAttribute("aria-hidden", "true");
    this.status.setAttribute("role", "status");
    this.shape = "";
    this.filled = 0;
    this.place = "";
  }

  /**
   * @param {Face} face
   * @param {string[]} marks  The face's and those whose time has come.
   * @param {Fact[]} facts  The face's, and the ticking ones.
   * @param {boolean} jump  Show the present without moving there.
   */
  draw(face, marks, facts, jump) {
    const { root } = this;
    setAttribute(root, "data-run", face.run);
    setAttribute(root, "data-state", face.state);
    setAttribute(root, "data-step", face.step);
    setAttribute(root, "data-attempt", face.attempt);
    setAttribute(root, "data-resumed", face.resumed);
    setAttribute(root, "data-marks", marks.join(" "));
    setAttribute(root, "data-n", face.n);
    setAttribute(root, "aria-label", face.name);
    const attention = !face.ended && marks.some((mark) => ATTENTION.has(mark));
    root.classList.toggle("nbjobs-attention", attention);
    this.drawIcon(attention ? "attention" : face.state, face.icon);
    setText(this.name, face.name);
    setAttribute(this.name, "title", face.job);
    setText(this.headline, face.headline);
    setAttribute(this.headline, "title", face.headline);
    this.drawBar(face, jump);
    this.drawFacts(face, facts);
    setText(this.error, face.ended ? face.error : "");
    setAttribute(this.error, "title", face.ended ? face.error : "");
  }

  /**
   * @param {string} shape
   * @param {string} glyph  Stands in for a state that this file does not know yet.
   */
  drawIcon(shape, glyph) {
    if (this.shape === shape) return;
    this.shape = shape;
    this.icon.replaceChildren(Object.hasOwn(SHAPES, shape) ? icon(shape) : glyph);
  }

  /**
   * @param {Face} face
   * @param {boolean} jump
   */
  drawBar(face, jump) {
    const { bar } = face;
    const done = bar ? bar.done : null;
    const kind = !bar ? "none" : done === null ? "unknown" : "known";
    setAttribute(this.bar, "data-kind", kind);
    setAttribute(this.bar, "aria-label", face.name);
    setAttribute(this.bar, "aria-valuenow", done);
    setAttribute(this.bar, "aria-valuetext", face.aria);
    setText(this.percent, face.percent);
    // Going back is a new step, not progress: it is shown at once.
    this.root.classList.toggle("nbjobs-jump", jump || (done ?? 0) < this.filled);
    this.filled = done ?? 0;
    this.fill.style.transform = done === null ? "" : `translateX(${(done - 1) * 100}%)`;
    this.earlier.style.transform = `translateX(${((bar?.earlier ?? 0) - 1) * 100}%)`;
    this.notch.hidden = bar?.notch == null;
    this.notch.style.transform = `translateX(${(bar?.notch ?? 0) * 100}%)`;
  }

  /**
   * @param {Face} face
   * @param {Fact[]} facts
   */
  drawFacts(face, facts) {
    const place = `${face.state} ${face.attempt} ${face.step}`;
    const fresh = place !== this.place;
    this.place = place;
    const nodes = this.facts.children;
    while (nodes.length > facts.length) nodes[nodes.length - 1].remove();
    facts.forEach(({ kind, text }, i) => {
      if (!nodes[i]) this.facts.append(element("span", "nbjobs-fact", element("span", "nbjobs-text")));
      drawFact(nodes[i], kind, text, fresh);
    });
  }
}

/**
 * A fact keeps the room of the longest text it has had in this step, so that its neighbours stand still.
 * @param {Element} node
 * @param {string} kind
 * @param {string} text
 * @param {boolean} fresh
 */
function drawFact(node, kind, text, fresh) {
  const label = /** @type {Element} */ (node.lastChild);
  const other = node.getAttribute("data-kind") !== kind;
  if (other) {
    setAttribute(node, "data-kind", kind);
    node.replaceChildren(...(kind === "resumed" ? [icon("resumed")] : []), label);
  }
  setText(label, text);
  const widest = label.getAttribute("data-widest") ?? "";
  if (fresh || other || text.length > widest.length) setAttribute(label, "data-widest", text);
}

/** What each row of the list of steps is made of. */
function stepRow() {
  const parts = ["nbjobs-icon", "nbjobs-name", "nbjobs-note", "nbjobs-time", "nbjobs-status"];
  return element("li", "nbjobs-step", ...parts.map((part) => element("span", part)));
}

/** The open card's part: made when it is opened, and away when it is closed. */
class Opened {
  /** @param {Face} face */
  constructor(face) {
    this.actions = element("div", "nbjobs-choices");
    this.more = button("more", "nbjobs-more");
    this.more.addEventListener("click", () => this.showAll());
    this.steps = element("ol", "nbjobs-steps");
    this.timeline = element("div", "nbjobs-timeline");
    this.attempts = element("ol", "nbjobs-attempts");
    this.rows = element("ul", "nbjobs-rows");
    this.id = element("code", "nbjobs-run", face.run);
    this.place = element("div", "nbjobs-place");
    this.code = element("code", "nbjobs-code");
    this.traceback = element("pre", "nbjobs-traceback");
    this.failure = element(
      "div",
      "nbjobs-failure",
      element("div", "nbjobs-where", this.place, copier("copy", `Copy the error of ${face.name}`, () => this.whole)),
      this.code,
      this.traceback,
    );
    this.result = element("pre", "nbjobs-result");
    this.log = element("pre", "nbjobs-log");
    this.earlier = element("div", "nbjobs-before");
    const copyId = copier("copy-id", `Copy the id of ${face.name}`, () => face.run);
    this.root = element(
      "div",
      "nbjobs-opened",
      this.actions,
      this.more,
      this.steps,
      this.timeline,
      this.attempts,
      this.rows,
      element("div", "nbjobs-where", element("span", "nbjobs-place", "Run ", this.id), copyId),
      this.failure,
      this.result,
      this.earlier,
      this.log,
    );
    setAttribute(this.steps, "aria-label", "Steps");
    setAttribute(this.timeline, "role", "img");
    setAttribute(this.attempts, "aria-label", "Attempts");
    setAttribute(this.rows, "aria-label", "Facts");
    for (const [node, label] of /** @type {[Element, string][]} */ ([
      [this.traceback, `Traceback of ${face.name}`],
      [this.result, `Result of ${face.name}`],
      [this.log, `Output of ${face.name}`],
    ])) {
      setAttribute(node, "role", node === this.log ? "log" : "region");
      setAttribute(node, "aria-label", label);
      setAttribute(node, "tabindex", "0");
      setAttribute(node, "data-lm-suppress-shortcuts", "true"); // the arrows scroll
    }
    setAttribute(this.log, "aria-live", "off");
    setText(this.earlier, `The last lines of its output; all of it: nbjobs logs ${face.run}`);
    this.whole = "";
    this.all = false;
    this.seen = 0;
    this.follows = true;
    this.top = 0;
    const { log } = this;
    const leave = (/** @type {boolean} */ up) => {
      if (up) this.follows = false; // before the next lines come: scrolling takes a moment to begin
    };
    log.addEventListener("keydown", ({ key }) => leave(["ArrowUp", "PageUp", "Home"].includes(key)));
    log.addEventListener("wheel", ({ deltaY }) => leave(deltaY < 0), { passive: true });
    log.addEventListener("scroll", () => {
      leave(log.scrollTop < this.top);
      if (log.scrollTop > this.top && log.scrollHeight - log.scrollTop - log.clientHeight < 8) this.follows = true;
      this.top = log.scrollTop;
    });
  }

  showAll() {
    this.all = true;
    this.more.hidden = true;
    for (const row of this.steps.children) /** @type {HTMLElement} */ (row).hidden = false;
    /** @type {HTMLElement} */ (this.steps.firstElementChild)?.focus();
  }

  /**
   * @param {Face} face
   * @param {Details | null} details  null while they are under way: the steps are known already.
   * @param {number} now
   */
  draw(face, details, now) {
    this.drawSteps(face, now);
    if (!details) return;
    this.drawTimes(details, face.ended ? 0 : now);
    const made = () => element("li", "nbjobs-row", element("span", "nbjobs-label"), " ", element("span", "nbjobs-value"));
    list(this.rows, details.facts, made, (row, fact) => {
      setText(row.firstChild, fact.label);
      setText(row.lastChild, fact.since ? duration((fact.before ?? 0) + now - fact.since) : (fact.text ?? ""));
    });
    const { error } = details;
    this.failure.hidden = !error;
    this.whole = error ? error.traceback || error.text : "";
    setText(this.place, error?.place || error?.text || "");
    setText(this.code, error?.code ?? "");
    setText(this.traceback, error?.traceback ?? "");
    setText(this.result, details.result);
    this.drawLog(details.output);
  }

  /**
   * @param {Face} face
   * @param {number} now
   */
  drawSteps({ steps, earlier }, now) {
    const done = steps.filter(({ state }) => state === "done").length;
    const hidden = earlier && !this.all ? Math.max(0, done - SHOWN_DONE) : 0;
    setText(this.more, earlier);
    this.more.hidden = !hidden;
    list(this.steps, steps, stepRow, (row, { name, state, title, duration: took, note, since }, i) => {
      const [sign, called, remark, time, word] = row.children;
      const [shape, said] = Object.hasOwn(STEPS, state) ? STEPS[state] : STEPS.coming;
      setAttribute(row, "data-name", name);
      if (row.getAttribute("data-state") !== state) sign.replaceChildren(icon(shape));
      setAttribute(row, "data-state", state);
      row.hidden = i < hidden;
      setText(called, title);
      setText(remark, note ?? "");
      setText(time, since ? duration(now - since) : (took ?? ""));
      setText(word, said);
    });
  }

  /**
   * @param {Details} details
   * @param {number} now  0 where the run has ended.
   */
  drawTimes({ timeline, told, attempts }, now) {
    setAttribute(this.timeline, "aria-label", `Times: ${told}`);
    list(this.timeline, timeline, () => element("span", "nbjobs-part"), (part, { kind, text, since, until }) => {
      const ms = Math.max(0, (until || now || since) - since);
      setAttribute(part, "data-kind", kind);
      setAttribute(part, "title", `${text}, ${duration(ms)}`);
      part.style.flexGrow = ms;
    });
    const row = () => element("li", "nbjobs-attempt", element("span", "nbjobs-name"), element("span", "nbjobs-time"));
    list(this.attempts, attempts, row, (node, { text, duration: took, since }) => {
      setText(node.firstChild, text);
      setText(node.lastChild, since && now ? duration(now - since) : (took ?? ""));
    });
  }

  /** @param {Details["output"]} output */
  drawLog({ first, lines }) {
    const end = first + lines.length;
    const known = this.seen - first;
    if (known < 0 || known > lines.length) this.log.replaceChildren(); // a hole, or another output
    const fresh = lines.slice(known < 0 || known > lines.length ? 0 : known);
    this.seen = end;
    this.earlier.hidden = !first;
    if (!fresh.length) return;
    this.log.append(...fresh.map(([stream, text]) => element("span", `nbjobs-line-${stream === "stderr" ? "err" : "out"}`, `${text}\n`)));
    if (!this.follows) return; // whoever reads further up keeps the place
    while (this.log.children.length > lines.length) this.log.firstChild?.remove();
    this.log.scrollTop = this.log.scrollHeight;
    this.top = this.log.scrollTop;
  }
}

/** The buttons: what they say, the second click where work would be lost, and what became of it. */
class Buttons {
  /**
   * @param {Feed} feed
   * @param {Drawing} drawing
   * @param {(text: string) => void} announce
   * @param {AbortSignal} signal
   */
  constructor(feed, drawing, announce, signal) {
    this.feed = feed;
    this.drawing = drawing;
    this.announce = announce;
    this.n = 0;
    this.asking = "";
    this.waiting = "";
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.redraw = () => {};
    /** @type {Map<string, Action>} */
    this.actions = new Map();
    signal.addEventListener("abort", () => clearTimeout(this.timer));
  }

  /**
   * @param {Element} place
   * @param {Face} face
   * @param {Action[]} actions
   * @param {boolean} small
   */
  draw(place, face, actions, small) {
    this.redraw = () => this.draw(place, face, actions, small);
    const focused = place.contains(document.activeElement);
    const keys = actions.map((action) => `${action.do} ${action.from_step ?? ""}`);
    if (this.n !== face.n && !this.asking) this.settle("");
    if (this.asking && !keys.includes(this.asking)) this.settle("");
    this.n = face.n;
    for (const node of [...place.children]) if (!keys.includes(node.getAttribute("data-key") ?? "")) node.remove();
    actions.forEach((action, i) => {
      const key = keys[i];
      let node = [...place.children].find((one) => one.getAttribute("data-key") === key);
      if (!node) {
        node = button(action.do, small ? "nbjobs-button nbjobs-small" : "nbjobs-button");
        if (small) node.append(icon(SIGNS[action.do]));
        node.setAttribute("data-key", key);
        node.addEventListener("click", () => this.press(key));
      }
      if (place.children[i] !== node) place.insertBefore(node, place.children[i] ?? null);
      this.dress(node, face, action, key, small);
    });
    this.actions = new Map(keys.map((key, i) => [key, actions[i]]));
    const first = /** @type {HTMLElement | null} */ (place.querySelector("button"));
    if (focused && !place.contains(document.activeElement)) first?.focus();
  }

  /**
   * @param {Element} node
   * @param {Face} face
   * @param {Action} action
   * @param {string} key
   * @param {boolean} small
   */
  dress(node, face, action, key, small) {
    const label = this.asking === key && action.asks ? action.asks : action.label;
    setAttribute(node, "aria-label", `${label}, ${face.name}`);
    if (small) setAttribute(node, "title", label);
    else setText(node, label);
    setAttribute(node, "aria-disabled", this.waiting === key ? "true" : null);
    node.classList.toggle("nbjobs-asking", this.asking === key);
  }

  /** @param {string} key */
  press(key) {
    const action = this.actions.get(key);
    if (!action || this.waiting) return;
    if (action.asks && this.asking !== key) {
      this.asking = key;
      this.later(() => this.settled(""), ASK_FOR);
      this.announce(`${action.asks}? Press again`);
      this.redraw();
      return;
    }
    this.settle("");
    this.waiting = key;
    const at = action.command ? ` At once, in a terminal: ${action.command}` : "";
    this.later(() => this.say(`The kernel is busy: this is done when the cell ends.${at}`), LATE);
    const { do: what, from_step } = action;
    const done = this.feed.act?.({ do: what, ...(from_step ? { from_step } : {}), n: this.n });
    done?.then(
      (refusal) => this.waiting === key && this.settled(refusal),
      () => this.settled("This did not work"),
    );
    this.redraw();
  }

  /** @param {string} text */
  settled(text) {
    this.settle(text);
    this.redraw();
  }

  /**
   * @param {() => void} then
   * @param {number} ms
   */
  later(then, ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(then, ms);
  }

  /** @param {string} text */
  settle(text) {
    clearTimeout(this.timer);
    this.asking = this.waiting = "";
    this.say(text);
  }

  /** @param {string} text */
  say(text) {
    setText(this.drawing.said, text);
    setAttribute(this.drawing.said, "title", text || null);
    if (text) this.announce(text);
  }
}

/** Says state and step to a screen reader, politely: the latest, at most once in five seconds. */
class Announcer {
  /**
   * @param {Element} region
   * @param {AbortSignal} signal
   */
  constructor(region, signal) {
    this.region = region;
    this.key = "";
    this.waiting = "";
    this.last = -Infinity;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    signal.addEventListener("abort", () => clearTimeout(this.timer));
  }

  /** @param {Pick<Face, "state" | "step" | "name" | "headline" | "word">} face */
  hear(face) {
    const key = `${face.state} ${face.step}`;
    const first = this.key === "";
    if (key === this.key) return;
    this.key = key;
    if (first) return; // what is there when the card appears is read with the page
    this.say(`${face.name}: ${face.headline || face.word}`);
  }

  /** @param {string} text */
  say(text) {
    this.waiting = text;
    this.timer ??= setTimeout(() => this.speak(), Math.max(0, this.last + SPEAK_EVERY - performance.now()));
  }

  speak() {
    this.timer = undefined;
    this.last = performance.now();
    setText(this.region, this.waiting);
  }
}

/** Paints the latest face at most ten times a second, and wakes by itself for what comes with time alone. */
class Painter {
  /**
   * @param {Feed} feed
   * @param {Drawing} drawing
   * @param {AbortSignal} signal
   */
  constructor(feed, drawing, signal) {
    this.feed = feed;
    this.drawing = drawing;
    this.signal = signal;
    this.announcer = new Announcer(drawing.status, signal);
    this.painted = -Infinity;
    this.shown = -Infinity;
    this.asked = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.frame = 0;
    this.severed = false;
    this.ahead = Infinity;
    this.buttons = new Buttons(feed, drawing, (text) => this.announcer.say(text), signal);
    /** @type {Opened | null} */
    this.opened = null;
    this.filled = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.alarm = undefined;
    feed.subscribe(() => this.arrived(), signal);
    feed.onSevered?.(() => this.cut(), signal);
    document.addEventListener("visibilitychange", () => this.ask(), { signal });
    signal.addEventListener("abort", () => {
      clearTimeout(this.alarm);
      if (this.opened) this.tell("collapse");
    });
    drawing.actions.hidden = !feed.act;
    drawing.expand.addEventListener("click", () => this.toggle());
    const face = feed.get();
    if (face?.run && feed.act && this.details()) this.open(face); // as it was before the page was loaded anew
    this.paint();
  }

  /** @returns {Details | null} */
  details() {
    const details = this.feed.details?.();
    return details && "timeline" in details ? details : null;
  }

  /** @param {string} what */
  tell(what) {
    const n = this.feed.get()?.n ?? 0;
    void Promise.resolve(this.feed.act?.({ do: what, n })).catch(() => {}); // a page that is left has nobody to tell
  }

  /** @param {Face} face */
  open(face) {
    this.opened = new Opened(face);
    this.drawing.status.before(this.opened.root);
    this.filled = false;
  }

  toggle() {
    const face = this.feed.get();
    if (!face?.run) return;
    if (this.opened) {
      this.opened.root.remove();
      this.opened = null;
      this.tell("collapse");
    } else {
      this.open(face);
      this.tell("expand");
      setTimeout(() => {
        if (this.opened && !this.details()) this.buttons.say("The kernel is busy: the rest comes when the cell ends.");
      }, LATE);
    }
    this.paint();
  }

  /**
   * @param {Face} face
   * @param {number} now
   */
  drawActions(face, now) {
    const { drawing, opened } = this;
    setAttribute(drawing.expand, "aria-expanded", String(!!opened));
    setAttribute(drawing.expand, "aria-label", `Details of ${face.name}`);
    setAttribute(drawing.expand, "title", opened ? "Less" : "More");
    drawing.root.classList.toggle("nbjobs-open", !!opened);
    const actions = this.severed || !this.feed.act ? [] : (face.actions ?? []);
    if (opened) {
      drawing.small.replaceChildren();
      this.buttons.draw(opened.actions, face, actions, false);
      const details = this.details();
      if (details && !this.filled) this.buttons.settle("");
      if (!details && this.filled && !this.severed) this.tell("expand"); // closed in another view of it
      this.filled = !!details;
      opened.draw(face, details, now);
    } else {
      const quick = actions.filter((one) => SIGNS[one.do] && !one.asks && !one.from_step);
      this.buttons.draw(drawing.small, face, quick.slice(0, 2), true);
    }
  }

  arrived() {
    this.severed = false;
    const sent = this.feed.get()?.sent;
    if (sent) this.ahead = Math.min(this.ahead, Date.now() - sent);
    // at once where it may be: what follows an end may take the card away
    if (this.feed.get()?.ended || performance.now() - this.painted >= PAINT_EVERY) this.paint();
    else this.ask();
  }

  cut() {
    this.severed = true;
    this.ask();
  }

  /** Python's time, as well as it is known here: a face just received left Python a moment ago. */
  now() {
    return Date.now() - (Number.isFinite(this.ahead) ? this.ahead : 0);
  }

  ask() {
    if (this.asked || this.signal.aborted) return;
    this.asked = true;
    const wait = Math.max(0, this.painted + PAINT_EVERY - performance.now());
    this.timer = setTimeout(() => {
      this.frame = requestAnimationFrame(() => this.paint());
    }, wait);
  }

  /** @param {boolean} [tick]  It is only the clock: news need not wait for their turn behind it. */
  paint(tick = false) {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    this.asked = false;
    const face = this.feed.get();
    if (this.signal.aborted || !face?.run) return;
    const moment = performance.now();
    const now = this.now();
    const due = this.severed ? [] : (face.thresholds ?? []).filter(({ at }) => at <= now);
    const marks = [...face.marks, ...due.map(({ mark }) => mark)];
    if (this.severed && !face.ended) marks.push("detached");
    const jump = moment - this.shown > CATCH_UP;
    const headline = due.at(-1)?.text ?? face.headline;
    const clock = due.at(-1)?.clock ?? face.clock;
    let facts = this.facts({ ...face, clock }, now);
    if (due.length) facts = facts.filter(({ kind }) => kind !== "rate" && kind !== "remaining"); // no longer true
    this.drawing.draw({ ...face, headline }, [...new Set(marks)], facts.slice(0, MOST_FACTS), jump);
    this.drawActions(face, now);
    this.announcer.hear(face);
    this.shown = moment;
    if (!tick) this.painted = moment;
    this.wake(face, clock, now);
  }

  /**
   * @param {Face} face
   * @param {number} now
   * @returns {Fact[]}
   */
  facts(face, now) {
    if (face.ended) return face.facts;
    if (this.severed) return [{ kind: "note", text: `saved view${clockTime(face.sent)}: its kernel is gone` }, ...face.facts];
    const facts = timed(face, now);
    return face.error ? [...facts.slice(0, MOST_FACTS - 1), { kind: "error", text: face.error }] : facts;
  }

  /**
   * @param {Face} face
   * @param {Clock | null} clock
   * @param {number} now
   */
  wake(face, clock, now) {
    clearTimeout(this.alarm);
    if (this.severed || document.hidden) return;
    const times = (face.thresholds ?? []).map(({ at }) => at).filter((at) => at > now);
    if (this.opened && !face.ended) times.push(now + 1000);
    if (clock) times.push(now + 1000 - ((((now - clock.since) % 1000) + 1000) % 1000));
    if (times.length) this.alarm = setTimeout(() => this.paint(true), Math.min(...times) - now + 5);
  }
}

/**
 * Put a card into `el` and keep it true until the signal aborts.
 *
 * @param {HTMLElement} el
 * @param {Feed} feed
 * @param {{signal?: AbortSignal}} [options]
 * @returns {() => void} Takes the card away.
 */
export function mountCard(el, feed, options = {}) {
  const controller = new AbortController();
  const { signal } = controller;
  const drawing = new Drawing();
  const unmount = () => {
    controller.abort();
    drawing.root.remove();
  };
  if (options.signal?.aborted) return unmount;
  options.signal?.addEventListener("abort", unmount, { signal });
  el.append(drawing.root);
  new Painter(feed, drawing, signal);
  return unmount;
}

/**
 * The feed of an anywidget model, whose traits `face` and `details` Python sets as a whole.
 *
 * A message goes behind the cell that runs until the page has its own thread in the kernel, a moment after the
 * card. So it is sent again, ever more seldom, until it is answered; Python acts once on each key.
 *
 * @param {any} model
 * @returns {Feed}
 */
function modelFeed(model) {
  /** @type {Map<number, (refusal: string) => void>} */
  const waiting = new Map();
  let left = false;
  const answered = (/** @type {any} */ { answer, refusal }) => {
    waiting.get(answer)?.(String(refusal));
    waiting.delete(answer);
  };
  const listen = (/** @type {string[]} */ ...names) => (/** @type {any} */ callback, /** @type {AbortSignal} */ signal) => {
    for (const name of names) {
      model.on(name, callback);
      signal.addEventListener("abort", () => model.off(name, callback));
    }
  };
  const act = async (/** @type {object} */ message) => {
    const key = Math.floor(Math.random() * 2 ** 31); // other views of the model hear the answer too
    /** @type {Promise<string>} */
    const answer = new Promise((resolve) => left || waiting.set(key, resolve));
    for (let wait = AGAIN; ; wait *= 2) {
      model.send({ ...message, key });
      await Promise.race([answer, new Promise((over) => setTimeout(over, wait))]);
      if (!waiting.has(key)) return answer;
    }
  };
  return {
    get: () => model.get("face"),
    details: () => model.get("details"),
    subscribe(changed, signal) {
      listen("change:face", "change:details")(changed, signal);
      listen("msg:custom")(answered, signal);
      signal.addEventListener("abort", () => {
        left = true;
        waiting.clear();
      });
    },
    onSevered: listen("comm_live_update"),
    act: model.get("controlled") ? act : undefined,
  };
}

/** @param {{model: any, el: HTMLElement, signal?: AbortSignal}} context */
function render({ model, el, signal }) {
  return mountCard(el, modelFeed(model), { signal });
}

/** What the card of several runs, `runs.js`, is drawn with as well. */
export const tools = {
  element,
  setText,
  setAttribute,
  duration,
  Announcer,
  /** @type {(shape: string, glyph: string) => Node | string} */
  icon: (shape, glyph) => (Object.hasOwn(SHAPES, shape) ? icon(shape) : glyph),
};
/** @typedef {typeof tools} Tools */

/** `initialize` gives the stubs of all cards this code; `render` is for a model that brings its own. */
export default { initialize: () => ({ render, tools }), render };
