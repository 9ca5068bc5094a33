"""Keeps the worker of one environment alive for the embedded daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

from .embedded import Places, command
from .errors import EmbeddedError
from .programs import Program, Programs
from .steward import Steward

logger = logging.getLogger("nbjobs.daemon")

_STEADY = 10.0  # a worker that lived this long is started again at once
_LONGEST = 30.0
_LAST_MOMENT = 0.5


@dataclass(frozen=True)
class Wanted:
    """The environment for which a client wants a worker.

    Attributes:
        python: its interpreter.
        cwd: its working directory.
        path: its ``sys.path``.
        queue: the queue that its runs go to.
        key: what makes two environments the same.
        variables: environment variables of the client that asked first.
    """

    python: str
    cwd: str
    path: tuple[str, ...]
    queue: str
    key: str
    variables: dict[str, str]

    @classmethod
    def of(cls, message: dict[str, Any]) -> Wanted:
        """Reads what `embedded.hello` wrote."""
        try:
            return cls(
                python=str(message["python"]),
                cwd=str(message["cwd"]),
                path=tuple(map(str, message["path"])),
                queue=str(message["queue"]),
                key=f"{message['hash']} {message['queue']}",
                variables={str(name): str(value) for name, value in message["variables"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise EmbeddedError(f"the request for a worker lacks {error}: is that another nbjobs version?") from None

    def remembered(self) -> dict[str, Any]:
        """Returns the message again, without the variables: they may hold secrets, so they are not stored."""
        hash = self.key.partition(" ")[0]
        return {"python": self.python, "cwd": self.cwd, "path": self.path, "queue": self.queue, "hash": hash}

    def command(self) -> list[str]:
        """Returns the command that starts the worker."""
        return command(self.python, self.path, ["worker", "--queue", self.queue])

    def environment(self, found: Places) -> dict[str, str]:
        """Returns the worker's environment variables: the client's, and where Redis is."""
        return {"NBJOBS_ACCEPT_CODE": "true", **self.variables, "NBJOBS_REDIS_URL": found.redis_url}


class Keeper:
    """Starts a worker, and another one where it dies, until it is stopped.

    Attributes:
        gone: it keeps nothing any more; the next client gets a new keeper.
    """

    def __init__(self, wanted: Wanted, programs: Programs, steward: Steward, found: Places) -> None:
        self.wanted = wanted
        self.gone = False
        self._programs = programs
        self._steward = steward
        self._places = found
        self._program: Program
        self._started = 0.0
        self._stopping = False
        self._finished = asyncio.Event()

    async def start(self) -> None:
        """Starts the worker.

        Raises:
            EmbeddedError: there is no such interpreter or directory.
        """
        wanted = self.wanted
        self._started = time.monotonic()
        try:
            self._program = await self._programs.start(
                wanted.command(), cwd=wanted.cwd, env=wanted.environment(self._places)
            )
        except EmbeddedError as error:
            self.gone = True
            self._finished.set()
            raise EmbeddedError(
                f"the worker with interpreter {wanted.python} cannot be started in {wanted.cwd}: {error}"
            ) from None

    async def keep(self) -> None:
        """Waits for the worker's end, gives back what it held, and starts the next one."""
        early = 0
        try:
            while not self._stopping:
                pid, code = self._program.pid, await self._program.ended
                steady = time.monotonic() - self._started > _STEADY
                early = 0 if steady else early + 1
                if not self._stopping:
                    logger.warning("worker %d ended with code %d and is started again", pid, code)
                    await asyncio.sleep(min(_LONGEST, 0.05 * 4 ** (early - 1) if early > 1 else 0.0))
                    await self.start()
                await self._steward.give_back(pid, code)
        except EmbeddedError as error:
            logger.error("%s", error)
        finally:
            self.gone = True
            self._finished.set()

    async def ready(self, within: float) -> None:
        """Waits until the worker takes runs.

        Raises:
            EmbeddedError: it ended before, or takes too long.
        """
        program = self._program
        signed = asyncio.ensure_future(self._steward.signed(self.wanted.queue, program.pid))
        first: list[asyncio.Future[Any]] = [signed, program.ended]
        await asyncio.wait(first, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if signed.done():
            return signed.result()
        signed.cancel()
        fate = f"ended with code {program.ended.result()}" if program.ended.done() else "is not ready yet"
        raise EmbeddedError(f"the worker for {self.wanted.cwd} {fate}: see {self._places.log}")

    def stop(self) -> None:
        """Asks the worker to end its items and leave; no other one is started."""
        self._stopping = True
        if not self.gone:
            self._program.send_signal(signal.SIGTERM)

    async def drained(self) -> None:
        """Waits until the worker has left and what it held is given back."""
        await self._finished.wait()

    async def end(self) -> None:
        """Leaves the worker a last moment to release its runs, then kills it."""
        if self.gone:
            return
        self._program.send_signal(signal.SIGTERM)  # the second one: its grace is over
        if await self._program.end(within=_LAST_MOMENT) is None:
            self._program.send_signal(signal.SIGKILL)
        await self._finished.wait()

    def describe(self) -> dict[str, Any]:
        """Returns what `nbjobs up` shows of it."""
        return {
            "queue": self.wanted.queue,
            "python": self.wanted.python,
            "cwd": os.fspath(self.wanted.cwd),
            "pid": self._program.pid,
        }
