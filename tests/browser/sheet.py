"""Every state of the card on one sheet: light, dark and narrow, from fixed views.

    make contact-sheet

writes `docs/images/contact-sheet.png`, and where on it which card is; a test compares what is drawn now with it.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace
from playwright.sync_api import Browser, sync_playwright

from nbjobs.face import face
from nbjobs.summary import Several
from nbjobs.widgets import display

from ..widgets.faces import opened, views
from .cards import ROOT, CardPage

SHEET = ROOT / "docs" / "images" / "contact-sheet.png"
PLACES = Path(__file__).with_name("sheet.json")
Places = dict[str, list[int]]  # "column: name" → x, y, width, height
COLUMNS: dict[str, tuple[int, dict[str, Any]]] = {
    "light": (560, {}),
    "dark": (560, {"color_scheme": "dark"}),
    "narrow": (320, {}),
}
STATES = {
    "queued": "queued",
    "no worker": "no worker",
    "running": "starting",
    "step with a total": "running",
    "step without": "no total",
    "resumed": "resumed",
    "stuck": "stuck",
    "newer code on disk": "newer code",
    "Redis out of reach": "away",
    "retrying": "retrying",
    "pausing": "pausing",
    "paused": "paused",
    "code or data changed": "changed",
    "cancelling": "cancelling",
    "cancelled": "cancelled",
    "done": "completed",
    "failed": "failed",
    "dead": "dead",
    "lost": "lost",
}
MANY = ("failed", *["completed"] * 20, "resumed", "running", *["queued"] * 12)

_PLACES = """() => Object.fromEntries([...document.querySelectorAll("body > [data-key]")].map(row => {
    const {x, y, width, height} = row.lastElementChild.getBoundingClientRect();
    return [row.dataset.key, [x, y + scrollY, width, height].map(Math.round)];
}))"""
# Puts pictures side by side, on white.
_JOIN = """async urls => {
    const images = await Promise.all(urls.map(url => new Promise(done => {
        const image = new Image();
        image.onload = () => done(image);
        image.src = url;
    })));
    const canvas = document.createElement("canvas");
    canvas.width = images.reduce((sum, {width}) => sum + width, 0);
    canvas.height = Math.max(...images.map(({height}) => height));
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    let x = 0;
    for (const image of images) { context.drawImage(image, x, 0); x += image.width; }
    return canvas.toDataURL("image/png");
}"""


def render(browser: Browser) -> tuple[bytes, Places]:
    """The sheet, as a PNG, and where on it which card is."""
    urls, places, left = [], Places(), 0
    for name, (width, options) in COLUMNS.items():
        png, found = _column(browser, width, options)
        urls.append(as_url(png))
        places |= {f"{name}: {key}": [left + x, y, wide, high] for key, (x, y, wide, high) in found.items()}
        left += width + 16
    page = browser.new_page()
    joined: str = page.evaluate(_JOIN, urls)
    page.close()
    return base64.b64decode(joined.partition(",")[2]), places


def as_url(png: bytes) -> str:
    """The picture as a page's script can load it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _column(browser: Browser, width: int, options: dict[str, Any]) -> tuple[bytes, Places]:
    now = int(time.time() * 1000)
    shown = views(now)
    page = CardPage(browser, width - 8, reduced_motion="reduce", **options)
    page.page.clock.set_fixed_time(now / 1000)
    page.page.goto("http://cards.test/tests/widgets/sheet.html")
    page.page.wait_for_function("window.sheet")
    for name, key in STATES.items():
        page.page.evaluate("given => sheet.card(...given)", [name, msgspec.to_builtins(face(shown[key]))])
    for name, key in (("newer code, opened", "newer code"), ("failed, opened", "failed")):
        page.page.evaluate("given => sheet.card(...given)", [name, *opened(key, lines=4)])
    several = Several(replace(shown[key], run=f"r{number}") for number, key in enumerate(MANY))
    page.page.evaluate("given => sheet.runs(...given)", ["several", msgspec.to_builtins(several.summary())])
    for name, key in (("saved, done", "completed"), ("saved, failed", "failed")):
        page.page.evaluate("given => sheet.saved(...given)", [name, display.bundle(shown[key])["text/html"]])
    page.paint()
    assert page.errors == []
    places: Places = page.page.evaluate(_PLACES)
    png = page.page.screenshot(full_page=True, animations="disabled")
    page.close()
    return png, places


def main() -> None:
    """Write the sheet into the docs."""
    from .conftest import FLAGS, chromium

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        png, places = render(browser)
        browser.close()
    SHEET.write_bytes(png)
    PLACES.write_text(json.dumps(places, indent=0) + "\n")
    print(f"wrote {SHEET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
