"""What is kept of a run's past: its events and its output, oldest first, and how much is missing in between.

Streams are bounded, so their oldest entries are trimmed. State events are numbered and log lines are counted, so a
reader knows what it does not see: it gets a `Gap` there.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from . import connection, intake, words
from . import events as _events
from .connection import AsyncClient, Client, translated
from .events import Event
from .intake import whole
from .keys import Keys
from .reading import PAGE, Entry
from .view import ENDED

__all__ = ["Gap", "LogLine", "Tail", "aevents", "alogs", "events", "logs"]

_BLOCK = 1000  # ms, well below the connection's timeout
_LAST_WORDS = 1000  # ms after a run's end in which its worker writes what the body printed at last
_UNSEEN_WORDS = 100  # ms where the body's process knows of none: C code and programs print past it
_ENDS = frozenset({"job.completed", "job.failed", "job.cancelled", "job.dead"})
_ID = re.compile(r"\d+-\d+")


@dataclass(frozen=True)
class Gap:
    """Here something is missing that was there: trimmed, or dropped because there was too much of it.

    It also passes for an event without a name, and for a line that says what is missing, so a loop that looks for
    names or prints lines need not ask what it has.

    >>> Gap(30).text
    '(30 lines are missing here)'

    Attributes:
        missed: how many events or lines. Of events at least so many, since those of the body's own are not numbered;
            0 where only that is known that some may be missing.
    """

    missed: int
    name: ClassVar[str] = ""
    payload: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    n: ClassVar[None] = None
    stream: ClassVar[str] = ""

    @property
    def text(self) -> str:
        """What to show in the place of the lines."""
        return f"({words.plural(self.missed, 'line')} {'is' if self.missed == 1 else 'are'} missing here)"


@dataclass(frozen=True)
class LogLine:
    """One line of a run's output.

    Attributes:
        stream: ``stdout`` or ``stderr``.
        text: the line without its end; of one that redraws itself, as tqdm's do, the last state.
        at: when it was complete, in ns since 1970, by the clock that stamps the run's events.
    """

    stream: str
    text: str
    at: int


def events(
    client: Client, keys: Keys, run: str, start: str | Event | None = None, *, follow: bool = False
) -> Iterator[Event | Gap]:
    """Yield the events of a run; see `nbjobs.run.Run.events`."""
    return _Reader(keys, run, keys.events(run), _Events(start), follow=follow).read(client)


def aevents(
    keys: Keys, run: str, start: str | Event | None = None, *, follow: bool = False
) -> AsyncIterator[Event | Gap]:
    """As `events`, for asyncio, on a connection of its own."""
    return _Reader(keys, run, keys.events(run), _Events(start), follow=follow).aread()


def logs(client: Client, keys: Keys, run: str, *, follow: bool = False) -> Iterator[LogLine | Gap]:
    """Yield the output of a run; see `nbjobs.run.Run.logs`."""
    return _Reader(keys, run, keys.log(run), _Lines(), follow=follow).read(client)


def alogs(keys: Keys, run: str, *, follow: bool = False) -> AsyncIterator[LogLine | Gap]:
    """As `logs`, for asyncio, on a connection of its own."""
    return _Reader(keys, run, keys.log(run), _Lines(), follow=follow).aread()


class Tail:
    """The last lines of a run's output, as they come.

    Args:
        keys: of the run's user.
        run: its id.
        limit: how many lines are kept.

    Attributes:
        lines: the last ones.
        seen: how many lines there were so far.
    """

    def __init__(self, keys: Keys, run: str, limit: int = 200) -> None:
        self.lines: deque[LogLine] = deque(maxlen=limit)
        self.seen = 0
        self._key = keys.log(run)
        self._last = ""

    def read(self, client: Client) -> bool:
        """Take what has come since; return whether anything has."""
        ask: Any = client.execute_command
        with translated(client):
            page = ask("XRANGE", self._key, f"({self._last}", "+", "COUNT", PAGE) if self._last else self._newest(ask)
        for self._last, entry in page:
            lines, total = _logged(entry)
            self.lines += [LogLine(*line) for line in lines]
            self.seen = max(self.seen, total)
        return bool(page)

    def _newest(self, ask: Any) -> list[Entry]:
        """As many entries from the end as hold the lines that are kept: one may have hundreds."""
        found: list[Entry] = []
        end, missing = "+", self.lines.maxlen or 0
        while missing > 0 and (page := ask("XREVRANGE", self._key, end, "-", "COUNT", 10)):
            found += page
            missing -= sum(len(_logged(entry)[0]) for _, entry in page)
            end = f"({page[-1][0]}"
        return found[::-1]


class _Source(Protocol):
    """What entries of a stream mean.

    Attributes:
        start: the entry to begin behind; empty for the oldest.
        patience: ms to wait for more after the run's end.
        closed: the last attempt of which all has been taken, as far as the entries tell.
    """

    start: str
    patience: int
    closed: int

    def begin(self, found: Entry | None) -> Iterator[Gap]:
        """Look at the entry to begin behind; None where it is gone."""

    def take(self, id: str, entry: Mapping[str, str]) -> Iterator[Any]:
        """Yield what one entry tells."""


class _Events:
    """Makes events of entries, and sees from their numbers and counts what is missing."""

    patience = 0
    closed = 0

    def __init__(self, start: str | Event | None) -> None:
        self.start = _id(start)
        self._n: int | None = None if start is not None else 0
        if isinstance(start, Event):
            self._n = start.n
        self._dropped: dict[Any, int] | None = {} if start is None else None

    def begin(self, found: Entry | None) -> Iterator[Gap]:
        """Look at the entry to begin behind; where it is gone, others may be so too."""
        if found is None and self._n is None:
            yield Gap(0)
        elif found is not None and self._n is None:
            self._n = _number(found[1])

    def take(self, id: str, entry: Mapping[str, str]) -> Iterator[Event | Gap]:
        """Yield what one entry tells."""
        number = _number(entry)
        event = _events.decode(entry.get("e", ""), entry.get("d", ""), id=id, n=number)
        missed = self._dropped_before(event)
        if number is not None:
            missed += max(0, number - self._n - 1) if self._n is not None else 0
            self._n = number
        if missed:
            yield Gap(missed)
        yield event

    def _dropped_before(self, event: Event) -> int:
        """How many events of the body's own were dropped since the last count; each attempt counts for itself."""
        payload = event.payload
        if not event.name.startswith("job.") or not isinstance(payload, dict):
            return 0
        dropped, attempt = payload.get("dropped"), payload.get("attempt")
        if not isinstance(dropped, int) or not isinstance(attempt, int):
            return 0
        if self._dropped is None:  # begun in the middle: what was dropped before is not ours to tell
            self._dropped = {attempt: dropped}
        before = self._dropped.get(attempt, 0)
        self._dropped[attempt] = max(before, dropped)
        return max(0, dropped - before)


