"""The two worlds that chaos plays in: their processes, what can be done to these, and how all is well again."""

from __future__ import annotations

import heapq
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil
import redis

from nbjobs import connection
from nbjobs.keys import Keys
from nbjobs.settings import configure, set_current

from ..faults.ledger import Ledger
from ..faults.recorder import Recorder
from ..support import wait_until
from ..workers import gone
from .totals import Totals

PATIENCE = 90.0  # seconds for what must come some time
ORPHANS = 4.0  # seconds that anything may outlive what it belongs to: two, and as many for a busy machine
USER_EVENTS = 50_000  # so that a round's events are all there to be counted

Fault = Callable[[], None]


class World:
    """What both worlds have: a Redis, and faults that are done now or a little later.

    Args:
        folder: for ledgers and logs.
        dice: decides what happens.
        totals: where faults and what must not be are counted.
    """

    def __init__(self, folder: Path, dice: Random, totals: Totals) -> None:
        self.folder, self.dice, self.totals = folder, dice, totals
        self.client: redis.Redis
        self.socket: Path
        self.keys = Keys("nobody")
        self.recorder: Recorder
        self.ledger = Ledger(folder / "ledger")
        self.transcripts: dict[str, Any] = {}
        self._later: list[tuple[float, int, Fault]] = []
        self._count = 0

    # -- rounds --------------------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        """Begin a round, with a user of its own."""
        user = f"chaos-{number}"
        self.keys, self.ledger = Keys(user), Ledger(self.folder / f"ledger-{number}")
        self.transcripts = {}
        self.settings = configure(user=user, user_events=USER_EVENTS)
        self.recorder = Recorder(self.socket, user)

    def fields(self, run: Any) -> dict[str, str]:
        """Return the run's hash."""
        return self.client.hgetall(self.keys.run(run.id))

    # -- faults --------------------------------------------------------------------------------------

    def faults(self) -> dict[str, tuple[int, Fault]]:
        """Return what can be done, with its weight."""
        raise NotImplementedError

    def strike(self) -> None:
        """Do something, where that can be done now."""
        weighted = self.faults()
        (name,) = self.dice.choices(list(weighted), [weight for weight, _ in weighted.values()])
        with suppress(psutil.NoSuchProcess, StopIteration, IndexError):
            weighted[name][1]()
            self.totals.strike(name)

    def later(self, seconds: float, do: Fault) -> None:
        """Do something in so many seconds."""
        self._count += 1
        heapq.heappush(self._later, (time.monotonic() + seconds, self._count, do))

    def forget(self, fault: Fault) -> None:
        """Do not do it, though it was to come later."""
        self._later = [one for one in self._later if one[2] != fault]
        heapq.heapify(self._later)

    def tend(self, *, everything: bool = False) -> None:
        """Do what is due; everything that waits, where all shall be well."""
        while self._later and (everything or self._later[0][0] <= time.monotonic()):
            heapq.heappop(self._later)[2]()

    def calm(self) -> None:
        """Undo all faults and wait until workers take runs."""
        self.tend(everything=True)

    def must_end(self, processes: list[psutil.Process], whose: str) -> None:
        """Processes that belonged to something that is dead are themselves dead soon."""

        def look() -> None:
            with suppress(AssertionError):
                wait_until(lambda: gone(processes), ORPHANS)
                return
            left = [one for one in processes if not gone([one])]
            self.totals.find("left-over processes", f"{left} outlived {whose}")

        self.later(ORPHANS / 2, look)

    def close(self) -> None:
        """End everything; nothing of it is left."""
        connection.drop_client()
        set_current(None)

    def find_strays(self, mark: str) -> None:
        """Look for processes whose environment has a mark."""
        with suppress(AssertionError):
            wait_until(lambda: not strays(mark), ORPHANS, every=0.2)
            return
        for one in strays(mark):
            self.totals.find("left-over processes", f"{one} after the end of all: {' '.join(one.cmdline())[:200]}")
            one.kill()


def strays(mark: str) -> list[psutil.Process]:
    """Return the living processes, but this one, whose environment has a mark."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if one.pid != os.getpid() and any(mark in text for text in one.environ().values()) and not gone([one]):
                found.append(one)
    return found


def bodies(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those processes that have a body under way."""
    return [one for one in processes if _name(one).startswith("nbjobs body")]


def _name(process: psutil.Process) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process.pid}/comm").read_text()
    return ""


def kill(process: psutil.Process) -> None:
    """End a process by SIGKILL, where it lives."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)
