"""Children come and go: one nursery at a time, started anew when it dies.

Three births in a row that fail are a `trouble`, which the worker shows while it claims nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable

from .child import Upbringing
from .childhandle import ChildHandle, Owner
from .nurseryhandle import NurseryHandle
from .running import OnOutput, PoolError
from .wire import Message

BIRTH_SECONDS = 30.0
BIRTH_TRIES = 3
RETIRE_SECONDS = 2.0
LONGEST_PAUSE = 5.0

logger = logging.getLogger("nbjobs.pool")


class Births:
    """The children of a pool, from their birth to their death.

    Args:
        upbringing: what they get along.
        owner: is told what they do.
        on_output: gets what they print.
        birth: ``fork`` or ``spawn``; default: what is safe on this platform.
        on_nursery: called when a new nursery has taken the place of one that died.

    Attributes:
        trouble: why no child can be born at present; empty where they can.
    """

    def __init__(
        self,
        upbringing: Upbringing,
        *,
        owner: Owner,
        on_output: OnOutput,
        birth: str,
        on_nursery: Callable[[], None],
    ) -> None:
        self.trouble = ""
        self._upbringing = upbringing
        self._owner = owner
        self._on_output = on_output
        self._birth = birth or ("fork" if sys.platform == "linux" else "spawn")
        self._on_nursery = on_nursery
        self._nursery: NurseryHandle | None = None
        self._nursery_up = asyncio.Event()
        self._closing = False
        self._restarts = 0
        self._born = 0
        self._failures = 0
        self._children: dict[str, ChildHandle] = {}

    @property
    def possible(self) -> bool:
        """Whether a child could be born now."""
        return not self._closing and self._nursery is not None

    @property
    def nursery_pid(self) -> int | None:
        """Process id of the nursery, None while there is none."""
        return self._nursery.pid if self._nursery is not None else None

    @property
    def serving(self) -> int:
        """How many children there are for sync bodies, those included that are being born."""
        return sum(child.kind == "sync" and not child.retiring for child in self._children.values())

    def pids(self) -> list[int]:
        """Process ids of the children."""
        return [child.pid for child in self._children.values() if child.pid]

    def start(self) -> None:
        """Starts the nursery."""
        self._nursery = NurseryHandle(
            self._upbringing, birth=self._birth, on_message=self._hear, on_end=self._on_nursery_end
        )
        self._nursery_up.set()

    def request(self, message: Message) -> None:
        """Passes a request on to the nursery."""
        if self._nursery is not None:
            self._nursery.send(message)

    async def bear(self) -> ChildHandle:
        """A new child that is up.

        Raises:
            PoolError: it could not be started; after three in a row that is the pool's `trouble`.
        """
        try:
            child = await self._bear()
        except PoolError as error:
            self._failures += not self._closing
            if self._failures >= BIRTH_TRIES and not self.trouble:
                self.trouble = str(error)
                logger.error("no process for bodies can be started: %s", error)
            raise
        self._failures = self._restarts = 0
        if self.trouble:
            logger.warning("processes for bodies can be started again")
            self.trouble = ""
        return child

    def retire(self, child: ChildHandle) -> None:
        """Lets an idle child end; makes sure that it does."""
        child.retire()
        asyncio.get_running_loop().call_later(RETIRE_SECONDS, self._make_sure, child)

    def forget(self, child: ChildHandle) -> None:
        """The child is dead."""
        self._children.pop(child.name, None)

    async def close(self) -> None:
        """Ends everything: children that can, as programs end; then the rest."""
        self._closing = True
        leaving = [child for child in self._children.values() if not child.runs]
        for child in leaving:
            child.retire()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(child.dead.wait() for child in leaving)), RETIRE_SECONDS)
        if self._nursery is not None:
            await self._nursery.close()
            self._nursery = None
        self._nursery_up.set()  # whoever waits for it finds the pool closed
        self._bury_all("closed")

    async def _bear(self) -> ChildHandle:
        try:
            await asyncio.wait_for(self._nursery_up.wait(), BIRTH_SECONDS)
        except asyncio.TimeoutError:
            raise PoolError(f"the nursery has not come up within {BIRTH_SECONDS:g} s") from None
        if self._closing or self._nursery is None:
            raise PoolError("the pool is closed")
        self._born += 1
        try:
            child = ChildHandle(f"{os.getpid()}.{id(self):x}.{self._born}", self._owner, self._on_output)
        except OSError as error:
            raise PoolError(f"no pipes for a child: {error}") from error
        self._children[child.name] = child
        self._nursery.send({"op": "fork", "name": child.name}, child.give_fds())
        try:
            await asyncio.wait_for(asyncio.shield(child.up), BIRTH_SECONDS)
        except asyncio.TimeoutError:
            child.kill("closed")
            raise PoolError(f"a new process for bodies was not up within {BIRTH_SECONDS:g} s") from None
        return child

    def _make_sure(self, child: ChildHandle) -> None:
        if not child.gone:
            child.kill("closed")

    def _hear(self, message: Message) -> None:
        op = message["op"]
        if op == "exit":
            for child in list(self._children.values()):
                if child.pid == message["pid"]:
                    child.exited(
                        message["code"],
                        message["signal"],
                        busy=message["busy"],
                        peak=message["peak"],
                        out_of=message["out_of"],
                    )
            return
        born = self._children[message["name"]]
        if op == "pid":
            born.pid = message["pid"]
            if born.reason:  # nobody waits for it any more
                born.kill(born.reason)
        elif op == "failed":
            born.failed(message["why"])

    def _on_nursery_end(self) -> None:
        logger.warning("the nursery has ended; its children end with it")
        self._nursery = None
        self._nursery_up.clear()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self._bury_all("nursery")
        pause = min(0.05 * 2 ** min(self._restarts, 10) - 0.05, LONGEST_PAUSE)
        self._restarts += 1
        asyncio.get_running_loop().call_later(pause, self._restart)

    def _restart(self) -> None:
        if not self._closing:
            self.start()
            self._on_nursery()

    def _bury_all(self, reason: str) -> None:
        for child in list(self._children.values()):
            child.reason = child.reason or reason
            child.exited(None, None)
