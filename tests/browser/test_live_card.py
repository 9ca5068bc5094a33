"""The live card in JupyterLab, beside a worker whose child is killed: what it shows is what happened."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from playwright.sync_api import Browser, Page, expect

from nbjobs.face import face
from nbjobs.keys import Keys
from nbjobs.view import ENDED, RunView, empty, fold

from ..support import RedisServer, wait_until
from .conftest import Process
from .lab import Lab, Notebook

KEYS = Keys("ada")
JOB = """
import hashlib, os
from nbjobs import job, notify, step

def digest(number):
    data = str(number).encode()
    for _ in range(10_000):
        data = hashlib.sha256(data).digest()
    return data.hex()

@job
def import_orders(rows):
    step("prepare", notify, "import.prepared", total=rows)
    for number in step.each("load_rows", range(rows)):
        if number % 10 == 0:
            notify("import.at", number=number, pid=os.getpid())
        digest(number)
    step("finalize", notify, "import.finalized")
"""
ENQUEUE = "run = import_orders.enqueue(800)\nrun"
BUSY = """
count = 0
while run.state not in ("completed", "failed", "dead", "lost"):
    count += sum(range(50_000)) % 7
print("the kernel was busy until", run.state)
"""

# Notes what every card of the page shows, each time that it changes.
_WATCH = """() => {
    window.shown = [];
    let last = "";
    const note = () => {
        const card = document.querySelector(".jp-OutputArea .nbjobs-card");
        if (!card) return;
        const {run, state, step, resumed, n} = card.dataset;
        const bar = card.querySelector(".nbjobs-bar");
        const entry = {run, state, step, resumed, n, done: bar.getAttribute("aria-valuenow")};
        const text = JSON.stringify(entry);
        if (text !== last) window.shown.push(entry);
        last = text;
    };
    new MutationObserver(note).observe(document.body, {subtree: true, childList: true, attributes: true,
        attributeFilter: ["data-run", "data-state", "data-step", "data-resumed", "data-n", "aria-valuenow"]});
}"""


class Shown(NamedTuple):
    """What a card shows of a run, as far as the stream decides it."""

    state: str
    step: str
    resumed: int
    n: int
    done: float | None


class Told(NamedTuple):
    """What the run's stream said, entry by entry, and when (ms)."""

    at: list[int]
    shown: list[Shown]


@pytest.fixture
def client(store: RedisServer) -> Iterator[redis.Redis]:
    opened = store.client()
    opened.flushall()
    yield opened
    opened.close()


def drawn(page: Page) -> list[Shown]:
    return [
        Shown(
            one["state"],
            one["step"],
            int(one["resumed"]),
            int(one["n"]),
            None if one["done"] is None else float(one["done"]),
        )
        for one in page.evaluate("window.shown")
    ]


def told(client: redis.Redis, run: str) -> Told:
    """The run's stream, folded as any reader folds it."""
    at, shown = [], []
    view: RunView = empty(run)
    for id, entry in client.xrange(KEYS.events(run)):
        view = fold(view, entry)
        made = face(view)
        done = made.bar.done if made.bar else None
        at.append(int(id.split("-")[0]))
        shown.append(Shown(made.state, made.step, made.resumed, made.n, done))
    return Told(at, shown)


def is_subsequence(part: list[Shown], whole: list[Shown]) -> bool:
    rest = iter(whole)
    return all(one in rest for one in part)


def lasting(stream: Told, seconds: float) -> Iterator[tuple[str, str]]:
    """State and step of each stretch of the run that lasted at least so long."""
    since = 0
    for i, one in enumerate(stream.shown):
        place = (one.state, one.step)
        if i == 0 or place != (stream.shown[i - 1].state, stream.shown[i - 1].step):
            since = stream.at[i]
        after = stream.shown[i + 1] if i + 1 < len(stream.shown) else one
        ends = place != (after.state, after.step)
        if ends and stream.at[i + 1] - since >= 1000 * seconds:
            yield place


def kill_the_body(client: redis.Redis, run: str, after: int) -> None:
    """SIGKILL the child when it is at row `after` or behind."""

    def pid() -> int | None:
        for _, entry in reversed(client.xrange(KEYS.events(run))):
            if entry["e"] == "import.at":
                payload = json.loads(entry["d"])["p"]
                return int(payload["pid"]) if payload["number"] >= after else None
        return None

    os.kill(wait_until(pid, 30, "the body is in the middle"), signal.SIGKILL)


@contextlib.contextmanager
def opened(lab: Lab, browser: Browser, *cells: str, **options: Any) -> Iterator[Notebook]:
    with lab.open(browser, lab.write("orders.ipynb", *cells), **options) as notebook:
        notebook.page.evaluate(_WATCH)
        notebook.start_all()
        yield notebook


