"""Many cards in one notebook: what is loaded, followed and left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Browser, expect

from .cards import CardPage
from .conftest import Process
from .lab import Lab

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
