"""One thread a process that looks at all attempts 50 times a second.

It commits what a loop does not get to, or raises the flag that makes a loop commit its next finished item itself. It
may come late, since it needs the interpreter's lock: a fast loop looks at the clock by itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

TICK = 0.02  # seconds
_PATIENCE = 50  # ticks without anything to look at, until the thread sleeps

_log = logging.getLogger("nbjobs.ticker")


class Ticked(Protocol):
    """What wants to be looked at."""

    def tick(self, now: float) -> None:
        """Look, at the monotonic time ``now``. What it raises is logged once, and it is asked again."""


class Ticker:
    """The thread, which lives while there is something to look at."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._ticked: list[Ticked] = []
        self._wake = threading.Event()
        self._asleep = False
        self._thread: threading.Thread | None = None
        self._failing: list[Ticked] = []

    @contextlib.contextmanager
    def ticking(self, ticked: Ticked) -> Iterator[None]:
        """Look at ``ticked`` while the ``with`` block runs."""
        with self._lock:
            self._ticked = [*self._ticked, ticked]
            if self._asleep:
                self._asleep = False
                self._wake.set()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="nbjobs-ticker", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._ticked = [other for other in self._ticked if other is not ticked]
                self._failing = [other for other in self._failing if other is not ticked]

    def _run(self) -> None:
        idle = 0
        while True:
            idle = 0 if self._ticked else idle + 1
            if idle > _PATIENCE:
                self._sleep()
                idle = 0
            now = time.monotonic()
            for ticked in self._ticked:
                self._look_at(ticked, now)
            time.sleep(max(0.0, TICK - (time.monotonic() - now)))

    def _look_at(self, ticked: Ticked, now: float) -> None:
        try:
            ticked.tick(now)
        except BaseException:  # a body's code may be behind it, and the deadlines of all hang on this thread
            with self._lock:
                known = ticked in self._failing
                self._failing = self._failing if known else [*self._failing, ticked]
            if not known:
                with contextlib.suppress(BaseException):  # its handlers may be the body's
                    _log.exception("what looks at an attempt, beside its body, failed, and goes on")

    def _sleep(self) -> None:
        """Wait for something to look at. Not at once: a process that runs one short body after another is not woken."""
        with self._lock:
            if self._ticked:
                return
            self._asleep = True
            self._wake.clear()
        self._wake.wait()


ticker = Ticker()
os.register_at_fork(after_in_child=ticker._reset) if hasattr(os, "register_at_fork") else None
