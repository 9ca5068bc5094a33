"""Cards in each theme, closed and open, as axe-core judges them."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from ..widgets.faces import gallery, opened
from .axe import violations
from .cards import CardPage


@pytest.mark.parametrize("theme", ["light", "dark", "dark-high-contrast", "none, light", "none, dark"])
def test_axe_finds_nothing(browser: Browser, theme: str) -> None:
    """Every state closed, and open those that have each part: names, roles, contrasts, sizes."""
    bare, _, scheme = theme.partition(", ")
    page = CardPage(browser, color_scheme=scheme or "light").open(None if bare == "none" else bare)
    page.mount_all(gallery())
    for key in ("resumed", "paused", "failed", "completed"):
        page.open_card(f"open {key}", *opened(key))
    page.page.evaluate("cards.sever('running')")
    page.paint()
    assert violations(page.page) == []
    page.close()


def test_axe_would_find_something(cards: CardPage) -> None:
    """The check itself works: a button without a name is found."""
    card = cards.mount("a", gallery()["resumed"])
    card.locator("[data-action=cancel]").evaluate("el => { el.removeAttribute('aria-label'); el.title = ''; }")
    assert any(one.startswith("button-name") for one in violations(cards.page))
