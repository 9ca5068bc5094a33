"""Loops with a cursor: ``step.each``.

An item is done when the loop asks for the next one. Between two items the loop writes one number and compares it with
another, so that it costs less than a progress bar does. Where it has come so far it reads the clock, and where it is
time it commits what has moved before it goes on; another thread looks as well, see :class:`~nbjobs.steps.Step`.

Leaving a loop early (``break``, ``return``, an error that the body catches) and going on ends its step. An iterator
cannot tell these from an error that leaves the job, so closing it decides nothing: what the body does next does.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import continuation, resuming
from .asyncloops import async_loop
from .errors import ContinuationError
from .inputs import INDEXED, is_asynchronous, length, refuse
from .marks import Loop, amarked, marked
from .places import Counted, Indexed, Marked, Passed
from .steps import COUNT, Cursor, Nowhere, Step, plain

if TYPE_CHECKING:
    from types import FrameType

    from .continuation import Continuation

T = TypeVar("T")

_POOLS = ("concurrent.futures", "multiprocessing", "joblib")


class Each(Generic[T]):
    """The items of one step, in a ``for`` or an ``async for``; see ``step.each``."""

    def __init__(
        self,
        name: str,
        items: Any,
        *,
        total: int | None = None,
        every: int | None = None,
        key: Callable[[Any], Any] | None = None,
        batch: int | None = None,
    ) -> None:
        refuse(items, f"step.each({name!r})")
        self._loop = Loop(name, items, total if total is not None else length(items), every, key, batch)
        self._loop.check()
        self._run = continuation.current()
        self._thread = threading.get_ident()

    def __iter__(self) -> Iterator[T]:
        loop = self._loop
        if is_asynchronous(loop.items):
            raise TypeError(f"The items of step.each({loop.name!r}) are asynchronous: use `async for`.")
        if self._run is None:
            return self._iterate_plainly()
        if loop.is_plain and (loop.every is None or isinstance(loop.items, INDEXED)):
            return self._iterate(self._run)
        return self._iterate_marked(self._run)

    def __aiter__(self) -> AsyncIterator[T]:
        if self._run is None:
            return self._aiterate_plainly()
        self._refuse_thread()
        return async_loop(self._run, self._loop)

    # -- in a run ------------------------------------------------------------------------------------------------

    def _iterate(self, run: Continuation) -> Iterator[T]:
        self._refuse_pool(sys._getframe(1))
        name, items, total, every, *_ = self._loop
        # The caller's frame is kept in no variable here: it would live as long as this generator, with its locals.
        step = run.begin_loop(name, total, COUNT, sys._getframe(1))
        if step is None:
            return
        # The loops that have to be fast: written out, as a call or a `yield from` costs as much again.
        try:
            source, done = resuming.left(run, items, step), step.done
            if not isinstance(items, INDEXED):
                step.place = place = Passed(step)
                for item in source:
                    yield item
                    step.done = done = done + 1
                    place.last = item
                    place.at = done
                    if done >= step.due and step.is_due(done):
                        run.reach(step)
            elif every is None:
                step.place = Indexed(items)
                for item in source:
                    yield item
                    step.done = done = done + 1
                    if done >= step.due and step.is_due(done):
                        run.reach(step)
            else:
                step.place = Indexed(items)
                for item in source:
                    yield item
                    step.done = done = done + 1
                    if not done % every or (done >= step.due and step.is_due(done)):
                        run.reach(step)
        finally:
            run.leave_loop(step)
        run.end()

    def _iterate_marked(self, run: Continuation) -> Iterator[T]:
        """Loop over items whose marks matter, or over batches of them."""
        self._refuse_pool(sys._getframe(1))
        loop, kind = self._loop, self._loop.kind
        step = run.begin_loop(loop.name, loop.total, kind, sys._getframe(1))
        if step is None:
            return
        try:
            source, every = marked(loop, run, step), loop.every or 0
            counted, known = Passed(step), Marked(step, kind)
            step.place, counts = (counted, True) if kind == COUNT else (known, False)
            for given, (mark, size, item) in enumerate(source, 1):
                if not counts:
                    step.item = mark
                yield item
                if counts:
                    step.done += size
                    counted.last = mark
                    counted.at = step.done
                else:
                    known.hand = (step.done + size, mark)
                    step.done += size
                if (every and not given % every) or (step.done >= step.due and step.is_due(step.done)):
                    run.reach(step)
        finally:
            run.leave_loop(step)
        run.end()

    def _refuse_pool(self, frame: FrameType) -> None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(_POOLS):
            self._refuse_who(module)
        self._refuse_thread()

    def _refuse_thread(self) -> None:
        if threading.get_ident() != self._thread:
            self._refuse_who("another thread")

    def _refuse_who(self, who: str) -> None:
        raise ContinuationError(
            f"step.each({self._loop.name!r}) was asked for its items by {who}. A pool draws all items before any work "
            "is done, so the cursor would run ahead of the work. Give the work to step.map(name, fn, items), or loop "
            "over step.each in the body and give each item to the pool there."
        )

    # -- outside a run -------------------------------------------------------------------------------------------

    def _iterate_plainly(self) -> Iterator[T]:
        step, before = self._plain_step(), plain.get()
        plain.set(step)
        try:
            for mark, size, item in marked(self._loop, Nowhere(), step):
                step.item = mark if self._loop.kind != COUNT else None
                yield item
                step.done += size
        finally:
            plain.set(before)

    async def _aiterate_plainly(self) -> AsyncIterator[T]:
        step, before = self._plain_step(), plain.get()
        plain.set(step)
        try:
            async for mark, size, item in amarked(self._loop, Nowhere(), step):
                step.item = mark if self._loop.kind != COUNT else None
                yield item
                step.done += size
        finally:
            plain.set(before)

    def _plain_step(self) -> Step:
        step = Step(self._loop.name, Nowhere(), start=Cursor(None), total=self._loop.total)
        step.place = Counted()
        return step
