"""The work of one attempt at a ``step.map``: which items are to be done, who does them, and what is done."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import codec, resuming
from .errors import ContinuationError, Interrupt, NotData, StepsChanged, TooLarge
from .inputs import iterated
from .mapworkers import Future, Processes, Threads, Workers
from .places import fingerprint
from .steps import Cursor, Item, Step

if TYPE_CHECKING:
    import threading

    from .continuation import Continuation
    from .mapworkers import Mapping

AHEAD = 1024  # items begun beyond the low-water mark
SHARE = 0.2  # of the time, which commits may take: beside its workers one takes ten times as long as beside a loop
RESULTS_LIMIT = 16 * 1024 * 1024  # bytes of the results of one step


class LowWater:
    """The place of a map: below its mark all items are done, and the last of them has this fingerprint."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.low: tuple[int, Any] | None = None

    def standing(self, done: int) -> tuple[Cursor, int]:
        """See :class:`~nbjobs.steps.Place`."""
        if self.low is None:
            return self._step.stored, done
        mark, last = self.low
        return Cursor(mark, fingerprint(last)), done


class _Items:
    """The owner of a map's items: a checkpoint in one of them is one of the run's."""

    def __init__(self, run: Continuation, step: Step) -> None:
        self.run_id = run.run_id
        self.fence = run.fence
        self._run = run
        self._step = step

    def reach(self, step: Step) -> None:
        """Commit what all items have done."""
        self._run.reach(self._step)

    def is_time(self, now: float) -> bool:
        """Never asked: an item has no cursor that could be moved."""
        return False


