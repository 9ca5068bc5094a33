"""What a worker does all the time beside its runs: it renews their leases, gives its sign, and listens for wake-ups.

Each has a connection of its own: a slow command elsewhere must not cost a lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

import msgspec

from . import keys
from .attempts import Attempts
from .backoff import Backoff
from .connection import AsyncClient, PubSub, TimeoutError, translated
from .fleet import About
from .leases import Held, Leases
from .redis_connections import is_old
from .settings import NbJobs

logger = logging.getLogger("nbjobs.worker")

_DAY_MS = 86_400_000
_AT_ONCE = 200
_LISTEN = 2.0  # s of silence after which a wake-up's connection is asked for a sign, and given up
_PAUSE = 0.5


class Renewal:
    """Renews the leases of all runs that a worker holds, and its own sign of life.

    Args:
        leases: on a connection of its own, with a short timeout.
        attempts: what the worker holds; hears what the answers ask for.
        settings: `renew`.
        queue: whose worker this is.
    """

    def __init__(self, leases: Leases, attempts: Attempts, settings: NbJobs, *, queue: str) -> None:
        self._leases = leases
        self._attempts = attempts
        self._settings = settings
        self._key = keys.workers(queue)
        self._since = 0

    async def run(self) -> None:
        """Renews until cancelled; tries again soon whatever Redis answers."""
        loop = asyncio.get_running_loop()
        backoff, due = Backoff(logger, longest=min(self._settings.renew, _PAUSE)), loop.time()
        while True:
            with backoff:
                if loop.time() < due:
                    await self.renew(self._attempts.woken())
                else:
                    await self.renew()  # first: a full Redis refuses the sign, but no renewal
                    await self.sign()
                    due = loop.time() + self._settings.renew
            if backoff.pause:
                due = loop.time() + backoff.pause
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._attempts.news.wait(), due - loop.time())

    async def renew(self, some: Sequence[Held] | None = None) -> None:
        """Renews once and heeds the answers.

        Args:
            some: only these; by default all that are held.
        """
        owners = [one.owner for one in some] if some is not None else list(self._attempts.held)
        for start in range(0, len(owners), _AT_ONCE):
            held = [
                self._attempts.held[owner].held
                for owner in owners[start : start + _AT_ONCE]
                if owner in self._attempts.held
            ]
            calls = [self._leases.store(one.keys).calls.renew(one.run, one.owner) for one in held]
            for one, reply in zip(held, await self._leases.send_all(calls), strict=True):
                self._attempts.heed(one.owner, reply)

    async def sign(self) -> None:
        """Says that this worker lives, and that Redis is prepared; a card shows when nobody does."""
        await self._leases.prepare()
        now = await self._leases.tell_time()
        with translated(self._leases.client):
            self._since = self._since or now
            about = msgspec.json.encode(About.of(self._settings, self._since))
            pipe = self._leases.client.pipeline(transaction=False)
            pipe.set(keys.worker(self._attempts.worker), about, px=round(3000 * self._settings.lease))
            pipe.zadd(self._key, {self._attempts.worker: now})
            pipe.zremrangebyscore(self._key, "-inf", now - _DAY_MS)
            pipe.pexpire(self._key, 2 * _DAY_MS)
            await pipe.execute()

    async def sign_off(self) -> None:
        """Says that this worker is gone."""
        with translated(self._leases.client):
            await self._leases.client.zrem(self._key, self._attempts.worker)
            await self._leases.client.delete(keys.worker(self._attempts.worker))


class Listener:
    """Hears which attempt has just been queued.

    Args:
        client: on a connection of its own.
        queue: whose wake-ups.
        on_wake: gets arq's id of the attempt; an empty text after each (new) connection: something may have
            been missed.
    """

    def __init__(self, client: AsyncClient, queue: str, on_wake: Callable[[str], None]) -> None:
        self._client = client
        self._channel = keys.wake(queue)
        self._on_wake = on_wake

    async def run(self) -> None:
        """Listens until cancelled."""
        backoff = Backoff(logger)
        while True:
            with backoff, translated(self._client):
                async with self._client.pubsub() as heard:
                    await heard.subscribe(self._channel)
                    while not is_old(heard.connection):
                        await self._hear(heard)
                        backoff.over()
            await asyncio.sleep(backoff.pause)

    async def _hear(self, heard: PubSub) -> None:
        """Passes on what is heard next; where that is nothing, asks for a sign: a dead connection is silent too."""
        message = await heard.get_message(timeout=_LISTEN)
        if message is None:
            await heard.ping()
            message = await heard.get_message(timeout=_LISTEN)
        if message is None:
            raise TimeoutError(f"no sign for {2 * _LISTEN:g} s")
        if message["type"] in ("subscribe", "message"):  # the first one also where redis-py has connected anew
            self._on_wake(str(message["data"]) if message["type"] == "message" else "")
