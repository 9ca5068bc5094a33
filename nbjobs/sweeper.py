"""Sweeps up what nobody else has noticed: leases that ended, waits that are over, runs without an entry.

Every worker sweeps, one at a time: a short lock in Redis lets the others skip a look. The next look is at the next
time that any run named for it, at the latest after `sweep` seconds.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time

from .connection import translated
from .errors import RedisUnavailable
from .keys import SWEEPER, USERS, Keys
from .leases import Leases, chunks
from .settings import NbJobs

logger = logging.getLogger("nbjobs.sweeper")

_DAY = 86_400_000
_HOUR = 3600.0
_SHORTEST = 0.02
_LOCK_MS = 400
_AT_ONCE = 1000


class Sweeper:
    """Looks at `due` of all users.

    Args:
        leases: does what is to be done about a run.
        settings: `sweep` and `keep`.
    """

    def __init__(self, leases: Leases, settings: NbJobs) -> None:
        self._leases = leases
        self._client = leases.client
        self._settings = settings
        self._tidied = time.monotonic() - random.uniform(0, _HOUR)

    async def run(self) -> None:
        """Sweeps until cancelled; an unreachable Redis is waited for."""
        while True:
            try:
                wait = await self.look()
            except RedisUnavailable as error:
                logger.info("the sweeper waits: %s", error)
                wait = self._settings.sweep
            await asyncio.sleep(min(wait, self._settings.sweep))

    async def look(self) -> float:
        """Does what is due; returns the seconds until something else is."""
        with translated(self._client):
            if not await self._client.set(SWEEPER, "1", nx=True, px=_LOCK_MS):
                return _LOCK_MS / 1000
            await self._tell_time()
        users = await self._leases.users()
        due = await self._due(users)
        for part in chunks(due[:_AT_ONCE]):
            await self._leases.look(part)
        if time.monotonic() - self._tidied > _HOUR:
            self._tidied = time.monotonic()
            await self.tidy(users)
        return _SHORTEST if len(due) > _AT_ONCE else await self._wait(users)

    async def tidy(self, users: list[Keys]) -> None:
        """Forgets users of whom nothing is left to do, and runs that Redis no longer keeps."""
        now = self._leases.clock.now()
        for keys in users:
            with translated(self._client):
                if not await self._client.exists(keys.due):
                    score = await self._client.zscore(USERS, keys.u)
                    if score is not None and score < now - _DAY:
                        await self._client.zrem(USERS, keys.u)
                old = await self._client.zrangebyscore(
                    keys.runs, "-inf", now - round(self._settings.keep * 1000), start=0, num=_AT_ONCE
                )
                gone = [run for run in old if not await self._client.exists(keys.run(run))]
                if gone:
                    await self._client.zrem(keys.runs, *gone)

    async def _tell_time(self) -> None:
        seconds, micros = await self._client.time()
        self._leases.clock.heard(seconds * 1000 + micros // 1000)

    async def _due(self, users: list[Keys]) -> list[tuple[Keys, str]]:
        now = self._leases.clock.now()
        with translated(self._client):
            pipe = self._client.pipeline(transaction=False)
            for keys in users:
                pipe.zrangebyscore(keys.due, "-inf", now, start=0, num=_AT_ONCE)
            answers = await pipe.execute() if users else []
        return [(keys, run) for keys, runs in zip(users, answers, strict=True) for run in runs]

    async def _wait(self, users: list[Keys]) -> float:
        """Returns the seconds until the first run of anybody is due."""
        with translated(self._client):
            pipe = self._client.pipeline(transaction=False)
            for keys in users:
                pipe.zrange(keys.due, 0, 0, withscores=True)
            answers = await pipe.execute() if users else []
        first = min((score for found in answers for _, score in found), default=float("inf"))
        return max(_SHORTEST, (first - self._leases.clock.now()) / 1000 + 0.002)
