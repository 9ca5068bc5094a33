"""What a notebook keeps of a run that was shown in it: executed and converted without any browser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from nbjobs.widgets.display import MIME_TYPE

from .support import RedisServer

JOB = """
from nbjobs import job, step

@job
def import_orders(rows):
    if rows == 40:
        raise ValueError("<b>row 30</b> has no price")
    for number in step.each("load_rows", range(rows)):
        pass
"""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A worker for whatever kernels of this test enqueue."""
    with RedisServer() as store:
        monkeypatch.setenv("NBJOBS_REDIS_URL", store.url)
        monkeypatch.setenv("NBJOBS_ACCEPT_CODE", "true")
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        command = [sys.executable, "-m", "nbjobs", "worker"]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        yield
        process.terminate()
        process.wait(10)


def executed(*cells: str) -> nbformat.NotebookNode:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(Path.cwd())}})
    return client.execute()


@pytest.mark.parametrize(("rows", "state"), [(20, "completed"), (40, "failed")])
def test_a_run_that_is_waited_for_is_saved_with_its_end(worker: None, rows: int, state: str) -> None:
    """The end is in the cell that showed the run, without widget, before a later cell's wait() is over."""
    notebook = executed(JOB, f"run = import_orders.enqueue({rows})\nrun", "run.wait(); print(run.state)")
    (shown,), (printed,) = (cell.outputs for cell in notebook.cells[1:])
    assert set(shown.data) == {"text/plain", "text/html", MIME_TYPE}
    assert printed.text == f"{state}\n"
    assert shown.data["text/plain"].startswith("✓" if state == "completed" else "✕")

    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert shown.data["text/html"] in page
    if state == "failed":
        assert "ValueError: &lt;b&gt;row 30&lt;/b&gt; has no price" in shown.data["text/html"]


def test_a_run_under_way_is_saved_with_the_way_back_to_it(worker: None) -> None:
    """Where the notebook ends first, its output says since when the run was under way and how to attach."""
    notebook = executed(JOB, "run = import_orders.options(delay=3600).enqueue(20)\nrun")
    (shown,) = notebook.cells[1].outputs
    assert MIME_TYPE in shown.data
    assert "application/vnd.jupyter.widget-view+json" in shown.data
    assert f"nbjobs.attach('{shown.data[MIME_TYPE]['run']}')" in shown.data["text/plain"]
    assert "under way since 20" in shown.data["text/html"]
