"""Loops with a cursor: ``step.each``.

An item is done when the loop asks for the next one. Between two items the loop writes one number and looks at one
flag, so that it costs less than a progress bar does; another thread looks several times a second and commits what
has moved, or raises the flag, and then the loop itself commits the next finished item before it goes on.

Leaving a loop early (``break``, ``return``, an error that the body catches) and going on ends its step. An iterator
cannot tell these from an error that leaves the job, so closing it decides nothing: what the body does next does.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Mapping,
    MappingView,
    Sequence,
    Set,
    Sized,
)
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from . import codec, continuation
from .errors import ContinuationError
from .steps import Cursor, Nowhere, Step, plain

if TYPE_CHECKING:
    from types import FrameType

T = TypeVar("T")

_INDEXED = (list, tuple, range, str, bytes)
_POOLS = ("concurrent.futures", "multiprocessing", "joblib")


class Each(Generic[T]):
    """The items of one step, in a ``for`` or an ``async for``; see ``step.each``."""

    def __init__(
        self, name: str, items: Iterable[T] | AsyncIterable[T], *, total: int | None = None, every: int | None = None
    ) -> None:
        _refuse(items, name)
        if every is not None and every < 1:
            raise ValueError(f"step.each({name!r}, every={every!r}): expected a whole number from 1 on")
        self._name = name
        self._items = items
        self._total = total if total is not None else _length(items)
        self._every = every
        self._run = continuation.current()
        self._thread = threading.get_ident()

    def __iter__(self) -> Iterator[T]:
        if isinstance(self._items, AsyncIterable) and not isinstance(self._items, Iterable):
            raise TypeError(f"The items of step.each({self._name!r}) are asynchronous: use `async for`.")
        if self._run is None:
            return self._iterate_plainly(self._items)
        return self._iterate(self._run, self._items)

    def __aiter__(self) -> AsyncIterator[T]:
        if not isinstance(self._items, AsyncIterable):
            return _Asynchronous(iter(self))
        if self._run is None:
            return self._aiterate_plainly(self._items)
        return _AsyncLoop(self._run, self._name, self._items, self._total, self._every)

    def _iterate_plainly(self, items: Iterable[T]) -> Iterator[T]:
        step, before = self._plain_step(), plain.get()
        plain.set(step)
        try:
            for item in items if isinstance(items, Iterable) else _from(items, 0):
                yield item
                step.done += 1
        finally:
            plain.set(before)

    async def _aiterate_plainly(self, items: AsyncIterable[T]) -> AsyncIterator[T]:
        step, before = self._plain_step(), plain.get()
        plain.set(step)
        try:
            async for item in items:
                yield item
                step.done += 1
        finally:
            plain.set(before)

    def _plain_step(self) -> Step:
        step = Step(self._name, Nowhere(), start=Cursor(None), total=self._total)
        step.cursor_of = Cursor
        return step

    def _iterate(self, run: continuation.Continuation, items: Iterable[T]) -> Iterator[T]:
        self._refuse_pool(sys._getframe(1))
        # The caller's frame is kept in no variable here: it would live as long as this generator, with its locals.
        step = run.begin_loop(self._name, self._total, sys._getframe(1))
        if step is None:
            return
        try:
            source, done, every = _source(run, items, step), step.done, self._every
            if every is None:
                # The loop that has to be fast: written out, as a call or a `yield from` costs as much again.
                for item in source:
                    yield item
                    done += 1
                    step.done = done
                    if step.flag:
                        run.reach(step)
            else:
                for item in source:
                    yield item
                    done += 1
                    step.done = done
                    if step.flag or not done % every:
                        run.reach(step)
        finally:
            run.leave_loop(step)
        run.end()

    def _refuse_pool(self, frame: FrameType) -> None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(_POOLS) or threading.get_ident() != self._thread:
            who = module if module.startswith(_POOLS) else "another thread"
            raise ContinuationError(
                f"step.each({self._name!r}) was asked for its items by {who}. A pool draws all items before any work "
                "is done, so the cursor would run ahead of the work. Loop over step.each in the body, and give the "
                "work to the pool there."
            )


class _IndexCursor:
    """The cursor of a sequence: an index, with the fingerprint of the item before it."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __call__(self, done: int) -> Cursor:
        if not 0 < done <= len(self._items):
            return Cursor(done or None)
        return Cursor(done, _fingerprint(self._items[done - 1]))


class _CountCursor:
    """The cursor of an iterable: how many items to skip, with the fingerprint of the last one done."""

    def __init__(self, step: Step) -> None:
        self._first = step.done
        self._stored = step.stored
        #: How many items came before the one in hand, the last of them, and the one in hand.
        self.hand: tuple[int, Any, Any] = (step.done, None, None)

    def __call__(self, done: int) -> Cursor:
        if done == self._first:
            return self._stored
        # The loop goes on while this is asked, so the item that belongs to `done` may be in hand or just before.
        index, before, item = self.hand
        if done - index not in (0, 1):
            return Cursor(done)
        return Cursor(done, _fingerprint(item if done > index else before))

    def through(self, items: Iterable[T]) -> Iterator[T]:
        """Pass the items on, remembering the last two."""
        before = None
        for index, item in enumerate(items, self._first):
            self.hand = (index, before, item)
            yield item
            before = item


