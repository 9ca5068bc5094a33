"""Which users a sweeper has to ask for what is due.

A user is asked when the next time has come that is known of the user, in each sweep while something is due soon, and
whenever somebody has enqueued for the user. All others are idle and asked in turn, once a minute: a sign may be lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

SOON = 600_000
"""Ms within which each run is looked at that does not wait for a time of its own: later on, no run of a user begins."""

_ROUND = 60.0  # seconds in which each idle user is asked once


class Agenda:
    """What a sweeper knows of all users."""

    def __init__(self) -> None:
        self._signs: dict[str, float] = {}
        self._next: dict[str, float] = {}
        self._fresh: set[str] = set()
        self._asked: set[str] = set()
        self._waiting: list[str] = []

    @property
    def users(self) -> list[str]:
        """All users there are."""
        return list(self._signs)

    def signed(self, signs: Iterable[tuple[str, float]]) -> None:
        """Take note of all users and their last signs; a sign that is new is what counts, not its time."""
        found = dict(signs)
        for u in self._next.keys() - found.keys():
            del self._next[u]
            self._asked.discard(u)
        # A sign goes before what it announces, and is asked about twice: the first time may be too early.
        again = self._fresh & found.keys()
        self._fresh = {u for u, score in found.items() if self._signs.get(u) != score}
        for u in self._fresh | again:
            self._next[u] = 0.0
        self._signs = found

    def knows(self, u: str) -> bool:
        """Whether the user was asked before."""
        return u in self._asked

    def learn(self, u: str, next: float) -> None:
        """Take note of when a user's next run is due."""
        self._next.pop(u, None)  # to the end: who had a turn comes after those who did not
        self._next[u] = next
        self._asked.add(u)

    def due(self, now: float) -> list[str]:
        """Return the users of whom something is due."""
        return [u for u, next in self._next.items() if next <= now]

    def turn(self, now: float, seconds: float) -> list[str]:
        """Return the users to be asked in a sweep that comes so long after the last one."""
        self._waiting = [u for u in self._waiting if u in self._signs] or self.users
        count = ceil(len(self._signs) * seconds / _ROUND)
        idle, self._waiting = self._waiting[:count], self._waiting[count:]
        return list(dict.fromkeys([*self.due(now + SOON), *idle]))

    def first(self) -> float:
        """Return when the first run of anybody is due."""
        return min(self._next.values(), default=float("inf"))
