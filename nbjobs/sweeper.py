"""Sweeps up what nobody else has noticed: leases that ended, waits that are over, runs without an entry.

One worker of all that share a Redis sweeps, as long as it lives: it keeps a lock for a little longer than the time
between two sweeps. It looks at the next time that any run named for it, and asks once in each `sweep` whether that
is still the next. Who of many users is asked then, `agenda` knows.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence

from .agenda import Agenda
from .backoff import Backoff
from .connection import translated
from .keys import SWEEPER, USERS, Keys
from .leases import Leases, chunks
from .settings import NbJobs
from .tidying import Tidying, is_of_one_user

logger = logging.getLogger("nbjobs.sweeper")

_HOUR = 3_600_000
_SHORTEST = 0.02
_SHARE = 200  # runs of a user that are looked at in one go
_AT_ONCE = 1000
_ASKED = 500  # users in one go
_MOST = 100_000

Due = dict[str, list[str]]


class Sweeper:
    """Looks at `due` of all users.

    Args:
        leases: does what is to be done about a run.
        settings: `lease`, `sweep` and `keep`.
        name: of the worker whose sweeper this is.
        holds: whether an owner is an attempt of this worker.
    """

    def __init__(
        self, leases: Leases, settings: NbJobs, *, name: str = "", holds: Callable[[str], bool] = lambda owner: False
    ) -> None:
        self._leases = leases
        self._client = leases.client
        self._settings = settings
        self._name = name or secrets.token_hex(8)
        self._holds = holds
        self._agenda = Agenda()
        self._tidying = Tidying(self._client, settings.keep)
        self._swept = -float("inf")
        self._jumps = -1
        self._ahead: deque[tuple[Keys, str]] = deque()  # runs whose time may lie too far ahead

    async def run(self) -> None:
        """Sweeps until cancelled; whatever Redis answers is waited out."""
        backoff, wait = Backoff(logger, longest=self._settings.sweep), 0.0
        while True:
            with backoff:
                wait = await self.look()
            await asyncio.sleep(min(backoff.pause or wait, self._settings.sweep))

    async def look(self) -> float:
        """Does what is due; returns the seconds until something else may be."""
        if others := await self._others_sweep():
            return others
        due = await self._ask(await self._whose_turn())
        found = [(Keys.of(u), run) for u, runs in due.items() for run in runs][:_AT_ONCE]
        ahead = [self._ahead.popleft() for _ in range(min(_SHARE, len(self._ahead)))]
        for part in chunks(found + ahead):
            await self._leases.look(part, self._holds)
        seen: Due = {}
        for keys, run in found:
            seen.setdefault(keys.u, []).append(run)
        await self._ask(list(seen), seen)
        return self._wait()

    async def leave(self) -> None:
        """Lets another one sweep at once."""
        with translated(self._client):
            if await self._client.get(SWEEPER) == self._name:
                await self._client.delete(SWEEPER)

    async def _others_sweep(self) -> float:
        """Returns in how many seconds to ask again where another worker has the lock; 0 where it is ours."""
        # Longer than a sweep, and so that a dead worker's lock ends before its leases do plus a sweep.
        ms = round((self._settings.sweep + min(self._settings.sweep, self._settings.lease) / 2) * 1000)
        with translated(self._client):
            pipe = self._client.pipeline(transaction=False)
            pipe.set(SWEEPER, self._name, nx=True, px=ms)
            pipe.get(SWEEPER)
            pipe.pttl(SWEEPER)
            _, name, left = await pipe.execute()
            if name == self._name or not 0 <= left <= 2 * ms:  # a time that no lock has: the clock was set back
                await self._client.pexpire(SWEEPER, ms)
        if name == self._name:
            await self._leases.tell_time()
            return 0.0
        self._know_nothing(-1)
        return max(_SHORTEST, min(int(left), ms) / 1000)

    def _know_nothing(self, jumps: int) -> None:
        """Has everybody asked anew in the next look of ours."""
        self._agenda, self._swept, self._jumps = Agenda(), -float("inf"), jumps
        self._ahead.clear()

    async def _whose_turn(self) -> list[str]:
        """Returns the users to be asked now."""
        clock = self._leases.clock
        if clock.settled and clock.jumps != self._jumps:
            self._know_nothing(clock.jumps)
        began = time.monotonic()
        if (seconds := began - self._swept) >= self._settings.sweep:
            with translated(self._client):
                self._agenda.signed(await self._client.zrange(USERS, 0, -1, withscores=True))
            self._agenda.sweep(clock.now(), min(seconds, 2 * self._settings.sweep))
            await self._tidying.some(self._agenda.users, clock.now())
            self._swept = began
        return self._agenda.turn(clock.now())[:_ASKED]

    async def _ask(self, users: Sequence[str], seen: Due | None = None) -> Due:
        """Asks users what is due, takes note of when the next run is, and returns the runs that are, by user.

        Args:
            users: those to be asked.
            seen: what was looked at just now: what is due all the same waits for the next sweep.
        """
        if not users:
            return {}
        with translated(self._client):
            pipe = self._client.pipeline(transaction=False)
            for u in users:
                pipe.zrange(Keys.of(u).due, 0, _SHARE, withscores=True)
            answers = await pipe.execute(raise_on_error=False)
        found: Due = {}
        for u, answer in zip(users, answers, strict=True):
            if isinstance(answer, Exception):
                self._put_off(u, answer)
            elif runs := await self._read(u, answer, (seen or {}).get(u, [])):
                found[u] = runs
        return found

    async def _read(self, u: str, due: list[tuple[str, float]], seen: list[str]) -> list[str]:
        """Takes note of a user's first runs; returns those that are due."""
        now, far = self._leases.clock.now(), round(2 * self._settings.lease * 1000)
        if due and self._jumps >= 0 and not self._agenda.knows(u) and (len(due) > _SHARE or due[-1][1] > now + far):
            with translated(self._client):
                ahead = await self._client.zrangebyscore(Keys.of(u).due, now + far, "+inf", start=0, num=_MOST)
            self._ahead.extend((Keys.of(u), run) for run in ahead)
        first = due[0][1] if due else float("inf")
        if first <= now and due[0][0] in seen:
            first = now + self._settings.sweep * 1000
        self._agenda.learn(u, first)
        return [run for run, score in due if score <= now]

    def _put_off(self, u: str, error: Exception) -> None:
        """Leaves a user for a while whose key cannot be read; what concerns all users is raised."""
        if not is_of_one_user(error):
            with translated(self._client):
                raise error
        logger.warning("the runs of user %s are not looked at: %s", u, error)
        self._agenda.learn(u, self._leases.clock.now() + _HOUR)

    def _wait(self) -> float:
        """Returns the seconds until somebody has to be asked."""
        if self._ahead:
            return _SHORTEST
        first = (self._agenda.first() - self._leases.clock.now()) / 1000 + 0.002
        return max(_SHORTEST, min(first, self._swept + self._settings.sweep - time.monotonic()))
