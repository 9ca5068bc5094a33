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
 * @typedef {{at: number, mark: string, text: string}} Threshold
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
 * @property {number} [sent]  When the face left Python (ms): tells this browser's clock from that one's.
 *
 * @typedef {object} Feed  Where faces come from.
 * @property {() => Face | null | undefined} get  The latest face.
 * @property {(changed: () => void, signal: AbortSignal) => void} subscribe  Calls `changed` after each new face, until `signal` aborts.
 * @property {(severed: () => void, signal: AbortSignal) => void} [onSevered]  Calls `severed` when nobody feeds the card any more.
 */

const PAINT_EVERY = 100;
const SPEAK_EVERY = 5000;
const MOST_FACTS = 5;
const CATCH_UP = 1500;
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
  resumed: { line: "M4 13.5V9a3 3 0 0 1 3-3h5.5M9.5 2.75L12.75 6L9.5 9.25" },
};
/** Marks that want the user's eye; the others are told in words alone. */
const ATTENTION = new Set(["stuck", "no-worker", "changed"]);

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
    this.status = element("div", "nbjobs-status");
    this.root = element(
      "div",
      "nbjobs-card",
      element(
        "div",
        "nbjobs-head",
        this.icon,
        element("div", "nbjobs-title", this.name, " ", this.headline),
        element("div", "nbjobs-actions"),
      ),
      element("div", "nbjobs-progress", this.bar, this.percent),
      element("div", "nbjobs-foot", this.facts),
      this.error,
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

  /** @param {Face} face */
  hear(face) {
    const key = `${face.state} ${face.step}`;
    const first = this.key === "";
    if (key === this.key) return;
    this.key = key;
    if (first) return; // what is there when the card appears is read with the page
    this.waiting = `${face.name}: ${face.headline || face.word}`;
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
    this.asked = false;
    this.severed = false;
    this.ahead = Infinity;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.alarm = undefined;
    feed.subscribe(() => this.arrived(), signal);
    feed.onSevered?.(() => this.cut(), signal);
    document.addEventListener("visibilitychange", () => this.ask(), { signal });
    signal.addEventListener("abort", () => clearTimeout(this.alarm));
    this.paint();
  }

  arrived() {
    this.severed = false;
    const sent = this.feed.get()?.sent;
    if (sent) this.ahead = Math.min(this.ahead, Date.now() - sent);
    if (this.feed.get()?.ended) this.paint(); // what follows the end may take the card away
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
    setTimeout(() => requestAnimationFrame(() => this.paint()), wait);
  }

  paint() {
    this.asked = false;
    const face = this.feed.get();
    if (this.signal.aborted || !face?.run) return;
    const moment = performance.now();
    const now = this.now();
    const due = this.severed ? [] : (face.thresholds ?? []).filter(({ at }) => at <= now);
    const marks = [...face.marks, ...due.map(({ mark }) => mark)];
    if (this.severed && !face.ended) marks.push("detached");
    const jump = moment - this.painted > CATCH_UP;
    const headline = due.at(-1)?.text ?? face.headline;
    let facts = this.facts(face, now);
    if (due.length) facts = facts.filter(({ kind }) => kind !== "rate" && kind !== "remaining"); // no longer true
    this.drawing.draw({ ...face, headline }, [...new Set(marks)], facts.slice(0, MOST_FACTS), jump);
    this.announcer.hear(face);
    this.painted = moment;
    this.wake(face, now);
  }

  /**
   * @param {Face} face
   * @param {number} now
   * @returns {Fact[]}
   */
  facts(face, now) {
    if (face.ended) return face.facts;
    if (this.severed) return [{ kind: "note", text: "not live: its kernel is gone" }, ...face.facts];
    const facts = timed(face, now);
    return face.error ? [...facts.slice(0, MOST_FACTS - 1), { kind: "error", text: face.error }] : facts;
  }

  /**
   * @param {Face} face
   * @param {number} now
   */
  wake(face, now) {
    clearTimeout(this.alarm);
    if (this.severed || document.hidden) return;
    const times = (face.thresholds ?? []).map(({ at }) => at).filter((at) => at > now);
    if (face.clock) times.push(now + 1000 - ((((now - face.clock.since) % 1000) + 1000) % 1000));
    if (times.length) this.alarm = setTimeout(() => this.ask(), Math.min(...times) - now + 5);
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
 * The feed of an anywidget model, whose trait `face` Python sets as a whole.
 *
 * @param {any} model
 * @returns {Feed}
 */
function modelFeed(model) {
  const listen = (/** @type {string} */ name) => (/** @type {() => void} */ callback, /** @type {AbortSignal} */ signal) => {
    model.on(name, callback);
    signal.addEventListener("abort", () => model.off(name, callback));
  };
  return { get: () => model.get("face"), subscribe: listen("change:face"), onSevered: listen("comm_live_update") };
}

/** @param {{model: any, el: HTMLElement, signal?: AbortSignal}} context */
function render({ model, el, signal }) {
  return mountCard(el, modelFeed(model), { signal });
}

/** `initialize` gives the stubs of all cards this code; `render` is for a model that brings its own. */
export default { initialize: () => ({ render, mountCard }), render };
