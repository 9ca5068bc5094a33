"""Chromium, and JupyterLab in it, started once for all tests of this folder.

The browser is $CHROMIUM or one on PATH, driven through Playwright. Both are closed when the last test here is
done: Playwright holds an event loop as long as it is open, and the other tests have loops of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Browser, sync_playwright

from ..support import RedisServer
from .cards import CardPage
from .lab import Lab

Process = subprocess.Popen[bytes]

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
def store() -> Iterator[RedisServer]:
    """The Redis of the runs that notebooks here enqueue."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory, store: RedisServer) -> Iterator[Lab]:
    """A JupyterLab server on an empty folder, whose kernels put their runs into `store`."""
    environment = {"NBJOBS_REDIS_URL": store.url, "NBJOBS_USER": "ada"}
    with Lab(tmp_path_factory.mktemp("lab"), environment) as server:
        yield server


@pytest.fixture
def client(store: RedisServer) -> Iterator[redis.Redis]:
    """A client of the emptied `store`."""
    opened = store.client()
    opened.flushall()
    yield opened
    opened.close()


@pytest.fixture
def start_worker(store: RedisServer, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Starts a worker for the runs in `store`, as late as a test wants; it ends with the test."""
    environment = {**os.environ, "NBJOBS_REDIS_URL": store.url, "NBJOBS_ACCEPT_CODE": "true"}
    started: list[Process] = []

    def start() -> Process:
        with (tmp_path / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "nbjobs", "worker"]
            started.append(Process(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
