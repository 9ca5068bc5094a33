"""The end of asyncio's tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN = 0.1


async def end_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancels tasks until all have ended, whatever comes of them.

    Once is not enough: before Python 3.12 `asyncio.wait_for` forgets a cancel that comes at the very moment at which
    what it waits for is done (python/cpython#86296), and a loop around it goes on.

    Example:
        >>> async def ended():
        ...     task = asyncio.ensure_future(asyncio.sleep(60))
        ...     await end_all([task])
        ...     return task.cancelled()
        >>> asyncio.run(ended())
        True
    """
    ending = set(tasks)
    pending = {task for task in ending if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN)
    await asyncio.gather(*ending, return_exceptions=True)  # so that no error of theirs is said to be forgotten