@pytest.mark.parametrize(
    ("kernel", "look", "options"),
    [
        ("idle", "light", {}),
        ("busy", "dark", {"theme": "dark"}),
        ("idle", "320", {"width": 436}),
    ],
)
def test_the_card_shows_what_happened(
    lab: Lab,
    browser: Browser,
    client: redis.Redis,
    start_worker: Callable[[], Process],
    artifacts: Path,
    kernel: str,
    look: str,
    options: dict[str, Any],
) -> None:
    """From queued to done, through the death of its child, the DOM shows the run's stream and nothing else.

    In an idle kernel and in one that a cell keeps busy: what was shown is a subsequence of the stream, in order;
    it ends in the run's last state; no state or step that lasted half a second is missing.
    """
    cells = (JOB, ENQUEUE, BUSY) if kernel == "busy" else (JOB, ENQUEUE)
    with opened(lab, browser, *cells, **options) as notebook:
        card, page = notebook.card, notebook.page
        expect(card).to_have_attribute("data-state", "queued", timeout=30_000)
        run = card.get_attribute("data-run") or ""
        card.screenshot(path=artifacts / f"live-{look}-queued.png")
        page.wait_for_timeout(600)  # the worker comes late, so that queued lasts
        start_worker()
        expect(card).to_have_attribute("data-step", "load_rows", timeout=30_000)
        kill_the_body(client, run, after=250)
        expect(card).to_have_attribute("data-resumed", "1", timeout=30_000)
        expect(card).to_have_attribute("data-step", "load_rows")
        page.wait_for_timeout(1200)  # a rate is known after a second
        page.screenshot(path=artifacts / f"live-{look}-resumed.png")
        card.screenshot(path=artifacts / f"live-{look}-card.png")
        wait_until(lambda: client.hget(KEYS.run(run), "state") in ENDED, 60, "the run's end")
        page.wait_for_function("window.shown.at(-1).state === 'completed'", timeout=10_000)
        notebook.wait_done()
        expect(page.locator(".jp-OutputArea-output").first).to_contain_text("done")
        page.screenshot(path=artifacts / f"live-{look}-done.png")

        stream, shown = told(client, run), drawn(page)
        assert is_subsequence(shown, stream.shown), (shown, stream.shown)
        assert shown[-1] == stream.shown[-1]
        assert stream.shown[-1].state == "completed"
        places = {(one.state, one.step) for one in shown}
        expected = set(lasting(stream, 0.5))
        assert {("queued", ""), ("running", "load_rows")} <= expected
        assert expected <= places
        assert {one.resumed for one in shown} == {0, 1}
        assert len({one.done for one in shown}) > 10
        assert notebook.errors == []


def test_the_saved_notebook_keeps_how_the_run_ended(
    lab: Lab, browser: Browser, client: redis.Redis, start_worker: Callable[[], Process]
) -> None:
    """After the end the output holds text, HTML and the run's id, and no widget that needs a kernel."""
    start_worker()
    with opened(lab, browser, JOB, "run = import_orders.enqueue(20)\nrun", "run.wait(); print(run.state)") as notebook:
        notebook.wait_done()
        shown, printed = (cell.outputs for cell in notebook.cells()[1:])
        (output,) = shown
        assert set(output.data) == {"text/plain", "text/html", "application/vnd.nbjobs.run+json"}
        assert "✓ import_orders  done" in output.data["text/plain"]
        assert [one.output_type for one in printed] == ["stream"]
        assert printed[0].text == "completed\n"


def test_a_card_whose_kernel_restarts_says_that_it_is_not_live(lab: Lab, browser: Browser, client: redis.Redis) -> None:
    """The picture stays when a kernel is restarted; it must not look alive."""
    with opened(lab, browser, JOB, ENQUEUE) as notebook:
        expect(notebook.card).to_have_attribute("data-state", "queued", timeout=30_000)
        notebook.page.evaluate("window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.restart()")
        expect(notebook.card).to_have_attribute("data-marks", "detached", timeout=10_000)
        expect(notebook.card.locator(".nbjobs-facts")).to_contain_text("not live: its kernel is gone")


def test_cards_do_not_write_into_the_cell_that_runs(
    lab: Lab, browser: Browser, client: redis.Redis, start_worker: Callable[[], Process]
) -> None:
    """Whatever happens to a run, only its own output changes: the other cells' outputs hold what they printed."""
    start_worker()
    cells = (JOB, "run = import_orders.enqueue(60)\nrun", BUSY, "run.card()")
    with opened(lab, browser, *cells) as notebook:
        notebook.wait_done()
        expect(notebook.page.locator('.jp-OutputArea .nbjobs-card[data-state="completed"]')).to_be_visible()
        outputs = [cell.outputs for cell in notebook.cells()]
        assert [len(output) for output in outputs] == [0, 1, 1, 1]
        assert outputs[2][0].text == "the kernel was busy until completed\n"
        assert outputs[3][0].data["text/plain"].startswith("<Card of run ")
