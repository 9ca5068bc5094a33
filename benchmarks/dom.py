"""From a state event in Redis to the card's changed DOM, in a real JupyterLab in Chromium."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import redis
from playwright.sync_api import Browser, sync_playwright

from nbjobs.keys import Keys
from tests.browser.lab import PAINTS, Lab
from tests.support import RedisServer

from .figures import Figure, Goal, percentile
from .support import QUEUE, USER, wait_for, worker

CROWD = 20  # cards that are live at the same time
CROWD_PAUSE = 1.0  # seconds between two events of one of them
CROWD_QUIET = 4.0  # seconds before the first: the page has to put up the cards
PAUSE = 0.3  # seconds between two events: each is drawn alone, the card draws ten times a second at most
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]

# The peer in the same notebook: the least that a widget can do. Its value is the time when it was set.
FLOOR = """
import threading, time, ipywidgets
from benchmarks.jobs import paced
floor = ipywidgets.Label("0")
def set_it():
    for _ in range({count}):
        time.sleep({pause})
        floor.value = f"{{time.time() * 1000:.0f}}"
floor
"""
START = """
run = paced.enqueue({count}, {pause})
threading.Thread(target=set_it, daemon=True).start()
run
"""
SHOW = """
import time
from IPython.display import display
from benchmarks.jobs import apaced
delays = [{quiet} + n * {pause} / {crowd} for n in range({crowd})]
runs = apaced.enqueue_all([{count}] * {crowd}, [{pause}] * {crowd}, delays)
for run in runs: display(run)
"""
BUSY = """
until = time.time() + {seconds}
while time.time() < until:
    sum(range(50_000))
