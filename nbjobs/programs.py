"""The daemon's side of the guard: programs that live no longer than the daemon does."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import guard
from .errors import EmbeddedError


class Program:
    """A program that the guard has started.

    Attributes:
        pid: its process, which leads a process group of the same number.
        ended: becomes its exit code, negative where a signal ended it.
    """

    def __init__(self, pid: int, programs: Programs) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._programs = programs

    def send_signal(self, number: int) -> None:
        """Sends a signal; one that has ended is left alone."""
        if not self.ended.done():
            self._programs.tell({"signal": int(number), "pid": self.pid})

    async def end(self, *, within: float) -> int | None:
        """Waits for its end; None where it outlives the time."""
        with suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self.ended), within)
        return None


class Programs:
    """Starts programs through a guard process that ends them when this process is gone.

    Attributes:
        lost: becomes done when the guard itself has died. Its programs have been killed then; the next one that
            is started gets a new guard.
    """

    def __init__(self) -> None:
        self.lost: asyncio.Future[None]
        self._process: subprocess.Popen[bytes]
        self._writer: asyncio.StreamWriter
        self._reading: asyncio.Task[None]
        self._numbers = itertools.count(1)
        self._starting: dict[int, asyncio.Future[Program]] = {}
        self._running: dict[int, Program] = {}
        self._closing = False
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Starts the guard, also again after it was lost."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _start_guard(theirs.fileno())
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        self.lost = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(reader), name="nbjobs-guard")

    async def start(
        self, argv: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None, soft: bool = False
    ) -> Program:
        """Starts a program.

        Args:
            argv: the command.
            cwd: its working directory.
            env: its environment; None takes this process's.
            soft: ask it to end, and wait, before it is killed (what Redis needs to keep its file whole).

        Raises:
            EmbeddedError: the program cannot be started; the text says why.
        """
        async with self._opening:
            if self.lost.done():
                await self.open()
        number = next(self._numbers)
        self._starting[number] = asyncio.get_running_loop().create_future()
        self.tell({"start": number, "argv": list(argv), "cwd": cwd, "env": env and dict(env), "soft": soft})
        return await self._starting[number]

    def tell(self, message: dict[str, Any]) -> None:
        """Sends the guard one message."""
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def close(self) -> None:
        """Ends every program that still runs, and the guard."""
        self._closing = True
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()
        await self._reading
        self._writer.close()
        await asyncio.get_running_loop().run_in_executor(None, self._process.wait)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while line := await reader.readline():
                self._handle(json.loads(line))
        if not self._closing:
            self._kill_all()
            self._process.poll()
        self.lost.set_result(None)
        for waiting in self._starting.values():
            if not waiting.done():
                waiting.set_exception(EmbeddedError("the guard process of the daemon has died"))
        for program in self._running.values():
            if not program.ended.done():
                program.ended.set_result(-signal.SIGKILL)
        self._starting.clear()
        self._running.clear()

    def _handle(self, message: dict[str, Any]) -> None:
        if "exit" in message:
            program = self._running.pop(message["exit"], None)
            if program is not None and not program.ended.done():
                program.ended.set_result(message["code"])
        elif "started" in message:
            program = self._running[message["pid"]] = Program(message["pid"], self)
            waiting = self._starting.pop(message["started"])
            if not waiting.done():
                waiting.set_result(program)
            elif not self._closing:  # whoever wanted it was cancelled meanwhile
                program.send_signal(signal.SIGTERM)
        elif not (waiting := self._starting.pop(message["failed"])).done():
            waiting.set_exception(EmbeddedError(message["error"]))

    def _kill_all(self) -> None:
        """Does what the dead guard can no longer do."""
        for pid in self._running:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)


def _start_guard(fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(guard.__file__)), str(fd)],
        pass_fds=[fd],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
