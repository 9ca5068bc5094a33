"""Many cards in one notebook: what is loaded, followed and left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Browser, expect

from ..support import wait_until
from .cards import CardPage
from .conftest import Process
from .lab import Lab, Notebook

WIDGET = "application/vnd.jupyter.widget-view+json"
PACED = """
import time
from pathlib import Path
from nbjobs import job, step

@job
def import_orders(rows, gate):
    step("prepare", str, rows)
    for number in step.each("load_rows", range(rows)):
        while number == rows // 2 and not Path(gate).exists():
            time.sleep(0.01)
"""


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_cards_are_live_again_after_a_reload(
    lab: Lab,
    browser: Browser,
    client: redis.Redis,
    start_worker: Callable[[], Process],
    tmp_path: Path,
    artifacts: Path,
    app: str,
) -> None:
    """Two views of a run, and cards in a box, agree; after a reload of the page in mid-run they go on."""
    start_worker()
    gate = tmp_path / "gate"
    cells = (
        PACED,
        f"run = import_orders.enqueue(400, {str(gate)!r})\nrun",
        "from ipywidgets import HBox\nmine = run.card()\nHBox([mine, run.card()])",
        "mine",
    )
    with lab.open(browser, lab.write("many.ipynb", *cells), app=app) as notebook:
        notebook.start_all()
        notebook.wait_done()
        cards = notebook.page.locator(".nbjobs-card[data-step=load_rows]")
        expect(cards).to_have_count(4, timeout=20_000)
        notebook.reload()
        expect(cards).to_have_count(4, timeout=20_000)
        whole, *boxed, _ = cards.evaluate_all("all => all.map(card => card.offsetWidth)")
        assert all(whole / 2 - 20 < width for width in boxed)
        notebook.page.screenshot(path=artifacts / f"reloaded-{app}.png")
        assert notebook.page.locator("style[id*=nbjobs]").count() == 1
        gate.touch()
        # also the cell's own: a page that was loaded again does not know whose output the kernel replaces
        expect(notebook.page.locator(".nbjobs-card[data-state=completed]")).to_have_count(4, timeout=20_000)
        assert app == "notebook" or notebook.errors == []  # Notebook has two errors of its own at each start


def test_a_card_without_its_code_says_so(cards: CardPage) -> None:
    """Where the model that carries the code is gone, the stub says in a line what can be done."""
    said = cards.page.evaluate(
        """async () => {
            const {default: stub} = await import("/nbjobs/widgets/stub.js");
            const el = document.createElement("div");
            const host = {getWidget: () => Promise.reject(new Error("no model"))};
            await stub.render({el, host, model: {get: () => "anywidget:gone"}});
            return el.textContent;
        }"""
    )
    assert said.startswith("This card is not live: its kernel is gone.")


MANY = """
import threading
from IPython.display import display
from nbjobs import connection, job

@job
def import_orders(rows):
    return rows

def report():
    names = [client["name"] for client in connection.client().client_list()]
    threads = [thread.name for thread in threading.enumerate()]
    print(names.count("nbjobs-follower"), threads.count("nbjobs-follower"), threads.count("nbjobs-cards"))

runs = import_orders.options(delay=3600).enqueue_all(range(200))
"""
# Counts the cards that were mounted in the page and those of them that were cleaned up: each listens for this.
_COUNT = """() => {
    window.mounts = window.cleanups = 0;
    const listen = document.addEventListener.bind(document);
    document.addEventListener = (type, callback, options) => {
        if (type === "visibilitychange" && options?.signal) {
            window.mounts += 1;
            options.signal.addEventListener("abort", () => { window.cleanups += 1; });
        }
        listen(type, callback, options);
    };
}"""


def shows(what: str) -> list[str]:
    """Cells that display 200 things, 25 each: a cell's output shows no more than 50."""
    return [f"for run in runs[{first}:{first + 25}]: display({what})" for first in range(0, 200, 25)]


def saved_ends(notebook: Notebook) -> int:
    """How many of the runs' outputs say that the run is done, without a widget."""
    shown = [output.data for cell in notebook.cells()[1:9] for output in cell.outputs]
    return sum("done" in data["text/plain"] and WIDGET not in data for data in shown)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_many_cards_share_what_they_need_and_leave_nothing(
    lab: Lab, browser: Browser, client: redis.Redis, start_worker: Callable[[], Process], artifacts: Path
) -> None:
    """One connection, one follower and one thread serve 200 live cards; each card mounted is cleaned up.

    200 runs are shown, each by itself and all in one card; they end, and what showed them is saved output. They are
    opened again, and live again; they end, are shown once more, and all outputs are cleared.
    """
    cells = [
        *(MANY, *shows("run"), "report()\nruns"),
        "for run in runs: run.cancel()",
        "for run in runs: run.retry()\nruns.wait()\nprint({run.state for run in runs})",
        *shows("run.card()"),
    ]
    start_worker()
    with lab.open(browser, lab.write("many.ipynb", *cells)) as notebook:
        page = notebook.page
        page.evaluate(_COUNT)

        def run_cells(number: int) -> None:
            for _ in range(number):
                notebook.start_cell()
                notebook.wait_done()

        run_cells(10)
        page.wait_for_function("window.mounts === 200", timeout=30_000)
        assert notebook.cells()[9].outputs[0].text == "1 1 1\n"
        expect(page.locator(".nbjobs-runs")).to_have_attribute("data-total", "200")
        page.screenshot(path=artifacts / "many.png")
        run_cells(1)
        page.wait_for_function("window.cleanups === 200", timeout=30_000)
        run_cells(1)
        wait_until(lambda: saved_ends(notebook) == 200, 30, "each output has its run's second end", every=0.5)
        assert notebook.cells()[11].outputs[0].text == "{'completed'}\n"
        page.wait_for_function("window.mounts > 200 && window.cleanups === window.mounts", timeout=10_000)
        run_cells(8)
        page.wait_for_function("document.querySelectorAll('.nbjobs-card[data-run]').length === 200", timeout=30_000)
        notebook.command("notebook:clear-all-cell-outputs")
        page.wait_for_function("window.mounts >= 400 && window.cleanups === window.mounts", timeout=30_000)
        assert notebook.errors == []
