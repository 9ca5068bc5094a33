"""The card of several runs, drawn by a real browser from fixed summaries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from playwright.sync_api import Browser, Page, expect

from nbjobs.summary import Several

from ..widgets.faces import views
from .axe import violations
from .cards import CardPage

VIEWS = views(1_795_000_000_000)
MIXED = ("failed", *["completed"] * 30, "resumed", "running", *["queued"] * 20, "dead")


def summary(*names: str, begin: int = 1) -> dict[str, Any]:
    made = Several(replace(VIEWS[name], run=f"r{number}") for number, name in enumerate(names, begin))
    found: dict[str, Any] = msgspec.to_builtins(made.summary())
    return found


@pytest.fixture
def runs(browser: Browser) -> Iterator[CardPage]:
    opened = CardPage(browser)
    opened.open(page="runs.html")
    opened.mount("a", summary(*MIXED))
    yield opened
    opened.close()


def cells(page: Page) -> list[str]:
    found: list[str] = page.locator(".nbjobs-cell").evaluate_all("all => all.map(one => one.dataset.run)")
    return found


def test_counts_bar_and_cells_are_those_of_the_summary(runs: CardPage) -> None:
    """Words letter for letter, failures first, a name for each cell, and a bar with a value."""
    card = runs.card("a")
    expect(card).to_have_attribute("data-state", "running")
    expect(card).to_have_attribute("data-total", "54")
    parts = card.locator(".nbjobs-count")
    assert parts.all_text_contents()[:5] == ["1 failed", "1 dead", "2 running", "20 queued", "30 done"]
    assert cells(runs.page)[:3] == ["r1", "r54", "r2"]
    first = card.get_by_role("option").first
    expect(first).to_have_attribute("aria-label", "#1 · failed in step 2 · load rows · ValueError: row 12,432: "
                                    "expected 14 columns, found 13 · 62 % · 12,431 of 20,000 · took 1 min 36 s · "
                                    "resumed once at 8,000")  # fmt: skip
    expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuetext", summary(*MIXED)["aria"])
    assert runs.errors == []


def test_the_cells_are_read_and_opened_by_keyboard(runs: CardPage) -> None:
    """One tab stop; arrows go along the cells and rows; Enter opens the run's own card and closes it again."""
    page = runs.page
    page.keyboard.press("Tab")
    line = page.locator(".nbjobs-cell-line")
    expect(line).to_contain_text("#1 · failed")
    page.keyboard.press("ArrowRight")
    expect(line).to_contain_text("#54 · dead")
    page.keyboard.press("ArrowDown")
    row = page.evaluate("document.activeElement.offsetTop")
    assert row > page.locator(".nbjobs-cell").first.evaluate("one => one.offsetTop")
    page.keyboard.press("End")
    expect(line).to_contain_text("#53 · queued")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    opened = page.locator(".nbjobs-below")
    expect(opened).to_have_text("the card of r1")
    expect(page.locator('[data-run="r1"]')).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(opened).to_have_text("")
    assert page.evaluate("cards.asked('a')") == ["r1", ""]
    assert page.locator(".nbjobs-cell[tabindex='0']").count() == 1


def test_cells_do_not_move_under_the_pointer(runs: CardPage) -> None:
    """A run that fails changes its cell at once; it goes to the front when the pointer has left."""
    page = runs.page
    page.locator('[data-run="r33"]').hover()
    expect(page.locator(".nbjobs-cell-line")).to_contain_text("#33 · Step 2")
    failed = [name if number != 32 else "failed" for number, name in enumerate(MIXED)]
    before = cells(page)
    runs.set("a", summary(*failed))
    expect(page.locator('[data-run="r33"]')).to_have_attribute("data-state", "failed")
    assert cells(page) == before
    expect(page.locator(".nbjobs-cell-line")).to_contain_text("#33 · failed")
    page.mouse.move(1, 1)
    page.wait_for_function("document.querySelectorAll('.nbjobs-cell')[1].dataset.run === 'r33'")
    assert cells(page)[:3] == ["r1", "r33", "r54"]


def test_an_end_is_drawn_at_once_and_told(runs: CardPage) -> None:
    """The saved output replaces the card right after the end; a screen reader hears what became of the runs."""
    runs.stop_clock()
    runs.mount("b", summary("running", "completed"))
    drawn = runs.page.evaluate(
        "one => { cards.set('b', one); return document.querySelector('[data-key=b] > *').dataset.ended }",
        summary("completed", "failed"),
    )
    assert drawn == "2"
    runs.page.clock.run_for(5000)
    expect(runs.card("b").get_by_role("status")).to_have_text("import_orders: 1 failed, 1 done, took 1 min 36 s")


def test_a_card_of_ended_runs_costs_no_timer(runs: CardPage) -> None:
    """Nothing wakes by itself where nothing will change."""
    runs.page.evaluate(
        """() => {
            window.timers = 0;
            for (const name of ["setTimeout", "setInterval", "requestAnimationFrame"]) {
                const real = window[name];
                window[name] = (...given) => { window.timers += 1; return real(...given); };
            }
        }"""
    )
    runs.mount("b", summary("completed", "failed"))
    assert runs.page.evaluate("new Promise(done => queueMicrotask(() => done(window.timers)))") == 0


def test_a_card_taken_away_leaves_nothing(runs: CardPage) -> None:
    """Unmounting removes the element and every listener."""
    assert runs.page.evaluate("cards.unmount('a')") == 0
    expect(runs.card("a")).to_have_count(0)


@pytest.mark.parametrize(
    ("name", "width", "options"),
    [
        ("light", 720, {}),
        ("dark", 720, {"color_scheme": "dark"}),
        ("320", 320, {}),
        ("forced", 720, {"forced_colors": "active"}),
    ],
)
def test_it_fits(browser: Browser, artifacts: Path, name: str, width: int, options: dict[str, Any]) -> None:
    """Nothing sticks out; pictures are kept."""
    page = CardPage(browser, width, **options).open(page="runs.html")
    page.mount("a", summary(*MIXED))
    page.mount("b", summary(*["completed"] * 9))
    page.mount("c", summary(*["completed", "failed"] * 200))
    page.page.locator("[data-key=a] [data-run=r32]").click()
    page.paint()
    page.page.screenshot(path=artifacts / f"runs-{name}.png", full_page=True)
    over = page.page.evaluate(
        "[...document.querySelectorAll('.nbjobs-card')].map(el => el.scrollWidth - el.clientWidth)"
    )
    assert over == [0, 0, 0]
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark", "dark-high-contrast", None])
def test_it_is_accessible(browser: Browser, theme: str | None) -> None:
    """No violation is found by axe-core, in JupyterLab's themes and without any."""
    page = CardPage(browser).open(theme, page="runs.html")
    page.mount("a", summary(*MIXED))
    page.mount("b", summary(*["completed"] * 9))
    page.page.locator("[data-key=a] [data-run=r32]").click()
    page.paint()
    assert violations(page.page, ".nbjobs-runs") == []
    page.close()