class _Lines:
    """Makes lines of a log's entries; each entry counts all lines up to its end."""

    patience = _LAST_WORDS
    start = ""

    def __init__(self) -> None:
        self.closed = 0
        self._seen = 0

    def begin(self, found: Entry | None) -> Iterator[Gap]:
        """Nothing to look at: a log is read from its oldest entry."""
        return iter(())

    def take(self, id: str, entry: Mapping[str, str]) -> Iterator[LogLine | Gap]:
        """Yield what one entry tells."""
        lines, total = _logged(entry)
        self.closed = max(self.closed, whole(entry.get("z")) or 0)
        missed = total - len(lines) - self._seen
        self._seen = max(total, self._seen)
        if missed > 0:
            yield Gap(missed)
        for stream, text, at in lines:
            yield LogLine(stream, text, at)


class _End(NamedTuple):
    """The end of a run: its last attempt, when that was (ms), and how long after it lines may come (ms)."""

    attempt: int
    at: int
    patience: int


def _end(newest: list[Entry]) -> _End | None:
    """Return the end of a run that its newest events tell, the last one first; None where it has not ended."""
    if not newest or newest[0][1].get("e") not in _ENDS:
        return None
    told = [intake.decode(entry.get("d", "")).p for _, entry in newest]
    attempt = max(whole(payload.attempt) or 0 for payload in told)
    printed = any(payload.printed or payload.last_lines for payload in told)
    at = int(newest[0][0].partition("-")[0])
    return _End(attempt, at, _LAST_WORDS if printed else _UNSEEN_WORDS)


def _logged(entry: Mapping[str, str]) -> tuple[list[tuple[str, str, int]], int]:
    """The lines of a log's entry, and how many there were up to its end."""
    try:
        lines = msgspec.json.decode(entry.get("d", "[]"), type=list[tuple[str, str, int]])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        lines = []  # written by another version: its count tells what is missing
    return lines, whole(entry.get("t")) or 0


