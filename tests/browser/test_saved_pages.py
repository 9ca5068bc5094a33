"""The tutorials as they are stored: converted to pages, and opened where no script runs."""

from __future__ import annotations

import getpass
import json
import re
import socket
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import Browser

from nbjobs.widgets.display import MIME_TYPE, MIME_TYPE_OF_ALL, WIDGET_TYPE

from ..support import mentions

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("0*.ipynb"))
SECRET = re.compile(r"redis://|rediss://|unix:|redis\.sock|token|/home/|/root/|/tmp/|https?:")


def bundles(file: Path) -> list[dict[str, str]]:
    """What the notebook's outputs hold of runs."""
    cells = nbformat.read(file, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    data = [output.data for output in outputs if "data" in output]
    return [one for one in data if MIME_TYPE in one or MIME_TYPE_OF_ALL in one]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_tutorials_are_stored_with_how_their_runs_ended(file: Path) -> None:
    """Each run that is shown has ended; no widget is left, and nothing of the machine that ran the notebook."""
    shown = bundles(file)
    assert shown
    for data in shown:
        assert set(data) <= {"text/plain", "text/html", MIME_TYPE, MIME_TYPE_OF_ALL}
        assert data["text/plain"][0] in "✓✕"
    outputs = [cell.get("outputs") for cell in nbformat.read(file, as_version=4).cells]
    text = json.dumps(outputs, ensure_ascii=False)
    assert SECRET.findall(text) == []
    assert WIDGET_TYPE not in text
    for name in {getpass.getuser(), socket.gethostname()} - {"root", "localhost"}:
        assert not mentions(text, name), name


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_converted_tutorials_show_it_without_scripts(browser: Browser, artifacts: Path, file: Path) -> None:
    """`nbconvert --to html`, opened with scripts off and no network: each run's last state is there to read."""
    html, _ = HTMLExporter().from_filename(str(file))
    context = browser.new_context(java_script_enabled=False, offline=True, viewport={"width": 1000, "height": 800})
    page = context.new_page()
    page.set_content(html, wait_until="domcontentloaded")
    for data in bundles(file):
        first, facts, *_ = data["text/plain"].splitlines()
        card = page.locator(".jp-RenderedHTMLCommon", has_text=facts).first
        assert card.is_visible()
        assert " ".join(first.split()) in " ".join(card.inner_text().split())
        steps = card.locator("details")
        inside = steps.locator("div").first
        assert not inside.is_visible()
        steps.locator("summary").click()
        assert inside.is_visible()
    page.screenshot(path=artifacts / f"converted-{file.stem}.png", full_page=True)
    context.close()
