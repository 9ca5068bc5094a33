"""Walk through the README and the tutorials as a newcomer does, in JupyterLab, and take their pictures on the way.

    make pictures

Nothing runs beforehand: the first `enqueue` starts the embedded Redis and its worker. Each cell is run on its own, the
pictures are of cards in the state that the text beside them speaks of. Ends with an error where a cell has one, a
card does not come to its end, or the page reports an error.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, expect, sync_playwright

from .conftest import FLAGS, chromium
from .lab import Lab, Notebook

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "images"
FINEST = 2  # pixels of a picture for one of the page

Hook = Callable[[Notebook], None]


def walk(notebook: Notebook, sources: list[str], meanwhile: dict[str, Hook]) -> None:
    """Run the cells; while one runs that begins with a key of `meanwhile`, look at what that says."""
    waiting = dict(meanwhile)
    for source in sources:
        notebook.start_cell()
        for start in [start for start in waiting if source.startswith(start)]:
            waiting.pop(start)(notebook)
        notebook.wait_done(120)
        errors = notebook.page.locator('.jp-OutputArea-output[data-mime-type*="error"]')
        assert errors.count() == 0, errors.first.inner_text()
    assert not waiting, f"no cell begins with {list(waiting)}"
    assert notebook.errors == []


def card(notebook: Notebook, name: str) -> Locator:
    return notebook.page.locator(".jp-OutputArea .nbjobs-card", has_text=name).last


def until(shown: Locator, script: str) -> None:
    """Wait until the card's root, `card` in the script, is so."""
    shown.page.wait_for_function(f"card => {script}", arg=shown.element_handle(), timeout=60_000)


def take(place: Locator, name: str) -> None:
    """Keep a picture of it, without the pointer in it."""
    place.page.mouse.move(0, 0)
    place.screenshot(path=PICTURES / f"{name}.png", animations="disabled")


def filled(share: float) -> str:
    return f"Number(card.querySelector('.nbjobs-bar').getAttribute('aria-valuenow')) >= {share}"


# -- what is looked at ------------------------------------------------------------------------------------------------


def readme_goes_on(notebook: Notebook) -> None:
    """The README's twelve lines: the card moves."""
    until(card(notebook, "hash_all"), "card.dataset.state === 'running' && " + filled(0.1))


def first_is_resumed(notebook: Notebook) -> None:
    """The README's picture: killed at row 2,000, and well past it; the same run in both themes."""
    shown = card(notebook, "import_airports")
    until(shown, "card.dataset.resumed === '1' && card.dataset.state === 'running' && " + filled(0.5))
    cell = notebook.page.locator(".jp-Cell", has=shown)
    for theme in ("Light", "Dark"):
        notebook.command("apputils:change-theme", {"theme": f"JupyterLab {theme}"})
        notebook.page.wait_for_function(
            "theme => document.body.dataset.jpThemeLight === String(theme === 'Light')", arg=theme
        )
        take(cell, f"card-{theme.lower()}")
    notebook.command("apputils:change-theme", {"theme": "JupyterLab Light"})


def second_is_resumed_thrice(notebook: Notebook) -> None:
    """Killed, its worker killed, an error: and nearly at its end."""
    shown = card(notebook, "survey")
    until(shown, "card.dataset.resumed === '3' && card.dataset.step === 'measure' && " + filled(0.85))
    take(shown, "tutorial-02")


def third_is_opened(notebook: Notebook) -> None:
    """An ended run, shown again and opened: with what it has printed."""
    shown = card(notebook, "import_files")
    shown.locator("[data-action=expand]").click()
    expect(shown.locator(".nbjobs-log")).to_contain_text("east.csv: 800 rows", timeout=15_000)
    take(shown, "tutorial-03")


def one_that_failed_is_opened(notebook: Notebook) -> None:
    """Of forty runs, the first that failed, while others run."""
    shown = notebook.page.locator(".nbjobs-runs").last
    # not a click, which waits until the cell stands still: all of them are over in two seconds
    shown.locator('.nbjobs-cell[data-state="failed"]').first.dispatch_event("click")
    expect(shown.locator(".nbjobs-card .nbjobs-error")).to_be_visible(timeout=15_000)
    take(shown, "tutorial-04")


WALKS: dict[str, dict[str, Hook]] = {
    "readme": {"import hashlib": readme_goes_on},
    "01_first_card": {"for event in run.events(follow=True)": first_is_resumed},
    "02_kill_and_resume": {"run.wait()": second_is_resumed_thrice},
    "03_events_tags_context": {"run.card()": third_is_opened},
    "04_control_and_retry": {"@job\ndef check(number)": one_that_failed_is_opened},
}


def prepare(lab: Lab) -> None:
    """What a newcomer has: a checkout with the tutorials, and the README's lines typed into a notebook."""
    folder = lab.root / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".*"))
    shutil.copytree(PICTURES, lab.root / "docs" / "images")
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lab.write("notebooks/readme.ipynb", lines)
    third = folder / "03_events_tags_context.ipynb"
    content = json.loads(third.read_text())
    again = {"cell_type": "code", "id": "again", "metadata": {}, "source": "run.card()", "outputs": []}
    content["cells"].append({**again, "execution_count": None})
    third.write_text(json.dumps(content))


def sources(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]


def main() -> None:
    """Walk."""
    with tempfile.TemporaryDirectory(prefix="nbj-") as base, sync_playwright() as playwright:
        own = {"NBJOBS_DATA_DIR": f"{base}/d", "NBJOBS_RUNTIME_DIR": f"{base}/r"}
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            with Lab(Path(base), own) as lab:
                prepare(lab)
                for name, meanwhile in WALKS.items():
                    with lab.open(browser, f"notebooks/{name}.ipynb", width=1100, scale=FINEST) as notebook:
                        walk(notebook, sources(lab.root / "notebooks" / f"{name}.ipynb"), meanwhile)
                        notebook.page.wait_for_function(
                            "() => !document.querySelector('.nbjobs-card[data-state=running]')", timeout=90_000
                        )
                    print(f"walked through {name}")
        finally:
            browser.close()
            subprocess.run([sys.executable, "-m", "nbjobs", "down"], env={**os.environ, **own}, check=True)
    print(f"the pictures are in {PICTURES.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
