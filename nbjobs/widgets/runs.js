/**
 * The card of several runs: counts by state, one bar, and a cell for each run, failures first.
 *
 * As with the card of one run all words arrive finished, from `nbjobs.summary`. A cell that is pointed at or focused
 * shows its run's line; one that is clicked asks the kernel for the run's own card, which appears below.
 */

/**
 * @typedef {{state: string, icon: string, text: string}} Part
 * @typedef {{run: string, number: number, state: string, icon: string, text: string}} Cell
 *
 * @typedef {object} Summary
 * @property {string} name
 * @property {string} state
 * @property {string} icon
 * @property {string} headline
 * @property {number} total
 * @property {number} ended
 * @property {number} done
 * @property {number} failed
 * @property {string} percent
 * @property {Part[]} parts
 * @property {{kind: string, text: string}[]} facts
 * @property {string} aria
 * @property {{since: number, prefix: string} | null} clock
 * @property {boolean} over
 * @property {Cell[]} cells
 * @property {number} hidden
 * @property {number} [sent]  When it left Python (ms).
 *
 * @typedef {object} Feed
 * @property {() => Summary | null | undefined} get
 * @property {(changed: () => void, signal: AbortSignal) => void} subscribe
 * @property {(severed: () => void, signal: AbortSignal) => void} [onSevered]
 * @property {() => string} opened  Which run's own card is open; "" for none.
 * @property {(changed: () => void, signal: AbortSignal) => void} onOpened
 * @property {(run: string) => void} open  Asks for that run's card; "" closes it.
 * @property {(el: HTMLElement, signal: AbortSignal) => unknown} show  Puts the open card into an element.
 *
 * @typedef {import("./card.js").Tools} Tools
 */