class _Reader:
    """Reads a stream to its end, or to the run's end, for plain code and for asyncio."""

    def __init__(self, keys: Keys, run: str, key: str, source: _Source, *, follow: bool) -> None:
        self._key = key
        self._run_key = keys.run(run)
        self._events_key = keys.events(run)
        self._source = source
        self._follow = follow

    def read(self, client: Client) -> Iterator[Any]:
        """Yield everything."""
        ask: Any = client.execute_command
        plan, answer = self._plan(), None
        while True:
            try:
                wanted = plan.send(answer)
            except StopIteration:
                return
            if isinstance(wanted, list):
                yield from wanted
                answer = None
            else:
                with translated(client):
                    answer = ask(*wanted)

    async def aread(self) -> AsyncIterator[Any]:
        """Yield everything, on a connection of its own."""
        url = await asyncio.to_thread(connection.resolve_url)
        client: AsyncClient = connection.async_client(url, name=connection.client_name())
        async with contextlib.aclosing(client):
            ask: Any = client.execute_command
            plan, answer = self._plan(), None
            while True:
                try:
                    wanted = plan.send(answer)
                except StopIteration:
                    return
                if isinstance(wanted, list):
                    for one in wanted:
                        yield one
                    answer = None
                else:
                    with translated(client):
                        answer = await ask(*wanted)

    def _plan(self) -> Generator[Any, Any, None]:
        """Yields the commands to send and is sent their answers; in between, yields lists of what was found."""
        last = self._source.start
        if last:
            found = yield ("XRANGE", self._key, last, last)
            yield list(self._source.begin(found[0] if found else None))
        end = None
        if self._source.patience and not self._follow:  # first: what is read behind it is as it was at the run's end
            end = _end((yield ("XREVRANGE", self._events_key, "+", "-", "COUNT", 2)))
        while True:
            page = yield ("XRANGE", self._key, f"({last}" if last else "-", "+", "COUNT", PAGE)
            if page:
                last = page[-1][0]
                yield self._told(page)
            if len(page) < PAGE:
                break
        if self._follow:
            yield from self._to_come(last)
        elif end is not None:
            yield from self._last_words(end, last)

    def _to_come(self, last: str) -> Generator[Any, Any, None]:
        """Read what comes until the run has ended."""
        while True:
            state, attempt = yield ("HMGET", self._run_key, "state", "attempt")  # first: its last event is there then
            over = state is None or state in ENDED
            if over and 0 < (whole(attempt) or 0) <= self._source.closed:
                return
            wait = self._source.patience if over else _BLOCK
            block = ("BLOCK", wait) if wait else ()  # 0 would be for ever
            found = yield ("XREAD", "COUNT", PAGE, *block, "STREAMS", self._key, last or "0-0")
            if found:
                last = found[0][1][-1][0]
                yield self._told(found[0][1])
            elif over:
                return

    def _last_words(self, end: _End, last: str) -> Generator[Any, Any, None]:
        """Read what the worker has still to write of what was printed before the run's end."""
        if end.attempt <= self._source.closed:
            return
        seconds, micros = yield ("TIME",)
        gone = max(0, int(seconds) * 1000 + int(micros) // 1000 - end.at)
        until = time.monotonic() + (end.patience - gone) / 1000
        while end.attempt > self._source.closed and (left := round((until - time.monotonic()) * 1000)) > 0:
            found = yield ("XREAD", "COUNT", PAGE, "BLOCK", left, "STREAMS", self._key, last or "0-0")
            if found:
                last = found[0][1][-1][0]
                yield self._told(found[0][1])

    def _told(self, page: list[Entry]) -> list[Any]:
        return [told for id, entry in page for told in self._source.take(id, entry)]


def _id(start: str | Event | None) -> str:
    found = start.id if isinstance(start, Event) else start
    if isinstance(start, Event) and found is None:
        raise ValueError("this event has no id: only events that were read from a run can be gone on behind")
    if found is not None and not _ID.fullmatch(found):
        raise ValueError(f"found {found!r}, expected an event or its id, for instance '1718000000000-0'")
    return found or ""


def _number(entry: Mapping[str, str]) -> int | None:
    return whole(entry.get("n")) or None
