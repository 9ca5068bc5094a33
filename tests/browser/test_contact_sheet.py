"""The cards look as they did when the contact sheet of the docs was made and looked at."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Browser

from .sheet import COLUMNS, PLACES, SHEET, STATES, Places, as_url, render

# Another version of a font moves letters a little: so blocks of 8 pixels are compared, each by its mean colour.
# Of a card's blocks so many may differ clearly: a letter spacing that is 0.05 px wider is 0.3 %, another font up to
# 7 %; a bar that is missing is 9 % or more.
MOST = 0.08

_COMPARE = """async ([before, after, places]) => {
    const load = url => new Promise(done => {
        const image = new Image();
        image.onload = () => {
            const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d", {willReadFrequently: true});
            canvas.drawImage(image, 0, 0);
            done(canvas);
        };
        image.src = url;
    });
    const sheets = await Promise.all([before, after].map(load));
    const mean = (canvas, x, y) => {
        const {data} = canvas.getImageData(x, y, 8, 8);
        const sum = [0, 0, 0];
        for (let i = 0; i < data.length; i += 4) for (const c of [0, 1, 2]) sum[c] += data[i + c] / 64;
        return sum;
    };
    return places.map(([name, [x, y, width, height], [x2, y2, width2, height2]]) => {
        let all = 0, other = 0;
        for (let dy = 0; dy + 8 <= Math.min(height, height2); dy += 8) {
            for (let dx = 0; dx + 8 <= Math.min(width, width2); dx += 8) {
                const [a, b] = [mean(sheets[0], x + dx, y + dy), mean(sheets[1], x2 + dx, y2 + dy)];
                all += 1;
                other += Math.max(...a.map((one, c) => Math.abs(one - b[c]))) > 40 ? 1 : 0;
            }
        }
        return [name, other / all, Math.abs(width - width2) + Math.abs(height - height2)];
    });
}"""


def differences(browser: Browser, after: bytes, places: Places) -> dict[str, float]:
    """Which cards differ clearly from the stored sheet, by how much."""
    stored: Places = json.loads(PLACES.read_text())
    assert list(stored) == list(places)
    given: list[Any] = [[name, stored[name], places[name]] for name in places]
    page = browser.new_page()
    urls = [as_url(SHEET.read_bytes()), as_url(after)]
    found = page.evaluate(_COMPARE, [*urls, given])
    page.close()
    return {name: share for name, share, size in found if share > MOST or size > 36}


@pytest.fixture(scope="module")
def drawn(browser: Browser) -> tuple[bytes, Places]:
    return render(browser)


def test_every_state_looks_as_on_the_contact_sheet(browser: Browser, drawn: tuple[bytes, Places]) -> None:
    """Each card, in each column. After a change that is meant: make contact-sheet, and look at it."""
    png, places = drawn
    assert {name.partition(": ")[2] for name in places} >= set(STATES)
    assert len(places) == len(COLUMNS) * (len(STATES) + 5)
    assert differences(browser, png, places) == {}


def test_a_change_is_seen(browser: Browser, drawn: tuple[bytes, Places]) -> None:
    """The comparison is no formality: another state in the place of one, or no bar, is found."""
    png, places = drawn
    swapped = {**places, "light: failed": places["light: done"], "dark: running": places["dark: queued"]}
    assert set(differences(browser, png, swapped)) == {"light: failed", "dark: running"}
