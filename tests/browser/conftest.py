"""Chromium, and JupyterLab in it, started once for all tests of this folder.

The browser is $CHROMIUM or one on PATH, driven through Playwright. Both are closed when the last test here is
done: Playwright holds an event loop as long as it is open, and the other tests have loops of their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from .cards import CardPage
from .lab import Lab

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]


def chromium() -> str:
    """The browser to test with."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.fail(f"No browser found: expected $CHROMIUM, or one of {', '.join(names)} on PATH.")
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are marked `browser`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="package")
def artifacts() -> Path:
    """Where screenshots are left to be looked at."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS


@pytest.fixture
def cards(browser: Browser) -> Iterator[CardPage]:
    """A page with nothing but our script and style sheet, for cards of fixed faces."""
    page = CardPage(browser)
    page.open()
    yield page
    page.close()


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab server on an empty folder."""
    with Lab(tmp_path_factory.mktemp("lab")) as server:
        yield server
