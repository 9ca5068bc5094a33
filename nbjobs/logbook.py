"""Writes what bodies print into the log streams of their runs.

One entry of a stream is one batch of lines: ``d`` is a JSON list of ``[stream, line, ns]``, ``t`` counts all lines of
the run up to its end, those included that were dropped, so a reader knows how many it does not see; ``x`` is how many
were dropped just before it; ``z`` stands in the last entry of an attempt and is its number. What is printed neither
holds up the worker nor fills its memory while Redis is away: beyond its caps it is counted and dropped, the oldest
first, since the last words say most.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from .allowance import Allowance
from .backoff import Backoff
from .codec import clean_text
from .connection import FAILURES, AsyncClient, translated
from .intake import whole
from .keys import Keys
from .lines import Line
from .settings import NbJobs

logger = logging.getLogger("nbjobs.worker")

ENTRY_LIMIT = 16_384
"""Bytes of an entry."""

KEPT = 2_000
"""Lines that stay of a run, about; long ones count for several."""

_ENTRY_LINES = 200
_LINE_LIMIT = 4_096  # characters
_WIDE_LIMIT = 4_000  # where they may have four bytes each: a line fits into an entry
_USUAL = 512  # bytes of a line that counts for one
_RATE = 50.0  # entries a second of one run
_BURST = 200.0
_TICK_ENTRIES = 4  # of one run in a tick: packing them holds up the loop
_RUN_BYTES = 2_000_000  # of lines that wait, of one run
_ALL_BYTES = 64_000_000  # of all
_LINE_BYTES = 200  # of a line beside its text
_TICK = 1 / _RATE
_PAUSE = 0.5  # seconds until the next try where Redis does not answer
_REMEMBERED = 1_000  # runs


class _Entry(NamedTuple):
    d: str
    lines: int
    dropped: int
    weight: int
    closes: int


class _Log:
    """The log of one run, as far as this worker writes it.

    Attributes:
        total: lines up to the last entry, those dropped included; None where that must be asked first.
        bytes: of the lines that wait, about.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.total: int | None = None
        self.dropped = 0
        self.bytes = 0
        self._open = False
        self._closes = 0
        self._waiting: deque[Line] = deque()
        self._weights: deque[int] = deque()
        self._weight = 0
        self._allowance = Allowance(_RATE, _BURST)

    @property
    def due(self) -> bool:
        """Whether anything is to be written."""
        return bool(self._waiting or self.dropped or self._closes)

    def note(self, lines: Sequence[Line]) -> None:
        for line in lines:
            cut = _cut(line)
            self._waiting.append(cut)
            self.bytes += _size(cut)
        self._open = True
        self.fit(_RUN_BYTES)

    def fit(self, bytes: int) -> None:
        """Drop the oldest lines until so many bytes wait at most."""
        while self.bytes > bytes:
            self._drop()

    def close(self, attempt: int) -> None:
        """Take note that an attempt has printed its last line, if it has printed any."""
        if self._open:
            self._open = False
            self._closes = attempt

    def take(self) -> list[_Entry]:
        """Return what may be written now; of what may not soon, only the last lines go on waiting."""
        entries: list[_Entry] = []
        while self.due and len(entries) < _TICK_ENTRIES and self._allowance.take():
            entries.append(self._next())
        while self._allowance.left < 1 and len(self._waiting) > _ENTRY_LINES:
            self._drop()
        return entries

    def written(self, entries: Sequence[_Entry]) -> None:
        """Take note of entries that are in Redis."""
        for entry in entries:
            self._weights.append(entry.weight)
            self._weight += entry.weight
        while self._weight - self._weights[0] >= KEPT:
            self._weight -= self._weights.popleft()

    @property
    def length(self) -> int:
        """How many entries shall stay; earlier workers may have written some of them."""
        return len(self._weights) if self._weight >= KEPT else KEPT

    def failed(self, entries: Sequence[_Entry]) -> None:
        """Take note of entries that may not be in Redis."""
        self.total = None
        self.dropped += sum(entry.lines + entry.dropped for entry in entries)
        self._closes = self._closes or entries[-1].closes

    def _drop(self) -> None:
        self.dropped += 1 + self._pop().missed

    def _pop(self) -> Line:
        line = self._waiting.popleft()
        self.bytes -= _size(line)
        return line

    def _next(self) -> _Entry:
        """Return the next lines that no gap divides, as many as an entry holds."""
        kept: list[bytes] = []
        size = 2
        for line in islice(self._waiting, _ENTRY_LINES):
            told = msgspec.json.encode((line.stream, clean_text(line.text), line.ns))
            if kept and (line.missed or size + len(told) + 1 > ENTRY_LIMIT):
                break
            size += len(told) + 1
            kept.append(told)
        dropped, self.dropped = self.dropped, 0
        for _ in kept:
            dropped += self._pop().missed  # of the first one
        weight = max(1, len(kept), size // _USUAL)
        closes = 0 if self._waiting else self._closes
        self._closes -= closes
        return _Entry(f"[{b','.join(kept).decode()}]", len(kept), dropped, weight, closes)


class Logbook:
    """Takes lines at any time, writes them in the background.

    Args:
        client: one without retries, since an entry must not be added twice.
        settings: `keep`.
    """

    def __init__(self, client: AsyncClient, settings: NbJobs) -> None:
        self._client = client
        self._backoff = Backoff(logger, longest=_PAUSE)
        self._keep = round(settings.keep * 1000)
        self._logs: dict[str, _Log] = {}
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()

    def note(self, keys: Keys, run: str, lines: Sequence[Line]) -> None:
        """Takes lines of a run."""
        key = keys.log(run)
        log = self._logs.pop(key, None) or _Log(key)
        self._logs[key] = log  # the last one in the dict is the one that was used last
        self._bytes -= log.bytes
        log.note(lines)
        self._bytes += log.bytes
        if self._bytes > _ALL_BYTES:
            self._fit()
        self._written.clear()
        self._arrived.set()

    def end(self, keys: Keys, run: str, attempt: int) -> None:
        """Take note that an attempt is over, so that a reader of what it printed knows that there is no more."""
        log = self._logs.get(keys.log(run))
        if log is not None:
            log.close(attempt)
            self._written.clear()
            self._arrived.set()

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while due := [log for log in self._logs.values() if log.due]:
                done = await self._write(due)
                if any(log.due for log in due):
                    await asyncio.sleep(_TICK if done else self._backoff.pause)
            self._written.set()
            self._forget()

    async def flush(self, within: float) -> None:
        """Waits until all that was taken is written, or the time is over."""
        await asyncio.wait({asyncio.ensure_future(self._written.wait())}, timeout=within)

    async def _write(self, due: Sequence[_Log]) -> bool:
        """Writes what may be written of these; returns whether Redis took it."""
        try:
            with translated(self._client):
                await self._ask_totals([log for log in due if log.total is None])
        except FAILURES as error:
            self._backoff.failed(error)
            return False
        taken = []
        for log in due:
            self._bytes -= log.bytes
            if entries := log.take():
                taken.append((log, entries))
            self._bytes += log.bytes
            await asyncio.sleep(0)  # a turn for others
        if not taken:
            return True
        pipe = self._client.pipeline(transaction=False)
        for log, entries in taken:
            log.written(entries)
            for entry in entries:
                self._add(pipe, log, entry)
            pipe.pexpire(log.key, self._keep)  # the run may have ended, and nobody else would
        try:
            with translated(self._client):
                await pipe.execute()
        except FAILURES as error:
            for log, entries in taken:
                log.failed(entries)
            self._backoff.failed(error)
            return False
        self._backoff.over()
        return True

    async def _ask_totals(self, logs: Sequence[_Log]) -> None:
        """Asks how many lines an earlier attempt, or another worker, has counted."""
        if not logs:
            return
        pipe = self._client.pipeline(transaction=False)
        for log in logs:
            pipe.xrevrange(log.key, count=1)
        for log, last in zip(logs, await pipe.execute(), strict=True):
            log.total = (whole(last[0][1].get("t")) or 0) if last else 0

    def _add(self, pipe: Any, log: _Log, entry: _Entry) -> None:
        assert log.total is not None
        log.total += entry.lines + entry.dropped
        more = (*(("x", entry.dropped) if entry.dropped else ()), *(("z", entry.closes) if entry.closes else ()))
        pipe.execute_command("XADD", log.key, "MAXLEN", "~", log.length, "*", "d", entry.d, "t", log.total, *more)

    def _fit(self) -> None:
        """Drop the oldest lines of those runs that have more waiting than their share, and so much that it lasts."""
        due = [log for log in self._logs.values() if log.bytes]
        for log in due:
            self._bytes -= log.bytes
            log.fit(_ALL_BYTES * 3 // 4 // len(due))
            self._bytes += log.bytes

    def _forget(self) -> None:
        """Forgets the runs that have not printed for the longest time; what was counted of them is in Redis."""
        while len(self._logs) > _REMEMBERED:
            del self._logs[next(iter(self._logs))]


def _cut(line: Line) -> Line:
    """Return a line as long as it is kept; where it is cut, it says so."""
    limit = _LINE_LIMIT if line.text.isascii() else _WIDE_LIMIT
    rest = len(line.text) - limit
    return line if rest <= 0 else line._replace(text=f"{line.text[:limit]}…(+{rest} characters)")


def _size(line: Line) -> int:
    """Return about how many bytes a line takes while it waits."""
    return _LINE_BYTES + len(line.text) * (1 if line.text.isascii() else 4)
