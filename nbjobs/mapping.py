"""``step.map``: a function over many items at once.

Any item may end before the ones in front of it. So the cursor is the *low-water mark*, the number of items in front
all of which are done, and the results of all that are done are kept beside the run, each written in one piece with
the commit that counts it. An attempt that goes on does those again that are not there: the ones that were in flight.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from . import continuation
from .errors import ContinuationError
from .inputs import iterated, length
from .mapped import Work
from .mapworkers import Mapping
from .progress import Saved
from .steps import MAP, Item, Nowhere, in_item

if TYPE_CHECKING:
    from .continuation import Continuation

__all__ = ["Mapping", "amap_in", "map_in", "map_plainly"]


def map_plainly(mapping: Mapping) -> list[Any]:
    """Do it one by one, as outside a run."""
    results = []
    for index, value in enumerate(iterated(mapping.items)):
        token = in_item.set(Item(mapping.name, Nowhere(), index, length(mapping.items)))
        try:
            results.append(mapping.fn(value))
        finally:
            in_item.reset(token)
    return results


def map_in(run: Continuation, mapping: Mapping, stop: threading.Event | None = None) -> list[Any]:
    """Do it as a step of the run; return the results in order. ``stop`` ends it as a cancelled task ends."""
    if in_item.get() is not None:
        raise ContinuationError(
            f"step.map({mapping.name!r}) was called inside an item of another step.map. Call the function plainly "
            "there, or flatten the items into one map."
        )
    found = run.begin(mapping.name, total=length(mapping.items), kind=MAP)
    if isinstance(found, Saved):
        values: list[Any] = continuation.value_of(found)
        return values
    work = None
    try:
        work = Work(run, mapping, found, stop or threading.Event())
        values = work.do()
    except BaseException as error:
        run.fail(error, item=work.failed if work is not None else None)
        raise
    run.write_results()
    run.end(values, work.as_value(values))
    return values


async def amap_in(run: Continuation | None, mapping: Mapping) -> list[Any]:
    """Do it in a thread, for an async body. A task that is cancelled waits for the items in flight."""
    if run is None:
        return await asyncio.to_thread(map_plainly, mapping)
    stop = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(map_in, run, mapping, stop))
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done():
                raise
            stop.set()
