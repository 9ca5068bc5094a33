"""Waiting for Redis: with growing pauses, and said once.

Whoever must go on whatever Redis answers puts each try into its `Backoff`, and sleeps for its pause after one that
failed::

    while True:
        with backoff:
            await self.look()
        await asyncio.sleep(backoff.pause or self.interval)

All of a process that wait tell the log together: one line when the first of them begins, one for each further reason,
and one when the last of them goes on.
"""

from __future__ import annotations

import logging
import random
import time
from types import TracebackType
from weakref import WeakSet

from .errors import NbjobsError
from .outages import FAILURES, ResponseError
from .redis_errors import Meaning, find, text_of

__all__ = ["Backoff"]

_SHORTEST = 0.02
_PATIENCE = 60.0  # seconds that a call is repeated whose error nobody knows

_waiting: WeakSet[Backoff] = WeakSet()
_told: set[str] = set()  # since the first of them began
_since = 0.0


class Backoff:
    """The tries of one caller; an error of Redis in one of them is swallowed, and makes the pause longer.

    Args:
        logger: is told when waiting begins and when it is over.
        longest: seconds of a pause, about.
        level: of what it is told.
        insists: whether this is one call that is repeated until Redis answers it, rather than a service: what
            concerns the call itself is raised then, and what nobody knows is after a minute.

    Attributes:
        pause: seconds to wait before the next try; 0 after a try that went well.
        error: what the last try met, in words; empty after one that went well.
    """

    def __init__(
        self, logger: logging.Logger, *, longest: float = 2.0, level: int = logging.WARNING, insists: bool = False
    ) -> None:
        self.pause = 0.0
        self.error = ""
        self._logger = logger
        self._level = level
        self._longest = longest
        self._insists = insists
        self._next = _SHORTEST
        self._unknown: float | None = None  # since when nothing but unknown errors have come

    def __enter__(self) -> Backoff:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            self.over()
            return False
        if not isinstance(error, FAILURES) or (self._insists and not self._may_repeat(error)):
            _waiting.discard(self)
            return False
        self.failed(error)
        return True

    def failed(self, error: BaseException) -> None:
        """Take note of an error: the pause is longer than the last one."""
        self.error = _one_line(error)
        self.pause = min(self._next, self._longest) * (0.5 + random.random())
        self._next = min(2 * self._next, self._longest)
        self._tell(error)

    def over(self) -> None:
        """Take note that Redis answered."""
        if not self.error:
            return
        self.pause, self.error, self._next, self._unknown = 0.0, "", _SHORTEST, None
        _waiting.discard(self)
        if not _waiting:
            self._logger.log(self._level, "Redis answers again, after %.1f s", time.monotonic() - _since)

    def _tell(self, error: BaseException) -> None:
        global _since
        kind = _kind(error)
        if not _waiting:
            _since = time.monotonic()
            _told.clear()
        _waiting.add(self)
        if kind not in _told:
            _told.add(kind)
            self._logger.log(self._level, "%s. Waiting for it.", self.error)

    def _may_repeat(self, error: BaseException) -> bool:
        meaning = _meaning(error)
        if meaning is not None:
            return meaning.concerns != "call"
        if not isinstance(error, ResponseError):
            self._unknown = None
            return True
        now = time.monotonic()
        self._unknown = now if self._unknown is None else self._unknown
        return now - self._unknown < _PATIENCE


def _meaning(error: BaseException) -> Meaning | None:
    return find(error.__cause__ if isinstance(error, NbjobsError) and error.__cause__ else error)


def _kind(error: BaseException) -> str:
    """Return what makes two errors the same for the log: that Redis is away in two ways is not told twice."""
    meaning = _meaning(error)
    if meaning is not None:
        return meaning.word
    return text_of(error).partition(" ")[0] if isinstance(error, ResponseError) else "away"


def _one_line(error: BaseException) -> str:
    told = " ".join(text_of(error).split()).rstrip(".") or type(error).__name__
    return told if isinstance(error, NbjobsError) else f"Redis answers: {told}"
