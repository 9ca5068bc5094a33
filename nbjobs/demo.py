"""``nbjobs demo``: a table is imported while the processes that do it are killed; then it is counted.

Two workers take runs from a Redis that is the demo's own. At a random row the process that runs the job is killed
with SIGKILL, later its whole worker. What was done twice is read from the job's ledger, and held against the bound.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import random
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from . import launch, stream
from .demo_job import import_airports, imported, load_airports
from .errors import NbjobsError
from .leases import process_of
from .settings import NbJobs, set_current
from .terminal import Screen
from .view import ENDED, RunView

STAGES = ("queued", "running", "step", "resumed", "done")
GRACE = 100_000_000  # ns before a kill whose rows may be repeated
LIMIT = 300.0  # s until the demo gives up


class Begun(NamedTuple):
    """A line of the ledger: when (ns), in which process, which row."""

    at: int
    pid: int
    row: str


class Ledger:
    """What the job noted as it began its rows, read as it grows.

    Attributes:
        lines: all of it so far.
        rows: the rows that were begun at least once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Begun] = []
        self.rows: set[str] = set()
        self._position = 0

    def read(self) -> None:
        """Take in the lines that are new; the last one may be half written yet."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return
        self._position += len(whole) + 1
        for line in whole.decode().splitlines():
            at, pid, row = line.split()
            self.lines.append(Begun(int(at), int(pid), row))
            self.rows.add(row)

    @property
    def repeated(self) -> int:
        """How many beginnings there were more than rows."""
        return len(self.lines) - len(self.rows)


class Kill:
    """One SIGKILL in the middle of the work.

    Args:
        what: ``child`` (the process that runs the body) or ``worker``.
        row: the number of rows after which it comes.
    """

    def __init__(self, what: str, row: int) -> None:
        self.what = what
        self.row = row
        self.body = 0
        self.at = 0

    def strike(self, view: RunView, ledger: Ledger) -> None:
        """Kill; the body's process stands in the ledger, the worker's in the run."""
        self.body = ledger.lines[-1].pid
        pid = self.body if self.what == "child" else process_of(view.worker)
        self.at = time.monotonic_ns()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    def resumed(self, ledger: Ledger) -> Begun | None:
        """The first row that another process began afterwards."""
        after = (line for line in ledger.lines if line.at > self.at and line.pid != self.body)
        return next(after, None) if self.at else None

    def allowed(self, ledger: Ledger) -> int:
        """How many rows may be repeated for it: the one in flight, and those of 100 ms."""
        return 1 + sum(self.at - GRACE < line.at <= self.at for line in ledger.lines if line.pid == self.body)

    def told(self, ledger: Ledger) -> str:
        """How it went, in words."""
        first = self.resumed(ledger)
        went = f"resumed after {(first.at - self.at) / 1e9:.1f} s" if first else "not resumed"
        return f"{self.what} {'killed, ' + went if self.at else 'not killed'}"

    def outlived(self, ledger: Ledger) -> bool:
        """Whether the body that should be dead went on beside its successor."""
        first = self.resumed(ledger)
        return first is not None and any(line.pid == self.body and line.at > first.at for line in ledger.lines)


class Demo:
    """One demonstration, in a folder and with a seed."""

    def __init__(self, folder: Path, seed: int, screen: Screen) -> None:
        self.database = folder / "airports.db"
        self.ledger = Ledger(folder / "ledger.txt")
        self.screen = screen
        self.airports = len(load_airports())
        chance = random.Random(seed)
        self.kills = [
            Kill("child", chance.randrange(self.airports // 10, self.airports * 4 // 10)),
            Kill("worker", chance.randrange(self.airports * 5 // 10, self.airports * 8 // 10)),
        ]
        self.shown: list[str] = []

    def run(self) -> None:
        """Enqueue the job and show it, killing on the way, until it has ended."""
        views: queue.SimpleQueue[RunView] = queue.SimpleQueue()
        run = import_airports.enqueue(str(self.database), str(self.ledger.path))
        until = time.monotonic() + LIMIT
        with stream.follower(run.user).watch(run.id, views.put):
            view = views.get(timeout=LIMIT)
            while True:
                self.show(view)
                if view.state in ENDED or time.monotonic() > until:
                    break
                self.kill(view)
                with contextlib.suppress(queue.Empty):
                    view = views.get(timeout=0.01)
        self.ledger.read()

    def show(self, view: RunView) -> None:
        """Draw a frame, and remember which of the stages it showed."""
        self.screen.show(view)
        for stage in stages(view):
            if stage not in self.shown:
                self.shown.append(stage)

    def kill(self, view: RunView) -> None:
        """Strike where a kill is due and the run has gone on since the one before."""
        self.ledger.read()
        for kill in self.kills:
            if not kill.at and view.state == "running" and len(self.ledger.rows) >= kill.row:
                kill.strike(view, self.ledger)
                self.screen.say(f"demo: row {len(self.ledger.rows):,}: SIGKILL to the {kill.what}")
            if not kill.resumed(self.ledger):
                return

    @property
    def imported(self) -> int:
        """How many airports the table has."""
        return imported(str(self.database)) if self.database.exists() else 0

    def wrong(self) -> list[str]:
        """What was not as promised."""
        allowed = sum(kill.allowed(self.ledger) for kill in self.kills)
        checks = {
            f"the table has {self.imported} airports": self.imported == self.airports,
            f"{self.ledger.repeated} rows were repeated": self.ledger.repeated <= allowed,
            f"the screen showed {' → '.join(self.shown)}": tuple(self.shown) == STAGES,
        }
        for kill in self.kills:
            checks[kill.told(self.ledger)] = kill.resumed(self.ledger) is not None
            checks[f"the body outlived the kill of its {kill.what}"] = not kill.outlived(self.ledger)
        return [said for said, holds in checks.items() if not holds]

    def summary(self) -> str:
        """The last lines: the bound, and how it went."""
        bounds = [kill.allowed(self.ledger) for kill in self.kills]
        return (
            f"demo: at most {sum(bounds)} rows may be repeated: of each kill the row in flight and those of "
            f"100 ms ({' + '.join(map(str, bounds))})\n"
            f"demo: rows {self.imported} of {self.airports} · repeated {self.ledger.repeated} · "
            + " · ".join(kill.told(self.ledger) for kill in self.kills)
        )


def stages(view: RunView) -> list[str]:
    """The stages of the demo that a frame with this view shows."""
    if view.state == "running":
        resumed = ["resumed"] if view.resumptions else []
        return ["step", *resumed] if view.in_step else ["running", *resumed]
    return {"queued": ["queued"], "completed": ["done"]}.get(view.state, [])


def main(argv: Sequence[str] = ()) -> int:
    """Run the demonstration and return the exit code: 0 where all that it says is true.

    Args:
        argv: the seed of an earlier demonstration, to kill at the same rows; or nothing.

    Raises:
        NbjobsError: the table is not installed, or the seed is no number.
    """
    if importlib.util.find_spec("airportsdata") is None:
        raise NbjobsError('the demo\'s table is not installed: pip install "nbjobs[demo]"')
    if argv and not argv[0].isdigit():
        raise NbjobsError(f"{argv[0]!r} is no seed, expected a number, as an earlier demo has printed it")
    seed = int(argv[0]) if argv else secrets.randbelow(1_000_000)
    with own_place() as folder, Screen() as screen:
        screen.say(f"demo: seed {seed}; `nbjobs demo {seed}` kills at the same rows")
        demo = Demo(folder, seed, screen)
        demo.run()
        summary, wrong = demo.summary(), demo.wrong()
    print(summary)
    for line in wrong:
        print(f"demo: not as promised: {line}")
    print(f"Next, the card in a notebook: {'make lab' if Path('Makefile').exists() else 'jupyter lab'}")
    return 1 if wrong else 0


@contextlib.contextmanager
def own_place() -> Iterator[Path]:
    """A folder with a Redis, workers and settings of the demo's own; nothing of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="nbjobs-demo-"))
    for name in [name for name in os.environ if name.startswith("NBJOBS_")]:
        del os.environ[name]
    os.environ.update(
        JUPYTER_NO_CONFIG="1",
        NBJOBS_USER="demo",
        NBJOBS_WORKERS="2",
        NBJOBS_DATA_DIR=str(folder / "data"),
        NBJOBS_RUNTIME_DIR=str(folder / "run"),
    )
    settings = NbJobs.load()
    set_current(settings)
    try:
        yield folder
    finally:
        try:
            launch.down(settings)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
