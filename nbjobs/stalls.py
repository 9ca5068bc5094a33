"""Notices an async child whose event loop does not turn, because a body blocks it."""

from __future__ import annotations

import asyncio
import logging
import signal
import time

from .childhandle import ChildHandle, Owner

_LATE = 1.0

logger = logging.getLogger("nbjobs.pool")


class StallWatch:
    """Looks after the async children; each of them beats once a second while its loop turns.

    Args:
        owner: passes requests to the nursery.
        warning: seconds of silence until the child prints its stack.
        limit: seconds of silence until a shared child is ended.
    """

    def __init__(self, owner: Owner, *, warning: float, limit: float) -> None:
        self._owner = owner
        self._warning = warning
        self._limit = limit
        self._interval = min(1.0, warning / 4, limit / 4)
        self._children: set[ChildHandle] = set()
        self._warned: set[ChildHandle] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def watch(self, child: ChildHandle) -> None:
        """Looks after a child until it is gone."""
        self._children.add(child)
        if self._timer is None:
            self._look_again()

    def close(self) -> None:
        """Looks no more."""
        self._children.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self) -> None:
        self._due = time.monotonic() + self._interval
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        self._children = {child for child in self._children if not child.gone}
        self._warned &= self._children
        for child in self._children:
            if now - self._due > _LATE or not child.runs:
                # Stopped and continued, perhaps the children with us; or nothing to be silent about.
                child.heard = now
            self._judge(child, now - child.heard)
        if self._children:
            self._look_again()

    def _judge(self, child: ChildHandle, silence: float) -> None:
        if silence < self._warning:
            self._warned.discard(child)
            return
        if child not in self._warned:
            self._warned.add(child)
            logger.warning(
                "the event loop of child %d has been blocked for %.0f s by one of %d async bodies; "
                "its stack is in their output. Blocking calls belong into asyncio.to_thread or a sync job",
                child.pid,
                silence,
                len(child.runs),
            )
            self._owner.request({"op": "signal", "pid": child.pid, "number": int(signal.SIGUSR1)})
        if silence >= self._limit and child.shared:
            child.kill("stalled")
