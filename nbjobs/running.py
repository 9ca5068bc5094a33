"""One attempt in a child, as its worker sees it: what goes in, what is printed, how it ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import merge
from typing import Any, Protocol

from .errors import NbjobsError
from .lines import Line

LAST_LINES = 20
BATCH_LINES = 200
BATCH_SECONDS = 0.02


class PoolError(NbjobsError):
    """Processes for bodies cannot be started here."""


class Claim(Protocol):
    """What the worker must know of an attempt to have it run; the whole of it goes to the child."""

    @property
    def user(self) -> str:
        """Whose run it is."""

    @property
    def run(self) -> str:
        """The run's id."""

    @property
    def owner(self) -> str:
        """Who holds the run: unique per attempt."""

    @property
    def kind(self) -> str:
        """Either ``sync`` or ``async``."""

    @property
    def origin(self) -> int:
        """What to add to this machine's steady clock to have Redis time, by which events are stamped, in ns; or 0."""


OnOutput = Callable[["Claim | None", "list[Line]"], None]
"""Gets what was printed, in batches; None where several bodies of the async child may have printed it."""


@dataclass(frozen=True)
class End:
    """How an attempt ended, as far as its process tells.

    Attributes:
        died: the child ended without the attempt's outcome.
        outcome: `runner.Outcome` as a dict; None where there is none.
        error: what came out of the attempt though nothing should: the outcome is None then.
        code: exit code of a child that ended so; None where a signal or nobody knows what ended it.
        signal: number of the signal that ended it, else None.
        started: the body had begun; where not, its death says nothing about it.
        shared: the child had other runs as well, so this one need not be to blame.
        reason: why the pool ended it: ``killed`` (`Pool.kill`), ``stalled``, ``nursery`` (the helper
            died), ``closed``, ``no child`` (none could be started), ``unheard`` (it closed its socket);
            empty where it ended by itself.
        overdue: the timeout of an attempt whose process was ended because it did not stop then; else 0.
        cpu: seconds used, with the body's own programs; None where unknown or not told apart.
        peak: the process's peak memory in bytes; None likewise.
        out_of: bytes that there were to use where it has probably died for want of memory; else 0.
        last_lines: the last lines printed, for the event of a death.
    """

    died: bool
    outcome: dict[str, Any] | None = None
    error: str = ""
    code: int | None = None
    signal: int | None = None
    started: bool = False
    shared: bool = False
    reason: str = ""
    overdue: float = 0.0
    cpu: float | None = None
    peak: int | None = None
    out_of: int = 0
    last_lines: list[str] = field(default_factory=list)


class Running:
    """One run in a child; `ended` becomes its `End`, or None where the child refused it."""

    def __init__(self, claim: Claim, on_output: OnOutput) -> None:
        self.claim = claim
        self.ended: asyncio.Future[End | None] = asyncio.get_running_loop().create_future()
        self.started = False
        self.lent = False
        self.overdue = 0.0
        self._limit: asyncio.TimerHandle | None = None
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._began = time.time_ns()
        self._batch: list[Line] = []
        self._timer: asyncio.TimerHandle | None = None
        self._on_output = on_output

    def printed(self, lines: list[Line]) -> None:
        """Takes lines; hands them on when there are many, or soon."""
        self.last_lines.extend(line.text for line in lines[-LAST_LINES:])
        self._batch.extend(lines)
        if len(self._batch) >= BATCH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self.flush)

    def limit(self, timeout: float, within: float, on_late: Callable[[Running], None]) -> None:
        """Calls `on_late` unless the attempt ends within so many seconds; what was said before no longer counts."""
        self.unlimit()
        self._limit = asyncio.get_running_loop().call_later(within, self._late, timeout, on_late)

    def _late(self, timeout: float, on_late: Callable[[Running], None]) -> None:
        self.overdue = timeout
        on_late(self)

    def unlimit(self) -> None:
        """Takes the limit back: the body is over."""
        self.overdue = 0.0
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def flush(self) -> None:
        """Hands on what was printed, in the order of time, by the clock of the run's events.

        No time lies outside of the attempt, whatever its body has said. Each stream stays in its own order: a line
        without a mark has the time at which it was read, which may be later than that of the line behind it.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.time_ns()
        ahead = self.claim.origin + time.monotonic_ns() - now if self.claim.origin else 0
        streams = ([line for line in self._batch if line.stream == stream] for stream in ("stdout", "stderr"))
        batch = [
            Line(stream, text, min(max(ns, self._began), now) + ahead, missed)
            for stream, text, ns, missed in merge(*streams, key=_time)
        ]
        self._batch = []
        for at in range(0, len(batch), BATCH_LINES):
            self._on_output(self.claim, batch[at : at + BATCH_LINES])

    def end(self, end: End | None) -> None:
        """Says how it ended; only the first word counts."""
        self.flush()
        self.unlimit()
        if not self.ended.done():
            self.ended.set_result(end)


def _time(line: Line) -> int:
    return line.ns
