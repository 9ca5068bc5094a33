"""The first notebook of a newcomer: two cells, an empty folder, nothing set, nothing running."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nbjobs.widgets.display import MIME_TYPE

from .support import wait_until
from .workers import gone

CELLS = [
    """
import csv, sqlite3
from nbjobs import job, notify, step

def read_rows(path):
    with open(path) as file:
        return [tuple(row) for row in csv.reader(file)]

def save(row):
    with sqlite3.connect("contacts.db") as db:
        db.execute("CREATE TABLE IF NOT EXISTS contacts (name PRIMARY KEY, mail)")
        db.execute("INSERT OR REPLACE INTO contacts VALUES (?, ?)", row)

@job
def import_contacts(path: str):
    rows = read_rows(path)
    step("prepare", notify, "import.prepared", total=len(rows))
    for row in step.each("process_records", rows):
        save(row)
    step("finalize", notify, "import.finalized")
""",
    'import_contacts.enqueue("contacts.csv")',
]

EXECUTE = """
import json, sys
import nbclient, nbformat
cells = [nbformat.v4.new_code_cell(source) for source in json.load(sys.stdin)]
notebook = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
print(json.dumps(notebook.cells[-1].outputs))
"""

ATTACH = """
import sys
import nbjobs
run = nbjobs.attach(sys.argv[1])
run.wait(100)
print(run.state, run.view.attempt)
"""

DOWN = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'nbjobs', 'down'], check=True)"


class Newcomer:
    """Somebody with an empty folder and a home of their own, in which nothing of nbjobs is set."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "work"
        self.folder.mkdir()
        self.contacts(300)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NBJOBS_", "JUPYTER", "XDG_", "IPYTHON", "PYTEST_"))
        }
        (home / "run").mkdir(mode=0o700)
        self.environment = {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run")}

    def contacts(self, count: int) -> None:
        lines = (f"person {number},person{number}@example.org" for number in range(count))
        (self.folder / "contacts.csv").write_text("\n".join(lines))

    def python(self, script: str, *arguments: str, given: str = "") -> str:
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, input=given, capture_output=True, text=True, timeout=150
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def execute(self) -> dict[str, object]:
        """Execute the two cells; return what the second one shows."""
        (output,) = json.loads(self.python(EXECUTE, given=json.dumps(CELLS)).splitlines()[-1])
        return dict(output["data"])

    def attached(self, run: str) -> list[str]:
        return self.python(ATTACH, run).split()

    def living(self) -> list[psutil.Process]:
        """What lives of all that was started in this home."""
        return [one for one in psutil.process_iter() if _is_of(one, str(self.home))]

    def killed(self) -> bool:
        """Kill all that lives; return whether nothing did: a daemon may start another Redis before it is killed."""
        found = [one for one in self.living() if not gone([one])]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return not found


def _is_of(process: psutil.Process, home: str) -> bool:
    try:  # Redis writes its title over its environment
        return process.environ().get("HOME") == home or any(home in part for part in process.cmdline())
    except (psutil.Error, OSError):
        return False


@pytest.fixture
def newcomer() -> Iterator[Newcomer]:
    with tempfile.TemporaryDirectory(prefix="nbjobs-new-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        one = Newcomer(Path(folder))
        yield one
        wait_until(one.killed, 5, "nothing lives")


def run_of(shown: dict[str, object]) -> str:
    found = shown[MIME_TYPE]
    assert isinstance(found, dict)
    return str(found["run"])


def test_two_cells_are_enough(newcomer: Newcomer) -> None:
    """The run completes; the cell holds the card and what stands for it; `nbjobs down` leaves nothing behind."""
    shown = newcomer.execute()
    faces = {"text/plain", "text/html", MIME_TYPE}
    assert faces <= set(shown) <= faces | {"application/vnd.jupyter.widget-view+json"}
    assert "import_contacts" in str(shown["text/plain"])
    assert newcomer.attached(run_of(shown)) == ["completed", "1"]
    newcomer.python(DOWN)
    wait_until(lambda: gone(newcomer.living()), 2, "nothing lives two seconds after `nbjobs down`")


def test_the_daemon_leaves_by_itself(newcomer: Newcomer) -> None:
    """Ten idle seconds, where that is what the configuration says."""
    config = newcomer.home / ".jupyter" / "nbjobs_config.py"
    config.parent.mkdir()
    config.write_text("c.NbJobs.idle_exit = 10\n")
    assert newcomer.attached(run_of(newcomer.execute()))[0] == "completed"
    assert newcomer.living()
    wait_until(lambda: gone(newcomer.living()), 25, "nothing lives after idle_exit")


def test_a_killed_daemon_leaves_nothing_and_the_next_client_picks_the_run_up(newcomer: Newcomer) -> None:
    """In the middle of the run, with SIGKILL."""
    newcomer.contacts(2_000)
    run = run_of(newcomer.execute())
    wait_until((newcomer.folder / "contacts.db").exists, 30, "the first row is saved")
    daemon = next(one for one in newcomer.living() if {"up"} <= set(one.cmdline()))
    daemon.kill()
    wait_until(lambda: gone(newcomer.living()), 5, "nothing lives after the daemon")
    state, attempt = newcomer.attached(run)
    assert (state, int(attempt) > 1) == ("completed", True)
