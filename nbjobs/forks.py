"""Locks that no fork finds held.

A fork has one thread, and a copy of each lock as it was: one that another thread held is never released there. What
the lock protects may be half changed in the copy, which is of no use to it anyway: the run is not its to write.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, TypeVar

L = TypeVar("L")

_made: weakref.WeakSet[Any] = weakref.WeakSet()


def lock() -> threading.Lock:
    """Return a lock that a fork finds free."""
    return _noted(threading.Lock())


def rlock() -> threading.RLock:
    """Return a lock that its thread may take again, and that a fork finds free."""
    return _noted(threading.RLock())


def _noted(made: L) -> L:
    _made.add(made)
    return made


def _free() -> None:
    for made in list(_made):
        made._at_fork_reinit()  # as `logging` and `threading` do with theirs


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free)