class _Asynchronous(AsyncIterator[T]):
    """A plain loop in an ``async for``."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items

    async def __anext__(self) -> T:
        for item in self._items:
            return item
        raise StopAsyncIteration


class _AsyncLoop(AsyncIterator[T]):
    """The loop over an asynchronous iterable. A class: an async generator costs twice as much an item."""

    def __init__(
        self,
        run: continuation.Continuation,
        name: str,
        items: AsyncIterable[T],
        total: int | None,
        every: int | None,
    ) -> None:
        self._run = run
        self._name = name
        self._items = items
        self._total = total
        self._every = every
        self._step: Step | None = None
        self._begun = False
        self._last: T | None = None

    async def __anext__(self) -> T:
        step = self._step
        if step is None:
            step = await self._begin()
        else:
            step.done += 1
            if step.flag or (self._every is not None and not step.done % self._every):
                await asyncio.to_thread(self._run.reach, step)
        try:
            item = await self._source.__anext__()
        except StopAsyncIteration:
            await asyncio.to_thread(self._run.end)
            self._step = None
            raise
        self._cursor.hand = (step.done, self._last, item)
        self._last = item
        return item

    async def _begin(self) -> Step:
        step = None if self._begun else self._run.begin_loop(self._name, self._total, None)
        self._begun = True
        if step is None:
            raise StopAsyncIteration
        try:
            self._source = self._items.__aiter__()
            await self._skip(step)
        except BaseException:
            self._run.leave_loop(step)
            raise
        self._cursor = step.cursor_of = _CountCursor(step)
        self._step = step
        return step

    async def _skip(self, step: Step) -> None:
        for skipped in range(step.done):
            try:
                self._last = await self._source.__anext__()
            except StopAsyncIteration:
                _check_length(self._run, step, skipped)
                return
        _check_fingerprint(self._run, step, self._last)

    def __del__(self) -> None:
        if self._step is not None:
            self._run.leave_loop(self._step)


def _refuse(items: Any, name: str) -> None:
    if isinstance(items, Set) and not isinstance(items, (Sequence, MappingView)):
        raise TypeError(
            f"step.each({name!r}) was given a {type(items).__name__}, which has no stable order, so a cursor into it "
            "means nothing in another process. Give it a sorted list: step.each(name, sorted(items))."
        )
    if hasattr(items, "itertuples") and hasattr(items, "iloc") and hasattr(items, "columns"):
        raise TypeError(
            f"step.each({name!r}) was given a DataFrame, whose iteration gives column names. "
            "Loop over its rows: step.each(name, frame.itertuples(), total=len(frame))."
        )
    if not isinstance(items, (Iterable, AsyncIterable)) and not _is_array(items):
        raise TypeError(f"step.each({name!r}) was given a {type(items).__name__}, expected something to iterate over.")


def _is_array(items: Any) -> bool:
    """Whether it is a sequence in all but name, such as a NumPy array or a data set of torch."""
    labelled = isinstance(items, Mapping) or hasattr(items, "iloc")
    return hasattr(items, "__getitem__") and hasattr(items, "__len__") and not labelled


def _length(items: Any) -> int | None:
    return len(items) if isinstance(items, Sized) else None


def _source(run: continuation.Continuation, items: Iterable[T], step: Step) -> Iterable[T]:
    """Give the step its cursor, and return the items that are left to do."""
    if isinstance(items, Sequence) or _is_array(items):
        sequence = cast("Sequence[T]", items)
        left = _left(run, sequence, step)
        if isinstance(items, _INDEXED):
            step.cursor_of = _IndexCursor(sequence)
            return left
    else:
        left = _skip(run, items, step)
    # Another thread asks for cursors, and code of the user's must not be called there: the last items are kept.
    step.cursor_of = counted = _CountCursor(step)
    return counted.through(left)


def _left(run: continuation.Continuation, items: Sequence[T], step: Step) -> Iterable[T]:
    """Return the items from the step's index on, where the last done one is still what it was."""
    done = step.done
    if done:
        if len(items) < done:
            _check_length(run, step, len(items))
            return ()
        _check_fingerprint(run, step, items[done - 1])
    return _from(items, done)


def _from(items: Sequence[T], done: int) -> Iterable[T]:
    if not done and isinstance(items, Iterable):
        return items
    if isinstance(items, _INDEXED):
        return islice(items, done, None)
    return (items[index] for index in range(done, len(items)))


def _skip(run: continuation.Continuation, items: Iterable[T], step: Step) -> Iterator[T]:
    """Return the items that follow those done before."""
    source = iter(items)
    last: T | None = None
    for skipped in range(step.done):
        try:
            last = next(source)
        except StopIteration:
            _check_length(run, step, skipped)
            return source
    _check_fingerprint(run, step, last)
    return source


def _fingerprint(item: Any) -> str | None:
    """Return an item's fingerprint. None for what has a dict or a list in it too: the body may have changed it."""
    try:
        hash(item)
    except TypeError:
        return None
    return codec.fingerprint(item)


def _check_fingerprint(run: continuation.Continuation, step: Step, item: Any) -> None:
    expected = step.stored.fingerprint
    if expected is not None and _fingerprint(item) != expected and not run.accepted:
        run.changed(
            f"The items of step '{step.name}' have changed: item {step.done:,}, the last one done, is another now. "
            "Going on would skip items or repeat them.",
            stored=f"{step.name}: {step.done:,} done, the last one with fingerprint {expected}",
            found=f"{step.name}: item {step.done:,} is {codec.preview(item, 80)}",
        )


def _check_length(run: continuation.Continuation, step: Step, length: int) -> None:
    if run.accepted:
        return
    run.changed(
        f"The items of step '{step.name}' have changed: {step.done:,} were done, and now there are only {length:,}.",
        stored=f"{step.name}: {step.done:,} done",
        found=f"{step.name}: {length:,} items",
    )
