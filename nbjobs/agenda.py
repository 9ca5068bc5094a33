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
        self._wanted: dict[str, None] = {}  # who is to be asked whatever is known, new signs first
        self._fresh: list[str] = []
        self._round: list[str] = []

    @property
    def users(self) -> list[str]:
        """All users there are."""
        return list(self._signs)

    def signed(self, signs: Iterable[tuple[str, float]]) -> None:
        """Take note of all users and their last signs; a sign that is new is what counts, not its time."""
        found = dict(signs)
        for u in self._signs.keys() - found.keys():
            self._next.pop(u, None)
            self._wanted.pop(u, None)
        # A sign goes before what it announces, and is asked about twice: the first time may be too early.
        again, self._fresh = self._fresh, [u for u, score in found.items() if self._signs.get(u) != score]
        self._wanted = dict.fromkeys([*self._fresh, *(u for u in again if u in found), *self._wanted])
        self._signs = found

    def sweep(self, now: float, seconds: float) -> None:
        """Have those asked of whom something is due soon, and the share of the others for so many seconds."""
        self._wanted.update((u, None) for u, next in self._next.items() if next <= now + SOON)
        self._round = [u for u in self._round if u in self._signs] or self.users
        count = ceil(len(self._signs) * seconds / _ROUND)
        self._wanted.update((u, None) for u in self._round[:count])
        del self._round[:count]

    def turn(self, now: float) -> list[str]:
        """Return who is to be asked now; those first of whom something is known to be due."""
        due = (u for u, next in self._next.items() if next <= now)
        return list(dict.fromkeys([*due, *self._wanted]))

    def knows(self, u: str) -> bool:
        """Whether the user was asked before."""
        return u in self._next

    def learn(self, u: str, next: float) -> None:
        """Take note of when a user's next run is due, who was asked just now."""
        self._wanted.pop(u, None)
        self._next.pop(u, None)  # to the end: who had a turn comes after those who did not
        self._next[u] = next

    def first(self) -> float:
        """Return when somebody is to be asked next."""
        return 0.0 if self._wanted else min(self._next.values(), default=float("inf"))
