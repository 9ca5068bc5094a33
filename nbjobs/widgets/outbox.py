"""Hands the cards' faces on to the browser, from one thread, no faster than it can take them.

A kernel that publishes more than about a thousand messages a second loses some of them on the way, the
last one of a run among them. So each card is given ten a second at most and all cards together a hundred; in
between the latest face waits and replaces the one before it. The end of a run is said twice: at once, and
again when it has been quiet for a while.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Protocol

__all__ = ["Outbox", "Sender", "logger", "outbox"]

logger = logging.getLogger("nbjobs.widgets")
logger.addHandler(logging.NullHandler())  # without one, a warning would be printed into whatever cell runs


_REMEMBERED = 2.0  # s that the last delivery of a sender is known


class Sender(Protocol):
    """What an outbox serves."""

    def deliver(self) -> None:
        """Hand the latest on. Called from the outbox's thread, or from the one that posts an end."""


class Outbox:
    """Calls `deliver` of those that were posted, latest wins.

    Args:
        each: least time between two deliveries of one sender, in seconds.
        every: least time between two deliveries.
        quiet: how long after an end it is delivered once more.
    """

    def __init__(self, each: float = 0.1, every: float = 0.01, quiet: float = 3.0) -> None:
        self._each = each
        self._every = every
        self._quiet = quiet
        self._changed = threading.Condition()
        self._due: dict[Sender, float] = {}
        self._last: dict[Sender, float] = {}
        self._next = 0.0
        self._thread: threading.Thread | None = None

    def post(self, sender: Sender, *, each: float = 0.0) -> None:
        """Deliver soon; at once where nothing was delivered lately.

        Args:
            sender: who is asked to deliver.
            each: the least time between two of its deliveries, where that is longer than for others.
        """
        with self._changed:
            now = time.monotonic()
            due = max(now, self._last.get(sender, 0.0) + max(self._each, each))
            self._schedule(sender, min(due, self._due.get(sender, due)))

    def post_end(self, sender: Sender) -> None:
        """Deliver before this returns, and once more later: nothing else would mend it if that were lost."""
        with self._changed:
            self._due.pop(sender, None)
        _deliver(sender)
        with self._changed:
            self._schedule(sender, time.monotonic() + self._quiet)

    def _schedule(self, sender: Sender, due: float) -> None:
        self._due[sender] = due
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="nbjobs-cards", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while True:
            _deliver(self._take())

    def _take(self) -> Sender:
        """Wait for the next one whose time has come, and take it out."""
        with self._changed:
            while True:
                sender = min(self._due, key=self._due.__getitem__, default=None)
                if sender is None:
                    self._changed.wait()
                    continue
                now = time.monotonic()
                wait = max(self._due[sender], self._next) - now
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                del self._due[sender]
                self._next = now + self._every
                self._last = {one: at for one, at in self._last.items() if at > now - _REMEMBERED}
                self._last[sender] = now
                return sender


def _deliver(sender: Sender) -> None:
    try:
        sender.deliver()
    except Exception:  # a thread that is not the user's must neither end nor print
        logger.warning("A card could not be brought up to date", exc_info=True)


_outbox = Outbox()


def outbox() -> Outbox:
    """The outbox of this process."""
    return _outbox


def _forget() -> None:
    """The thread and the locks of the parent do not exist in a forked child."""
    global _outbox
    _outbox = Outbox()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