class Work:
    """One attempt at a map.

    Attributes:
        failed: the number of the item whose error ended it.
    """

    def __init__(self, run: Continuation, mapping: Mapping, step: Step, stop: threading.Event) -> None:
        self.failed: int | None = None
        self._run = run
        self._mapping = mapping
        self._step = step
        self._stop = stop
        self._owner = _Items(run, step)
        self._ordinal = run.ordinal(step.name)
        self._kept = self._load()
        self._bytes = sum(map(_size, self._kept.values()))
        self._unkept, self._why = 0, ""
        self._values: dict[int, Any] = {}
        self._drawn = 0
        self._mark = step.stored.value or 0  # how many were done in front, when this attempt began
        self._low = 0
        self._beyond: dict[int, Any] = {}  # items from the low-water mark on, as far as they were drawn
        self._finished: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._flying: dict[Future[Any], int] = {}
        self._next: tuple[int, Any] | None = None
        self._place = step.place = LowWater(step)

    def _load(self) -> dict[int, str]:
        """Return the texts of what is done; begin the map where there is nothing, or another step's."""
        stored = self._run.kept(self._ordinal)
        found = {int(index): text for index, text in stored.items() if index.isdigit()}
        if stored.get("name") != self._step.name:
            found = {}
            with self._run.lock:
                self._run.results.append((str(self._ordinal), self._step.name))
        self._step.recount(len(found))
        return found

    def do(self) -> list[Any]:
        """Work until every item is done; return the results in order."""
        self._check_sequence()
        workers = self._workers()
        source = self._left()
        try:
            while self._fill(source, workers):
                self._take(self._finished.get(), workers)
                if self._stop.is_set():
                    raise asyncio.CancelledError
                # A look at the clock costs nothing beside an item here, and the flag comes late.
                if self._step.flag or self._run.is_due(time.monotonic(), SHARE):
                    self._run.reach(self._step)
        except BaseException:
            self._drain(workers)
            raise
        finally:
            workers.close()
        return [self._values[index] for index in range(self._drawn)]

    def as_value(self, values: list[Any]) -> tuple[str | None, str]:
        """Return the text of the results as the step's value, where that is short; else they are kept beside it."""
        if self._unkept:
            some = f"{self._unkept:,} results are" if self._unkept > 1 else "a result is"
            return None, f"{some} not kept, and those items run again on resume: {self._why}"
        return self._run.keep(values) if self._bytes < codec.VALUE_LIMIT // 2 else (None, "")

    # -- what is to be done --------------------------------------------------------------------------------------

    def _workers(self) -> Workers:
        mapping = self._mapping
        if mapping.processes:
            return Processes(mapping.fn, mapping.workers, self._item(0))
        return Threads(mapping.fn, mapping.workers)

    def _item(self, index: int) -> Item:
        return Item(self._step.name, self._owner, index, self._step.total)

    def _check_sequence(self) -> None:
        items, mark = self._mapping.items, self._mark
        if mark and resuming.is_sequence(items):
            if len(items) < mark:
                resuming.check_length(self._run, self._step, len(items), mark)
            else:
                resuming.check_fingerprint(self._run, self._step, items[mark - 1], mark)

    def _left(self) -> Iterator[tuple[int, Any]]:
        """Yield the items that are left to do, with their numbers."""
        for index, value in enumerate(iterated(self._mapping.items)):
            if index == self._mark - 1:
                resuming.check_fingerprint(self._run, self._step, value, self._mark)
            self._drawn = index + 1
            self._beyond[index] = value
            if index in self._kept:
                self._values[index] = codec.decode(self._kept.pop(index))
                with self._run.lock:
                    self._advance()
            else:
                yield index, value
        if self._drawn < self._mark:
            resuming.check_length(self._run, self._step, self._drawn, self._mark)

    def _fill(self, source: Iterator[tuple[int, Any]], workers: Workers) -> bool:
        """Hand out as much as may be begun; False where nothing is under way any more."""
        while len(self._flying) < 2 * workers.count:  # so that whoever is free finds one ready
            self._next = self._next or next(source, None)
            if self._next is None or self._next[0] >= self._low + AHEAD:
                break
            (index, value), self._next = self._next, None
            future = workers.begin(self._item(index), index, value)
            self._flying[future] = index
            future.add_done_callback(self._finished.put)
        return bool(self._flying)

    # -- what is done --------------------------------------------------------------------------------------------

    def _take(self, future: Future[Any], workers: Workers) -> None:
        index = self._flying.pop(future)
        try:
            value = workers.result(future)
        except (Interrupt, StepsChanged):
            raise
        except BaseException as error:
            self.failed = index
            _note(error, f"in item {index:,} of step.map({self._step.name!r})")
            raise
        self._done(index, value)

    def _done(self, index: int, value: Any) -> None:
        text = self._text(index, value)
        self._values[index] = value
        with self._run.lock:  # who commits sees all of it or nothing
            if text is not None:
                self._run.results.append((f"{self._ordinal}:{index}", text))
            self._step.done += 1
            self._advance()

    def _advance(self) -> None:
        low, last = self._low, None
        while low in self._values:
            last = self._beyond.pop(low)
            low += 1
        if low > self._low:
            self._low = low
            self._place.low = (low, last)

    def _text(self, index: int, value: Any) -> str | None:
        try:
            text = codec.encode(value, what=f"result {index:,}", limit=codec.VALUE_LIMIT)
        except (NotData, TooLarge) as error:
            self._unkept, self._why = self._unkept + 1, self._why or str(error)
            return None
        size = _size(text)
        if self._bytes + size > RESULTS_LIMIT:
            why = f"all results of the step would have more than {RESULTS_LIMIT:,} bytes"
            self._unkept, self._why = self._unkept + 1, self._why or why
            return None
        self._bytes += size
        return text

    def _drain(self, workers: Workers) -> None:
        """Wait for the items in flight, and keep what they come to."""
        for future in list(self._flying):
            if future.cancel():
                del self._flying[future]
        for future, index in list(self._flying.items()):
            try:
                value = workers.result(future)
            except BaseException:  # the first error is the one that is told
                continue
            self._done(index, value)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _note(error: BaseException, text: str) -> None:
    """Say of an error where it came from."""
    if hasattr(error, "add_note"):
        error.add_note(text)
    elif error.__cause__ is None:  # Python 3.10
        error.__cause__ = ContinuationError(text)
