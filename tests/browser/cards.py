"""A page that shows cards of fixed faces, without Jupyter."""

from __future__ import annotations

import mimetypes
import time
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_path
from playwright.sync_api import Browser, Locator, Route

ROOT = Path(__file__).parents[2]
HOST = "http://cards.test"
Face = dict[str, Any]

_ADD_THEME = """href => new Promise((resolve, reject) => {
    const link = document.createElement("link");
    Object.assign(link, {rel: "stylesheet", href, onload: resolve, onerror: reject});
    document.head.append(link);
})"""


def theme_file(name: str) -> Path:
    """The style sheet of one of JupyterLab's themes, with the variables that our colours come from."""
    tail = Path("lab", "themes", "@jupyterlab", f"theme-{name}-extension", "index.css")
    found = [Path(root, tail) for root in jupyter_path() if Path(root, tail).is_file()]
    assert found, f"JupyterLab's theme {name} is not installed"
    return found[0]


class CardPage:
    """Mounts cards and changes their faces. Nothing leaves the process: the files are answered from disk.

    Attributes:
        page: Playwright's page.
        errors: what the page reported as an error.
        asked: paths that the page asked for.
    """

    def __init__(self, browser: Browser, width: int = 720, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": width + 24, "height": 400}, **context)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.context.route("**/*", self._answer)

    def open(self, theme: str | None = None, *, page: str = "page.html") -> CardPage:
        self.page.goto(f"{HOST}/tests/widgets/{page}")
        if theme:
            self.page.evaluate(_ADD_THEME, f"/theme/{theme}.css")
        self.page.wait_for_function("window.cards")
        return self

    def close(self) -> None:
        self.context.close()

    def mount(self, key: str, face: Face, *, mute: bool = False) -> Locator:
        """Mount a card; a mute one has a feed that hears nothing."""
        self.page.evaluate("([key, face, mute]) => cards.mount(key, face, mute)", [key, face, mute])
        return self.card(key)

    def mount_all(self, faces: dict[str, Face]) -> None:
        script = "faces => Object.entries(faces).forEach(([key, face]) => cards.mount(key, face))"
        self.page.evaluate(script, faces)

    def set(self, key: str, face: Face) -> None:
        self.page.evaluate("([key, face]) => cards.set(key, face)", [key, face])

    def open_card(self, key: str, face: Face, details: dict[str, Any]) -> Locator:
        """Mount a card, open it as a user does, and give it its details."""
        card = self.mount(key, face)
        card.locator("[data-action=expand]").click()
        self.fill(key, details)
        self.paint()
        return card

    def fill(self, key: str, details: dict[str, Any]) -> None:
        self.page.evaluate("([key, details]) => cards.fill(key, details)", [key, details])

    def sent(self, key: str) -> list[dict[str, Any]]:
        """What the card of that key has asked for so far."""
        asked: list[dict[str, Any]] = self.page.evaluate("key => cards.sent(key)", key)
        return asked

    def answer(self, key: str, text: str | None) -> None:
        """What the card is answered from now on; None leaves it without an answer."""
        self.page.evaluate("([key, text]) => cards.answer(key, text)", [key, text])

    def card(self, key: str) -> Locator:
        return self.page.locator(f'[data-key="{key}"] > .nbjobs-card')

    def stop_clock(self) -> None:
        """Have the page's time go on by `clock.run_for` alone, however slow the page is."""
        self.page.clock.install()
        self.page.clock.pause_at(time.time() + 60)

    def paint(self) -> None:
        """Wait for the paint that was asked for last."""
        self.page.evaluate("() => new Promise(done => setTimeout(() => requestAnimationFrame(done), 150))")

    def _answer(self, route: Route) -> None:
        path = route.request.url.removeprefix(HOST)
        self.asked.append(path)
        file = theme_file(path[7:-4]) if path.startswith("/theme/") else ROOT / path.lstrip("/")
        if file.is_file():
            kind = mimetypes.guess_type(file.name)[0] or "text/plain"
            route.fulfill(body=file.read_bytes(), content_type=kind)
        else:
            route.fulfill(status=204)
