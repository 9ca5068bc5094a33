"""Calls that wait for Redis, beside an event loop instead of in it.

An async job commits in a thread of these, so that its loop turns while Redis is away. They are no executor of
`asyncio`'s: those threads may be taken by the body's own calls, and the process would wait for them at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

THREADS = 4  # all wait for the same Redis
NAME = "nbjobs-commit"

_Call = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Hands:
    """A few threads, made when they are needed, that die with the process."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._made = 0

    def take(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Make the call in one of the threads; its outcome comes to the loop that runs here."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._made < THREADS:
                self._made += 1
                threading.Thread(target=self._work, name=NAME, daemon=True).start()
        self._calls.put((call, loop, future))
        return future

    def _work(self) -> None:
        while True:
            call, loop, future = self._calls.get()
            try:
                tell = partial(_tell, future, call(), None)
            except BaseException as error:
                tell = partial(_tell, future, None, error)
            with self._lock:
                self._idle += 1
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(tell)
            del call, loop, future, tell  # a thread that waits keeps nothing of a body


def _tell(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return  # nobody waits for it any more
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


_hands = Hands()
os.register_at_fork(after_in_child=_hands._reset) if hasattr(os, "register_at_fork") else None


async def beside(call: Callable[[], T]) -> T:
    """Return what ``call`` returns, made in another thread with this context, while the loop turns.

    A task that is cancelled meanwhile goes on at once; the call is made to its end all the same.
    """
    return await _hands.take(partial(contextvars.copy_context().run, call))


async def beside_to_the_end(call: Callable[[], T]) -> T:
    """Do as :func:`beside`, and wait for the call's end however often the task is cancelled."""
    future = _hands.take(partial(contextvars.copy_context().run, call))
    while True:
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.done():
                return future.result()
