"""Keeps the worker of one environment alive for the embedded daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .directories import Places
from .embedded import command
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
        self._program: Program | None = None
        self._error = ""
        self._stopping = False
        self._began = asyncio.Event()
        self._no_pause = asyncio.Event()
        self._finished = asyncio.Event()

    async def keep(self) -> None:
        """Start the worker; where it ends, give back what it held and start the next one, until `stop`."""
        early = 0
        try:
            while not self._stopping:
                began = time.monotonic()
                program = await self._start()
                code = await program.ended
                await self._steward.give_back(program.pid, code)
                if self._stopping:
                    return
                steady = time.monotonic() - began > _STEADY
                early = 0 if steady or await self._steward.has_signed(self.wanted.queue, program.pid) else early + 1
                logger.warning("worker %d ended with code %d and is started again", program.pid, code)
                early = 0 if await self._cut_short(0.05 * 4 ** (early - 1) if early > 1 else 0.0) else early
        except EmbeddedError as error:
            self._error = str(error)
            if self._began.is_set():  # else whoever wants the worker is told
                logger.error("%s", error)
        finally:
            self.gone = True
            self._began.set()
            self._finished.set()

    async def _start(self) -> Program:
        wanted = self.wanted
        try:
            program = await self._programs.start(wanted.command(), cwd=wanted.cwd, env=wanted.environment(self._places))
        except EmbeddedError as error:
            raise EmbeddedError(
                f"the worker with interpreter {wanted.python} cannot be started in {wanted.cwd}: {error}"
            ) from None
        self._program = program
        self._began.set()
        if self._stopping:  # asked while the start was under way
            program.send_signal(signal.SIGTERM)
        return program

    async def _cut_short(self, pause: float) -> bool:
        """Wait before the next start; return whether a client came meanwhile, which ends the back-off."""
        self._no_pause.clear()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._no_pause.wait(), min(_LONGEST, pause))
            return True
        return False

    async def started(self) -> Program:
        """Return the worker's process as soon as there is one; where the next start waits for its time, hasten it.

        Raises:
            EmbeddedError: there is no such interpreter or directory.
        """
        self._no_pause.set()
        await self._began.wait()
        if self._program is None:
            raise EmbeddedError(self._error or "the nbjobs daemon is about to end")
        return self._program

    async def ready(self, within: float) -> None:
        """Waits until the worker takes runs.

        Raises:
            EmbeddedError: it ended before, or takes too long.
        """
        program = await self.started()
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
        self._no_pause.set()
        if self._program is not None:
            self._program.send_signal(signal.SIGTERM)

    async def drained(self) -> None:
        """Waits until the worker has left and what it held is given back."""
        await self._finished.wait()

    async def end(self) -> None:
        """Leaves the worker a last moment to release its runs, then kills it."""
        if self.gone or self._program is None:  # a first start that is still under way ends with the guard
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
            "pid": None if self._program is None or self._program.ended.done() else self._program.pid,
        }
