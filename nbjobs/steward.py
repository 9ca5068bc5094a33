"""The daemon's dealings with its Redis: who needs it, what is unfinished, what a dead worker held."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, cast

from . import keys
from .connection import FAILURES, async_client, translated
from .keys import Keys
from .leases import Leases, process_of
from .settings import NbJobs

logger = logging.getLogger("nbjobs.daemon")

OWN_CLIENTS = ("nbjobs-daemon", "nbjobs-worker", "nbjobs-child")
"""How the names of connections begin that are no sign of a client."""

_PATIENCE = 5.0
_REMEMBERED = 30 * 86_400  # seconds after the last start of a worker


class Steward:
    """Speaks to the private Redis for the daemon."""

    def __init__(self, settings: NbJobs, url: str) -> None:
        self._client = async_client(url, name="nbjobs-daemon")
        self._leases = Leases(self._client, settings)

    async def prepare(self) -> None:
        """Loads the scripts; Redis forgets them when it ends."""
        await self._leases.store(Keys.of("nobody")).load()

    async def close(self) -> None:
        """Disconnects."""
        await self._client.aclose()

    async def give_back(self, pid: int, code: int) -> None:
        """Gives back what a worker held that has ended with this code; no lease is waited for."""
        fate = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
        until = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            try:
                await self._leases.lapse_held_by(
                    lambda owner: process_of(owner) == pid, f"worker process {pid} ended with {fate}"
                )
                return
            except FAILURES as error:
                if asyncio.get_running_loop().time() > until:
                    logger.warning("what worker %d held is left to the sweeper: %s", pid, error)
                    return
                await asyncio.sleep(0.05)

    async def give_back_left_over(self) -> None:
        """Gives back what workers of an earlier daemon held; they ended with it."""

        def ended(owner: str) -> bool:
            pid = process_of(owner)
            return pid is not None and not _lives(pid)

        await self._leases.lapse_held_by(ended, "its worker ended together with the nbjobs daemon")

    async def remember(self, queue: str, environment: dict[str, Any]) -> None:
        """Keeps the environment of a queue for the next daemon."""
        with translated(self._client):
            await cast("Awaitable[int]", self._client.hset(keys.ENVIRONMENTS, queue, json.dumps(environment)))
            await self._client.expire(keys.ENVIRONMENTS, _REMEMBERED)

    async def waiting(self) -> dict[str, dict[str, Any]]:
        """Returns, by queue, the known environments that an unfinished run waits for."""
        with translated(self._client):
            known = await cast("Awaitable[dict[str, str]]", self._client.hgetall(keys.ENVIRONMENTS))
        if not known:
            return {}
        queues = {held.queue for held in await self._leases.unfinished()}
        return {queue: json.loads(text) for queue, text in known.items() if queue in queues}

    async def signed(self, queue: str, pid: int) -> None:
        """Waits until the worker with this process has given its sign: from then on it takes runs."""
        while True:
            if await self.has_signed(queue, pid):
                return
            await asyncio.sleep(0.01)

    async def has_signed(self, queue: str, pid: int) -> bool:
        """Return whether the worker with this process has given its sign, though it may have died since."""
        with suppress(*FAILURES), translated(self._client):
            return any(process_of(worker) == pid for worker in await self._client.zrange(keys.workers(queue), 0, -1))
        return False

    async def busy(self, own: tuple[str, ...]) -> bool:
        """Tells whether a client is connected or a run is unfinished. Paused runs wait for a client anyway."""
        with translated(self._client):
            for connection in await self._client.client_list():
                if not str(connection.get("name", "")).startswith(own):
                    return True
            for user in await self._leases.users():
                if await self._client.exists(user.due):
                    return True
        return False

    async def unfinished(self) -> dict[str, int]:
        """Returns how many runs are in each state that is no end."""
        runs = await self._leases.unfinished()
        found = await self._leases.read([(held.keys, held.run) for held in runs]) if runs else []
        return dict(Counter(fields["state"] or "lost" for fields in found))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
