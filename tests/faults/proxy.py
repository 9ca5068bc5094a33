"""A proxy before Redis, in a thread of its own, that can cut connections, delay answers, lose them, or part the two."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from nbjobs.scripts import SCRIPTS


class Proxy:
    """Stands on a port of localhost before a Redis on a unix socket.

    Attributes:
        delay: seconds that each answer waits.
        shut: whether each new connection is reset at once, as where nobody listens.
        lost: names of the scripts whose answer was lost, in order.
        swallowed: whether an answer has had to wait.
        says: an error with which each command is answered, rather than handed to Redis.
    """

    def __init__(self, target: Path) -> None:
        self.delay = 0.0
        self.shut = False
        self.lost: list[str] = []
        self.says = ""
        self.swallowed = False
        self.connections = 0
        self._lose: dict[str, int] = {}
        self._target = str(target)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.heal()
        self._server: asyncio.Server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def lose(self, script: str, times: int = 1) -> None:
        """Lose the next answers to calls of a script: Redis does them, the caller sees its connection cut."""
        self._lose[script] = self._lose.get(script, 0) + times

    def cut(self) -> int:
        """Cut all connections with a reset; return how many there were."""

        async def cut() -> int:
            writers = list(self._writers)
            for writer in writers:
                self._reset(writer)
            return len(writers)

        return self._do(cut())

    def part(self) -> None:
        """Let nothing through, either way, until `heal`: a partition. What was on its way arrives afterwards."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def heal(self) -> None:
        """End the partition."""
        self._loop.call_soon_threadsafe(self._whole.set)

    def lead_to(self, target: Path) -> None:
        """Lead new connections to another Redis; those that are there stay where they are."""
        self._target = str(target)

    def close(self) -> None:
        """Cut everything and end."""

        async def close() -> None:
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
            for writer in list(self._writers):
                self._reset(writer)
            await asyncio.sleep(0)

        self._do(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        if self.shut:
            return self._reset(writer)
        doomed: list[str] = []
        to_redis = None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            from_redis, to_redis = await asyncio.open_unix_connection(self._target)
            pumps = [
                asyncio.ensure_future(self._ask(reader, to_redis, writer, doomed)),
                asyncio.ensure_future(self._answer(from_redis, writer, doomed)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        if to_redis is not None:
            to_redis.close()
        self._reset(writer)

    async def _ask(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        doomed: list[str],
    ) -> None:
        asked = b""
        while data := await source.read(1 << 20):
            if self.says:
                count, asked = _commands(asked + data)
                client.write(f"-{self.says}\r\n".encode() * count)
                await client.drain()
                continue
            for script, times in self._lose.items():
                if times and b"EVALSHA\r\n$40\r\n" + SCRIPTS[script].sha.encode() in data:
                    self._lose[script] -= 1
                    doomed.append(script)
            await self._whole.wait()
            target.write(data)
            await target.drain()

    async def _answer(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, doomed: list[str]) -> None:
        while data := await source.read(1 << 20):
            if self.delay:
                self.swallowed = True
                await asyncio.sleep(self.delay)
            if doomed:
                self.lost += doomed
                return
            await self._whole.wait()
            target.write(data)
            await target.drain()

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        found = writer.get_extra_info("socket")
        if found is not None and not writer.transport.is_closing():
            with contextlib.suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


def _commands(data: bytes) -> tuple[int, bytes]:
    """Return how many whole commands these bytes hold, and what is left behind them."""
    count, at = 0, 0
    while (command := _end_of(data, at)) is not None:
        count, at = count + 1, command
    return count, data[at:]


def _end_of(data: bytes, at: int) -> int | None:
    head = data.find(b"\r\n", at)
    if head < 0:
        return None
    parts, at = int(data[at + 1 : head]), head + 2
    for _ in range(parts):
        head = data.find(b"\r\n", at)
        if head < 0 or (at := head + 4 + int(data[at + 1 : head])) > len(data):
            return None
    return at
