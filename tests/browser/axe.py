"""axe-core, the accessibility checker, for what is ours on a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

SCRIPT = Path(__file__).parents[2] / "labextension" / "node_modules" / "axe-core" / "axe.min.js"
_RUN = """async selector => {
    const found = await axe.run({include: [[selector]]}, {resultTypes: ["violations"]});
    return found.violations.flatMap(one => one.nodes.map(node => `${one.id}: ${node.html} ${node.failureSummary}`));
}"""


def violations(page: Page, selector: str = ".nbjobs-card") -> list[str]:
    """What axe finds wrong with the elements of that selector, and with all in them."""
    if not SCRIPT.is_file():
        pytest.fail(f"axe-core is not installed: {SCRIPT} is missing. Run `make npm`, or `npm ci` in labextension/.")
    if not page.evaluate("() => 'axe' in window"):
        # not by a script element: a page may forbid those, and loaders of modules would catch it
        page.evaluate("text => { (0, eval)(text); }", f"var module, define;\n{SCRIPT.read_text()}")
    found: list[str] = page.evaluate(_RUN, selector)
    return found
