"""``async for`` over ``step.each``: the same loops, whose commits are awaited beside the event loop.

They are asynchronous generators, which cost less an item than a class with an asynchronous ``__anext__``. Such a
generator is not closed in the moment in which its loop is left, so a weak reference to it tells that.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from . import resuming
from .inputs import has_async_form
from .marks import amarked
from .places import Marked, Passed
from .steps import COUNT

if TYPE_CHECKING:
    from .continuation import Continuation
    from .marks import Loop


def async_loop(run: Continuation, loop: Loop) -> AsyncIterator[Any]:
    """Return the items of a loop in a run, for an ``async for``."""
    if not loop.is_plain or loop.every is not None:
        form = _over_marked
    else:
        form = _over_async if has_async_form(loop.items) else _over_plain
    left = _Left(run)
    iterator = form(run, loop, left)
    left.when_gone(iterator)
    return iterator


class _Left:
    """Tells the run that its loop was left, as soon as nobody asks for items any more."""

    def __init__(self, run: Continuation) -> None:
        self._run = run
        self.step: Any = None  # the loop's, once it has begun
        self._reference: Any = None

    def when_gone(self, iterator: AsyncIterator[Any]) -> None:
        """Watch the loop's iterator."""
        self._reference = weakref.ref(iterator, self._leave)

    def _leave(self, reference: Any) -> None:
        if self.step is not None:
            self._run.leave_loop(self.step)


async def _over_async(run: Continuation, loop: Loop, left: _Left) -> AsyncIterator[Any]:
    left.step = step = await run.abegin_loop(loop.name, loop.total, COUNT, left)
    if step is None:
        return
    source = loop.items.__aiter__()
    await resuming.askipped(run, source, step)
    done = step.done
    step.place = place = Passed(step)
    async for item in source:
        yield item
        done += 1
        step.done = done
        place.last = item
        place.at = done
        if done >= step.due and step.is_due(done):
            await run.areach(step)
    await run.aend()


async def _over_plain(run: Continuation, loop: Loop, left: _Left) -> AsyncIterator[Any]:
    left.step = step = await run.abegin_loop(loop.name, loop.total, COUNT, left)
    if step is None:
        return
    source, done = resuming.left(run, loop.items, step), step.done
    step.place = place = Passed(step)
    for item in source:
        yield item
        done += 1
        step.done = done
        place.last = item
        place.at = done
        if done >= step.due and step.is_due(done):
            await run.areach(step)
    await run.aend()


async def _over_marked(run: Continuation, loop: Loop, left: _Left) -> AsyncIterator[Any]:
    """Loop over items whose marks matter, over batches, and over anything with ``every=``."""
    kind, every, given = loop.kind, loop.every or 0, 0
    left.step = step = await run.abegin_loop(loop.name, loop.total, kind, left)
    if step is None:
        return
    counted, known = Passed(step), Marked(step, kind)
    step.place, counts = (counted, True) if kind == COUNT else (known, False)
    async for mark, size, item in amarked(loop, run, step):
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
        given += 1
        if (every and not given % every) or (step.done >= step.due and step.is_due(step.done)):
            await run.areach(step)
    await run.aend()
