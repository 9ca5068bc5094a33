"""Real workers, with all the processes below them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from ..support import wait_until
from . import failpoints
from .failpoints import Point

ROOT = Path(__file__).parents[2]
ORPHANS = 2.0  # seconds that anything may outlive its worker


class Worker:
    """``python -m nbjobs worker`` with its nursery and children.

    Args:
        url: of Redis.
        log: a file for its stderr.
        points: faults that it and its children are to meet.
        path: where it finds further modules.
        root: of the source tree that it runs.
        settings: by name.
    """

    def __init__(
        self,
        url: str,
        log: Path,
        *,
        points: list[Point] | None = None,
        path: Path | None = None,
        root: Path = ROOT,
        **settings: Any,
    ) -> None:
        self.log = log
        module = "tests.faults.launcher" if points else "nbjobs"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NBJOBS_")}
        environment |= {f"NBJOBS_{name.upper()}": str(value) for name, value in settings.items()}
        environment |= {"NBJOBS_REDIS_URL": url, "PYTHONUNBUFFERED": "1"} | failpoints.environment(points or [])
        if path is not None:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(path), environment.get("PYTHONPATH"))))
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "worker"],
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._known: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        """What it has logged so far."""
        return self.log.read_text(errors="replace")

    def below(self) -> list[psutil.Process]:
        """Return its living nursery and children."""
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self.pid).children(recursive=True):
                self._known[one.pid] = one
        return [one for one in self._known.values() if _lives(one)]

    def send(self, number: signal.Signals, *, everybody: bool = False) -> int:
        """Send a signal to the worker, and to all below it where that is asked; return the time, in ns."""
        below = self.below()
        at = time.monotonic_ns()
        self.process.send_signal(number)  # first: a worker that sees its children killed gives their runs back
        if everybody:
            for one in below:
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(number)
        return at

    def kill(self, *, everybody: bool = False) -> int:
        """End it with SIGKILL; return the time, in ns, at which nothing of it was left."""
        self.send(signal.SIGKILL, everybody=everybody)
        self.process.wait(10)
        return time.monotonic_ns()

    def leave(self, timeout: float = 30.0) -> int:
        """Wait until it has ended by itself; return its exit code."""
        code = self.process.wait(timeout)
        self.check_orphans()
        return code

    def check_orphans(self) -> None:
        """Nothing below a dead worker lives longer than two seconds."""
        wait_until(lambda: not self.below(), ORPHANS + 2, f"no process outlives worker {self.pid}: {self.below()}")

    def close(self) -> None:
        """End it in any case, and all below it."""
        below = self.below()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        for one in below:  # those that stand still hear of nothing
            with suppress(psutil.NoSuchProcess):
                one.kill()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