"""
WATCH = """() => {
    window.shown = [];
    window.floor = [];
    let n = "", value = "";
    const observer = new MutationObserver(() => {
        const at = Date.now();
        const card = document.querySelector(".jp-OutputArea .nbjobs-card");
        if (card && card.dataset.n !== n) window.shown.push([Number(n = card.dataset.n), at]);
        const label = document.querySelector(".jp-OutputArea .widget-label");
        if (label && label.textContent !== value) window.floor.push([Number(value = label.textContent), at]);
    });
    observer.observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true,
        attributeFilter: ["data-n"]});
    return observer;
}"""


WATCH_ALL = """() => {
    window.shown = [];
    const seen = new Map();
    const observer = new MutationObserver(changes => {
        const at = Date.now();
        for (const {target: {dataset: {run, n}}} of changes) {
            if (!run || seen.get(run) === n) continue;
            seen.set(run, n);
            window.shown.push([run, Number(n), at]);
        }
    });
    observer.observe(document.body, {subtree: true, attributes: true, attributeFilter: ["data-n"]});
    return observer;
}"""

HOT = """
from benchmarks.jobs import hot
run = hot.options(delay=5).enqueue({items})
run.card()
"""
# Notes how long each task took that held the page for more than 50 ms.
TASKS = """() => {
    window.held = [];
    new PerformanceObserver(list => window.held.push(...list.getEntries().map(one => one.duration)))
        .observe({type: "longtask"});
}"""


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    count = 6 if quick else 40
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nbjobs-bench-")))
        server = stack.enter_context(RedisServer())
        stack.enter_context(worker(server.url))
        settings = {"NBJOBS_REDIS_URL": server.url, "NBJOBS_USER": USER, "NBJOBS_QUEUE": QUEUE}
        lab = stack.enter_context(Lab(folder, settings))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=_chromium(), args=FLAGS)
        stack.callback(browser.close)
        client = server.client()
        stack.callback(client.close)
        figures = []
        for kernel in ("idle", "busy"):
            ours, floor = _race(lab, browser, client, kernel, count)
            for name, share in (("p50", 0.5), ("p95", 0.95)):
                figures.append(
                    Figure(
                        f"dom_{kernel}_{name}",
                        f"event in Redis → card in the DOM, kernel {kernel}, {name}",
                        "ms",
                        percentile(ours, share),
                        f"{name} of {len(ours)}, the peer's of {len(floor)}, at the same time",
                        None,
                        "a bare Label set by a thread",
                        percentile(floor, share),
                    )
                )
            figures += _crowd_figures(kernel, _crowd(lab, browser, client, kernel, 5 if quick else 20))
        figures.append(_hot(lab, browser, client, 50_000 if quick else 300_000))
    return figures


def _hot(lab: Lab, browser: Browser, client: redis.Redis, items: int) -> Figure:
    """Measure the longest task of the page while a job makes as many items a second as it can, an event each."""
    client.flushall()
    with lab.open(browser, lab.write("hot.ipynb", HOT.format(items=items))) as notebook:
        notebook.start_all()
        notebook.card.wait_for(timeout=30_000)
        notebook.card.locator("[data-action=expand]").click()
        notebook.page.wait_for_timeout(3000)  # the page's own start, and the opening
        notebook.page.evaluate(TASKS)
        notebook.page.wait_for_selector(".nbjobs-card[data-state=running]")
        notebook.watch(PAINTS)
        notebook.page.wait_for_selector(".nbjobs-card[data-state=completed]", timeout=120_000)
        held, paints = notebook.page.evaluate("[window.held, window.paints]")
    return Figure(
        "dom_hot_longest_task",
        "longest task of the page beside a hot job, 0 where none exceeds 50",
        "ms",
        max(held, default=0),
        f"{items:,} items in {(paints[-1] - paints[0]) / 1000:.1f} s, an event each; {len(paints)} paints",
        Goal(50),
    )


def _crowd_figures(kernel: str, lags: list[float]) -> list[Figure]:
    goals = {"p50": 15 if kernel == "idle" else 35, "p95": 100}
    return [
        Figure(
            f"dom_{CROWD}_{kernel}_{name}",
            f"the same with {CROWD} live cards, kernel {kernel}, {name}",
            "ms",
            percentile(lags, share),
            f"{name} of {len(lags)}",
            Goal(goals[name]),
        )
        for name, share in (("p50", 0.5), ("p95", 0.95))
    ]


def _crowd(lab: Lab, browser: Browser, client: redis.Redis, kernel: str, count: int) -> list[float]:
    """Return the ms from each event of the runs to the DOM that has it, where 20 are live."""
    given = {"count": count, "crowd": CROWD, "pause": CROWD_PAUSE, "quiet": CROWD_QUIET}
    given["seconds"] = CROWD_QUIET + (2 * count + 1) * CROWD_PAUSE
    cells = [SHOW, *([BUSY] if kernel == "busy" else [])]
    name = lab.write(f"crowd-{kernel}.ipynb", *(cell.format(**given) for cell in cells))
    client.flushall()
    with lab.open(browser, name) as notebook:
        notebook.watch(WATCH_ALL)
        notebook.start_all()
        notebook.page.wait_for_function(f"document.querySelectorAll('.nbjobs-card').length === {CROWD}")
        cards = notebook.page.locator(".nbjobs-card")
        runs: list[str] = cards.evaluate_all("all => all.map(card => card.dataset.run)")

        def ended() -> bool:
            notebook.page.wait_for_timeout(200)
            return all(client.hget(Keys(USER).run(run), "state") == "completed" for run in runs)

        wait_for(ended, CROWD_QUIET + 4 * count * CROWD_PAUSE + 30, "the runs' end")
        notebook.wait_done(given["seconds"] + 30)
        notebook.page.wait_for_timeout(500)
        shown: list[tuple[str, float, float]] = notebook.page.evaluate("window.shown")
    return [lag for run in runs for lag in _lags(client, run, [[n, at] for one, n, at in shown if one == run])]


def _race(lab: Lab, browser: Browser, client: redis.Redis, kernel: str, count: int) -> tuple[list[float], list[float]]:
    given = {"count": count, "pause": PAUSE, "seconds": 2 * count * PAUSE + 1}
    cells = [FLOOR, START, *([BUSY] if kernel == "busy" else [])]
    name = lab.write(f"{kernel}.ipynb", *(cell.format(**given) for cell in cells))
    client.flushall()
    with lab.open(browser, name) as notebook:
        notebook.watch(WATCH)
        notebook.start_all()
        notebook.card.wait_for(timeout=30_000)
        run = notebook.card.get_attribute("data-run") or ""
        key = Keys(USER).run(run)

        def ended() -> bool:
            notebook.page.wait_for_timeout(200)
            return bool(client.hget(key, "state") == "completed")

        wait_for(ended, 4 * count * PAUSE + 30, "the run's end")
        notebook.wait_done(given["seconds"] + 30)
        notebook.page.wait_for_timeout(500)
        shown: list[list[float]] = notebook.page.evaluate("window.shown")
        floor: list[list[float]] = notebook.page.evaluate("window.floor")
    return _lags(client, run, shown), [at - value for value, at in floor if value]


def _lags(client: redis.Redis, run: str, shown: list[list[float]]) -> list[float]:
    """Return the ms from each step's event to the first DOM that had it."""
    found = []
    for id, entry in cast("list[Any]", client.xrange(Keys(USER).events(run))):
        if entry["e"] in ("job.step", "job.step_started"):
            drawn = next((at for n, at in shown if n >= int(entry["n"])), None)
            if drawn is None:
                raise RuntimeError(f"event {entry['n']} of the run was never drawn")
            found.append(drawn - int(id.split("-")[0]))
    return found


def _chromium() -> str:
    names: Any = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise RuntimeError(f"no browser found: expected $CHROMIUM, or one of {', '.join(names)} on PATH")
    return found