const PAINT_EVERY = 100;
const KEYS = new Set(["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "Home", "End", "Enter", " "]);

/** The card's elements, and what they do. */
class Drawing {
  /**
   * @param {Feed} feed
   * @param {Tools} tools
   * @param {AbortSignal} signal
   */
  constructor(feed, tools, signal) {
    const { element } = tools;
    this.feed = feed;
    this.tools = tools;
    this.signal = signal;
    this.icon = element("span", "nbjobs-icon");
    this.name = element("span", "nbjobs-name");
    this.headline = element("span", "nbjobs-headline");
    this.fill = element("div", "nbjobs-fill");
    this.failed = element("div", "nbjobs-failed");
    this.bar = element("div", "nbjobs-bar", element("div", "nbjobs-track", this.fill, this.failed));
    this.percent = element("span", "nbjobs-percent");
    this.parts = element("div", "nbjobs-counts");
    this.cells = element("div", "nbjobs-cells");
    this.line = element("div", "nbjobs-cell-line");
    this.opened = element("div", "nbjobs-below");
    this.status = element("div", "nbjobs-status");
    this.root = element(
      "div",
      "nbjobs-card nbjobs-runs",
      element("div", "nbjobs-head", this.icon, element("div", "nbjobs-title", this.name, " ", this.headline)),
      element("div", "nbjobs-progress", this.bar, this.percent),
      this.parts,
      this.cells,
      this.line,
      this.opened,
      this.status,
    );
    this.root.setAttribute("role", "group");
    this.bar.setAttribute("role", "progressbar");
    this.bar.setAttribute("data-kind", "known");
    this.bar.setAttribute("aria-valuemin", "0");
    this.bar.setAttribute("aria-valuemax", "1");
    this.percent.setAttribute("aria-hidden", "true");
    this.cells.setAttribute("role", "listbox");
    this.line.setAttribute("aria-hidden", "true"); // each cell has it as its name
    this.status.setAttribute("role", "status");
    /** @type {Map<string, HTMLElement>} */
    this.byRun = new Map();
    /** @type {HTMLElement | undefined} */
    this.current = undefined;
    this.shape = "";
    this.listen();
  }

  listen() {
    const { cells, signal } = this;
    const at = (/** @type {Event} */ event) =>
      /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest("[role=option]"));
    cells.addEventListener("pointerover", (event) => this.tell(at(event)), { signal });
    cells.addEventListener("pointerleave", () => this.tell(undefined), { signal });
    cells.addEventListener("focusin", (event) => this.select(at(event)), { signal });
    cells.addEventListener("click", (event) => this.toggle(at(event)), { signal });
    cells.addEventListener("keydown", (event) => this.press(event, at(event)), { signal });
  }

  /** Whether somebody is at the cells: then none may move away under the pointer. */
  get inUse() {
    return this.cells.matches(":hover") || this.cells.contains(document.activeElement);
  }

  /** @param {HTMLElement | null | undefined} cell */
  tell(cell) {
    const shown = cell ?? (this.cells.contains(document.activeElement) ? this.current : undefined);
    this.tools.setText(this.line, shown?.title ?? "");
  }

  /** @param {HTMLElement | null} cell */
  select(cell) {
    if (!cell) return;
    if (this.current) this.current.tabIndex = -1;
    this.current = cell;
    cell.tabIndex = 0;
    this.tell(cell);
  }

  /** @param {HTMLElement | null} cell */
  toggle(cell) {
    if (!cell?.dataset.run) return;
    this.feed.open(this.feed.opened() === cell.dataset.run ? "" : cell.dataset.run);
  }

  /**
   * @param {KeyboardEvent} event
   * @param {HTMLElement | null} cell
   */
  press(event, cell) {
    if (!cell || !KEYS.has(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation(); // the notebook has these keys too
    if (event.key === "Enter" || event.key === " ") return this.toggle(cell);
    const all = /** @type {HTMLElement[]} */ ([...this.cells.children]);
    const here = all.indexOf(cell);
    const row = all.filter((one) => one.offsetTop === all[0].offsetTop).length;
    /** @type {Record<string, number>} */
    const places = {
      ArrowRight: here + 1,
      ArrowLeft: here - 1,
      ArrowDown: here + row,
      ArrowUp: here - row,
      Home: 0,
      End: all.length - 1,
    };
    all[places[event.key]]?.focus();
  }

  /**
   * @param {Summary} summary
   * @param {string[]} facts
   */
  draw(summary, facts) {
    const { setAttribute, setText } = this.tools;
    const { root } = this;
    setAttribute(root, "data-state", summary.state);
    setAttribute(root, "data-total", summary.total);
    setAttribute(root, "data-ended", summary.ended);
    setAttribute(root, "aria-label", `${summary.name}, ${summary.headline}`);
    if (this.shape !== summary.state) this.icon.replaceChildren(this.tools.icon(summary.state, summary.icon));
    this.shape = summary.state;
    setText(this.name, summary.name);
    setText(this.headline, summary.headline);
    setText(this.percent, summary.percent);
    setAttribute(this.bar, "aria-label", summary.name);
    setAttribute(this.bar, "aria-valuenow", summary.done);
    setAttribute(this.bar, "aria-valuetext", summary.aria);
    this.fill.style.transform = `translateX(${(summary.done - 1) * 100}%)`;
    this.failed.style.transform = `translateX(${(summary.failed - 1) * 100}%)`;
    this.drawParts(summary.parts, facts);
    this.drawCells(summary);
  }

  /**
   * @param {Part[]} parts
   * @param {string[]} facts
   */
  drawParts(parts, facts) {
    const { element, icon, setText } = this.tools;
    const wanted = [...parts.map(({ state }) => state), ...facts.map((_, at) => `fact ${at}`)];
    const made = /** @type {HTMLElement[]} */ ([...this.parts.children]);
    if (made.map((one) => one.dataset.state).join() !== wanted.join()) {
      this.parts.replaceChildren(
        ...wanted.map((state, at) => {
          const one = element("span", "nbjobs-count", ...(at < parts.length ? [icon(state, parts[at].icon)] : []));
          one.dataset.state = state;
          one.append(element("span", "nbjobs-text"));
          return one;
        }),
      );
    }
    const texts = [...parts.map(({ text }) => text), ...facts];
    [...this.parts.children].forEach((one, at) => setText(/** @type {Element} */ (one.lastElementChild), texts[at]));
  }

  /** @param {Summary} summary */
  drawCells({ name, cells }) {
    const { element, icon, setAttribute } = this.tools;
    setAttribute(this.cells, "aria-label", `Runs of ${name}`);
    const opened = this.feed.opened();
    const nodes = cells.map((cell) => {
      let node = this.byRun.get(cell.run);
      if (!node) {
        node = element("div", "nbjobs-cell");
        node.setAttribute("role", "option");
        node.dataset.run = cell.run;
        node.tabIndex = -1;
        this.byRun.set(cell.run, node);
      }
      if (node.dataset.state !== cell.state) node.replaceChildren(icon(cell.state, cell.icon));
      setAttribute(node, "data-state", cell.state);
      setAttribute(node, "title", cell.text);
      setAttribute(node, "aria-label", cell.text);
      setAttribute(node, "aria-selected", String(cell.run === opened));
      return node;
    });
    if (!this.current?.isConnected && nodes[0]) (this.current = nodes[0]).tabIndex = 0;
    const moved = nodes.some((node, at) => this.cells.children[at] !== node);
    if (moved && (!this.inUse || !this.cells.children.length)) this.cells.replaceChildren(...nodes);
    this.tell(/** @type {HTMLElement | null} */ (this.cells.querySelector(":hover")));
  }
}

/** Paints the latest summary at most ten times a second, ticks its clock, and shows the card that is open. */
class Painter {
  /**
   * @param {Feed} feed
   * @param {Drawing} drawing
   * @param {Tools} tools
   * @param {AbortSignal} signal
   */
  constructor(feed, drawing, tools, signal) {
    this.feed = feed;
    this.drawing = drawing;
    this.tools = tools;
    this.signal = signal;
    this.announcer = new tools.Announcer(drawing.status, signal);
    this.painted = -Infinity;
    this.asked = false;
    this.severed = false;
    this.ahead = Infinity;
    this.shown = "";
    /** @type {AbortController | undefined} */
    this.showing = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.alarm = undefined;
    feed.subscribe(() => this.arrived(), signal);
    feed.onOpened(() => this.open(), signal);
    feed.onSevered?.(() => this.cut(), signal);
    for (const left of ["pointerleave", "focusout"]) drawing.cells.addEventListener(left, () => this.ask(), { signal });
    signal.addEventListener("abort", () => {
      clearTimeout(this.alarm);
      this.showing?.abort();
    });
    this.paint();
    this.open();
  }

  arrived() {
    this.severed = false;
    const { sent, over } = this.feed.get() ?? {};
    if (sent) this.ahead = Math.min(this.ahead, Date.now() - sent);
    if (over) this.paint(); // what follows the end may take the card away
    else this.ask();
  }

  cut() {
    this.severed = true;
    this.ask();
  }

  ask() {
    if (this.asked || this.signal.aborted) return;
    this.asked = true;
    const wait = Math.max(0, this.painted + PAINT_EVERY - performance.now());
    setTimeout(() => requestAnimationFrame(() => this.paint()), wait);
  }

  paint() {
    this.asked = false;
    const summary = this.feed.get();
    if (this.signal.aborted || !summary?.cells) return;
    this.painted = performance.now();
    const facts = summary.facts.map(({ text }) => text);
    const now = Date.now() - (Number.isFinite(this.ahead) ? this.ahead : 0);
    if (this.severed && !summary.over) facts.unshift("not live: its kernel is gone");
    else if (summary.clock) facts.unshift(summary.clock.prefix + this.tools.duration(now - summary.clock.since));
    if (summary.hidden) facts.push(`and ${summary.hidden} more`);
    this.drawing.draw(summary, facts);
    const failures = summary.parts.filter(({ state }) => state === "failed" || state === "dead");
    const step = failures.map(({ text }) => text).join(", ");
    this.announcer.hear({ state: summary.state, step, name: summary.name, headline: summary.aria, word: "" });
    clearTimeout(this.alarm);
    if (summary.clock && !this.severed && !document.hidden) this.alarm = setTimeout(() => this.ask(), 1000);
  }

  open() {
    const run = this.feed.opened();
    if (run === this.shown) return;
    this.shown = run;
    this.showing?.abort();
    this.drawing.opened.replaceChildren();
    this.ask();
    if (!run) return;
    this.showing = new AbortController();
    const place = this.tools.element("div", "");
    this.drawing.opened.append(place);
    this.feed.show(place, this.showing.signal);
  }
}

/**
 * Put a card of several runs into `el` and keep it true until the signal aborts.
 *
 * @param {HTMLElement} el
 * @param {Feed} feed
 * @param {Tools} tools  What the card of one run exports for this one.
 * @param {{signal?: AbortSignal}} [options]
 * @returns {() => void} Takes the card away.
 */
export function mountRuns(el, feed, tools, options = {}) {
  const controller = new AbortController();
  const drawing = new Drawing(feed, tools, controller.signal);
  const unmount = () => {
    controller.abort();
    drawing.root.remove();
  };
  if (options.signal?.aborted) return unmount;
  options.signal?.addEventListener("abort", unmount, { signal: controller.signal });
  el.append(drawing.root);
  new Painter(feed, drawing, tools, controller.signal);
  return unmount;
}

/** @param {{model: any, el: HTMLElement, host: any, signal: AbortSignal}} context */
async function render({ model, el, host, signal }) {
  const { tools } = (await host.getWidget(model.get("card_code"))).exports;
  if (signal.aborted) return;
  const listen = (/** @type {string} */ name) => (/** @type {() => void} */ callback, /** @type {AbortSignal} */ until) => {
    model.on(name, callback);
    until.addEventListener("abort", () => model.off(name, callback));
  };
  /** @type {Feed} */
  const feed = {
    get: () => model.get("summary"),
    subscribe: listen("change:summary"),
    onSevered: listen("comm_live_update"),
    opened: () => model.get("opened_run"),
    onOpened: listen("change:opened_run"),
    open: (run) => model.send({ kind: "open", run }),
    show: async (place, until) => {
      const card = await host.getWidget(model.get("opened"));
      if (!until.aborted) await card.render({ el: place, signal: until });
    },
  };
  return mountRuns(el, feed, tools, { signal });
}

export default { initialize: () => ({ render }) };
