"""What a notebook keeps of a run that was shown in it: executed and converted without any browser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from redis import Redis

from nbjobs.keys import Keys
from nbjobs.widgets.display import MIME_TYPE, MIME_TYPE_OF_ALL

from .support import RedisServer, mentions, wait_until

USER = "somebody-else-7041"
JOB = """
import os, time
from nbjobs import job, step

@job
def import_orders(rows, gate="/"):
    if rows == 40:
        raise ValueError("<b>row 30</b> has no price")
    while not os.path.exists(gate):
        time.sleep(0.01)
    for number in step.each("load_rows", range(rows)):
        pass
"""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A worker for whatever kernels of this test enqueue."""
    with RedisServer() as store:
        monkeypatch.setenv("NBJOBS_REDIS_URL", store.url)
        monkeypatch.setenv("NBJOBS_USER", USER)
        monkeypatch.setenv("NBJOBS_ACCEPT_CODE", "true")
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        command = [sys.executable, "-m", "nbjobs", "worker"]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        yield
        process.terminate()
        process.wait(10)


def executed(*cells: str, **hooks: Any) -> nbformat.NotebookNode:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(Path.cwd())}}, **hooks)
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
    assert unescape(shown.data["text/html"]) in unescape(page)
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


def test_many_runs_are_saved_with_their_ends(worker: None) -> None:
    """What `enqueue_all` returned is one output: how many are done, and which failed and why."""
    notebook = executed(JOB, "runs = import_orders.enqueue_all([20, 40, 21])\nruns", "runs.wait(); print(len(runs))")
    (shown,) = notebook.cells[1].outputs
    assert set(shown.data) == {"text/plain", "text/html", MIME_TYPE_OF_ALL}
    assert "1 failed · 2 done" in shown.data["text/plain"]
    assert "✕ #2 · failed · ValueError: <b>row 30</b> has no price" in shown.data["text/plain"]


def test_a_notebook_that_is_saved_after_each_cell_says_how_far_it_was(worker: None, tmp_path: Path) -> None:
    """As papermill saves it: before the end with since when the run was under way, then with what came of it."""
    found: list[str] = []

    def save(cell: nbformat.NotebookNode, cell_index: int, execute_reply: object) -> None:
        if cell_index == 1:
            found.append(cell.outputs[0].data["text/plain"])

    gate = str(tmp_path / "gate")
    cells = (JOB, f"run = import_orders.enqueue(20, {gate!r})\nrun", f"open({gate!r}, 'w').close()\nrun.wait();")
    notebook = executed(*cells, on_cell_executed=save)
    assert "under way since 20" in found[0]
    assert notebook.cells[1].outputs[0].data["text/plain"].startswith("✓ import_orders  done")


def test_an_end_between_two_cells_is_saved(worker: None, tmp_path: Path) -> None:
    """A program that runs a notebook takes what belongs to the cell under way, and nothing while there is none."""

    def end(cell: nbformat.NotebookNode, cell_index: int, execute_reply: object) -> None:
        if cell_index == 1:
            (tmp_path / "gate").touch()
            run = cell.outputs[0].data[MIME_TYPE]["run"]
            wait_until(lambda: _has_seen_the_end(run), 20, "the kernel has seen the run's end")

    cells = (JOB, f"run = import_orders.enqueue(20, {str(tmp_path / 'gate')!r})\nrun", "run.wait();")
    (shown,) = executed(*cells, on_cell_executed=end).cells[1].outputs
    assert set(shown.data) == {"text/plain", "text/html", MIME_TYPE}
    assert shown.data["text/plain"].startswith("✓ import_orders  done")


def _has_seen_the_end(run: str) -> bool:
    """Whether the run has ended and no kernel waits for events any more."""
    with Redis.from_url(os.environ["NBJOBS_REDIS_URL"], decode_responses=True) as client:
        ended = client.hget(Keys(USER).run(run), "state") == "completed"
        followers = [one for one in client.client_list() if one["name"] == "nbjobs-follower"]
        return ended and not any("b" in one["flags"] for one in followers)


def test_a_saved_notebook_tells_nothing_of_the_machine(worker: None, tmp_path: Path) -> None:
    """No address, no user, no host, no worker: not in the outputs, not in the widgets' state."""
    gate = str(tmp_path / "gate")  # runs that have ended are shown without a widget
    cells = (JOB, "run = import_orders.enqueue(40)\nrun", "run.card()")
    many = f"runs = import_orders.enqueue_all([20, 40], [{gate!r}] * 2)\nruns"
    notebook = executed(*cells, many, f"open({gate!r}, 'w').close(); runs.wait(); print(run.state)")
    models = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"].state  # nbclient keeps them
    scripts = [model.state.pop("_esm", "") for model in models.values()]
    assert sum(len(script) > 1000 for script in scripts) == 2
    text = nbformat.writes(notebook)
    for secret in (os.environ["NBJOBS_REDIS_URL"], "unix:", "redis", USER, "http:", "https:"):
        assert secret not in text, secret
    assert not mentions(text, socket.gethostname()), text
