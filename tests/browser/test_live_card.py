"""The live card in JupyterLab, beside a worker whose child is killed: what it shows is what happened."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import psutil
import pytest
import redis
from playwright.sync_api import Browser, Page, expect

from nbjobs.face import face
from nbjobs.keys import Keys
from nbjobs.view import ENDED, RunView, empty, fold

from ..support import RedisServer, wait_until
from .conftest import Process
from .lab import Lab, Notebook

TUTORIAL = Path(__file__).parents[2] / "notebooks" / "01_first_card.ipynb"
ENQUEUE_FOLDER = "enqueue(folder)"
KEYS = Keys("ada")
JOB = """
import hashlib
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
    const observer = new MutationObserver(note);
    observer.observe(document.body, {subtree: true, childList: true, attributes: true,
        attributeFilter: ["data-run", "data-state", "data-step", "data-resumed", "data-n", "aria-valuenow"]});
    return observer;
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


class Recorder:
    """Reads a run's stream from its beginning to its end, before anything of it is trimmed."""

    def __init__(self, store: RedisServer) -> None:
        self._entries: list[tuple[str, dict[str, str]]] = []
        self._client = store.client()
        self._run = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self, run: str) -> None:
        self._run = run
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._run:
            self._thread.join(10)
        self._client.close()

    def _read(self) -> None:
        last = "0-0"
        while not self._over.is_set():
            for _, entries in self._client.xread({KEYS.events(self._run): last}, block=500):
                self._entries += entries
                last = entries[-1][0]
                if entries[-1][1].get("s") in ENDED:
                    return

    def told(self) -> Told:
        """The whole stream, folded as any reader folds it."""
        self._thread.join(10)
        assert not self._thread.is_alive()
        told = Told([], [])
        view: RunView = empty(self._run)
        for id, entry in self._entries:
            view = fold(view, entry)
            made = face(view)
            told.at.append(int(id.split("-")[0]))
            done = made.bar.done if made.bar else None
            told.shown.append(Shown(made.state, made.step, made.resumed, made.n, done))
        return told


@pytest.fixture
def recorder(store: RedisServer) -> Iterator[Recorder]:
    made = Recorder(store)
    yield made
    made.stop()


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


def kill_the_body(worker: Process, rows: int) -> None:
    """SIGKILL the process that writes the ledger, when it has begun so many rows."""

    def writer() -> int | None:
        for process in psutil.Process(worker.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                for file in process.open_files():
                    if file.path.endswith("ledger.txt") and Path(file.path).read_text().count("\n") >= rows:
                        return process.pid
        return None

    os.kill(wait_until(writer, 60, "the body is in the middle", every=0.05), signal.SIGKILL)


def tutorial(first: int | None = None) -> nbformat.NotebookNode:
    """The tutorial as it is, or up to the card, with so many rows."""
    notebook = nbformat.read(TUTORIAL, as_version=4)
    if first is not None:
        place = next(i for i, cell in enumerate(notebook.cells) if ENQUEUE_FOLDER in cell.source)
        del notebook.cells[place + 1 :]
        enqueue = notebook.cells[place].source
        notebook.cells[place].source = enqueue.replace(ENQUEUE_FOLDER, f"enqueue(folder, first={first})")
    return notebook


@contextlib.contextmanager
def opened(lab: Lab, browser: Browser, *cells: str, **options: Any) -> Iterator[Notebook]:
    with running(lab, browser, lab.write("orders.ipynb", *cells), **options) as notebook:
        yield notebook


@contextlib.contextmanager
def running(lab: Lab, browser: Browser, name: str, **options: Any) -> Iterator[Notebook]:
    """The notebook of that name, in which all cells were started and the cards are watched."""
    with lab.open(browser, name, **options) as notebook:
        notebook.watch(_WATCH)
        notebook.start_all()
        yield notebook


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kernel", "look", "options"),
    [
        ("idle", "light", {}),
        ("busy", "dark", {"theme": "dark"}),
    ],
)
def test_the_card_shows_what_happened(
    lab: Lab,
    browser: Browser,
    client: redis.Redis,
    recorder: Recorder,
    start_worker: Callable[[], Process],
    artifacts: Path,
    kernel: str,
    look: str,
    options: dict[str, Any],
) -> None:
    """From queued to done, through the death of its child, the DOM shows the run's stream and nothing else.

    The tutorial, up to its card with the kernel idle, and as it is, where the next cells keep the kernel busy and
    kill the child: what was shown is a subsequence of the stream, in order; it ends in the run's last state; no
    state or step that lasted half a second is missing.
    """
    nbformat.write(tutorial(5000 if kernel == "idle" else None), lab.root / "tutorial.ipynb")
    with running(lab, browser, "tutorial.ipynb", **options) as notebook:
        card, page = notebook.card, notebook.page
        expect(card).to_have_attribute("data-state", "queued", timeout=60_000)
        run = card.get_attribute("data-run") or ""
        recorder.start(run)
        page.wait_for_timeout(600)  # the worker comes late, so that queued lasts
        card.screenshot(path=artifacts / f"live-{look}-queued.png")
        worker = start_worker()
        expect(card).to_have_attribute("data-step", "process_records", timeout=60_000)
        if kernel == "idle":
            kill_the_body(worker, 500)
        expect(card).to_have_attribute("data-resumed", "1", timeout=60_000)
        expect(card).to_have_attribute("data-step", "process_records", timeout=60_000)
        page.wait_for_timeout(1500)  # a rate is known after a second
        page.screenshot(path=artifacts / f"live-{look}-resumed.png")
        card.screenshot(path=artifacts / f"live-{look}-card.png")
        if kernel == "idle":
            narrowed(notebook, artifacts / "live-320.png")
        page.wait_for_function("window.shown.at(-1).state === 'completed'", timeout=120_000)
        notebook.wait_done(120)
        expect(page.locator(".jp-OutputArea-output", has_text="resumed once at")).to_contain_text("done")
        page.screenshot(path=artifacts / f"live-{look}-done.png")
        compare(recorder.told(), drawn(page))
        assert notebook.errors == []
        assert not [out for cell in notebook.cells() for out in cell.get("outputs", []) if out.output_type == "error"]


def narrowed(notebook: Notebook, picture: Path) -> None:
    """Take a picture of the window where its card is 320 px wide, and make it wide again."""
    page, wide = notebook.page, notebook.page.viewport_size
    assert wide is not None
    notebook.command("application:toggle-left-area")
    page.set_viewport_size({"width": 436, "height": 800})
    page.wait_for_function("Math.abs(document.querySelector('.nbjobs-card').offsetWidth - 320) < 5")
    page.screenshot(path=picture)
    page.set_viewport_size(wide)
    notebook.command("application:toggle-left-area")


def compare(stream: Told, shown: list[Shown]) -> None:
    """Whether what a card showed is true and complete."""
    assert is_subsequence(shown, stream.shown), (shown, stream.shown)
    assert shown[-1] == stream.shown[-1]
    assert shown[-1].state == "completed"
    lasted = set(lasting(stream, 0.5))
    assert {("queued", ""), ("running", "process_records")} <= lasted
    assert lasted <= {(one.state, one.step) for one in shown}
    assert {one.resumed for one in shown} == {0, 1}
    assert len({one.done for one in shown}) > 10


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
        expect(notebook.card.locator(".nbjobs-facts")).to_contain_text(
            re.compile(r"saved view, \d\d:\d\d.*: its kernel is gone")
        )


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
