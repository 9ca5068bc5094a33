"""From nothing to a Redis that answers, and to a body that runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nbjobs import connection, redis_server
from nbjobs.embedded import Places
from nbjobs.programs import Programs
from nbjobs.settings import configure
from tests.support import RedisServer

from .figures import Figure, Goal, median
from .jobs import stamp
from .support import ROOT, USER, Stamps


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    rounds = 2 if quick else 15
    program = next(iter(redis_server.candidates()))
    embedded, bare = [], []
    for _ in range(rounds):
        embedded.append(asyncio.run(_start()))
        bare.append(_start_bare(program))
    whole = [_whole() for _ in range(1 if quick else 5)]
    up, first = (sorted(times) for times in zip(*whole, strict=True))
    how = f"median of {len(whole)}"
    return [
        Figure(
            "redis",
            "embedded Redis, start → PONG",
            "ms",
            median(embedded),
            f"median of {rounds}, in turns",
            Goal(100),
            "the same server by hand",
            median(bare),
        ),
        Figure("up", "`nbjobs up --detach`, nothing running before", "ms", median(up), how),
        Figure("up_body", "`nbjobs up --detach`, then enqueue → first body started", "ms", median(first), how),
    ]


async def _start() -> float:
    with tempfile.TemporaryDirectory(prefix="nbjobs-bench-") as folder:
        found = Places(Path(folder), Path(folder))
        found.redis_data.mkdir()
        programs = Programs()
        await programs.open()
        try:
            await (await programs.start(["true"])).ended  # now the guard is up, as it is where a daemon runs
            began = time.perf_counter()
            await redis_server.start(programs, found)
            return (time.perf_counter() - began) * 1e3
        finally:
            await programs.close()


def _start_bare(program: str) -> float:
    server = RedisServer(program)
    began = time.perf_counter()
    with server:
        return (time.perf_counter() - began) * 1e3


def _whole() -> tuple[float, float]:
    """Return the ms of `up`, and those until a body ran that was enqueued right after it."""
    with tempfile.TemporaryDirectory(prefix="nbjobs-bench-") as folder, Stamps() as stamps:
        places = {"NBJOBS_RUNTIME_DIR": f"{folder}/r", "NBJOBS_DATA_DIR": f"{folder}/d"}
        configure(runtime_dir=places["NBJOBS_RUNTIME_DIR"], data_dir=places["NBJOBS_DATA_DIR"], user=USER)
        try:
            began = time.monotonic_ns()
            _nbjobs(places, "up", "--detach")
            up = time.monotonic_ns()
            stamp.enqueue(stamps.path)
            body = stamps.next(30)
        finally:
            connection.drop_client()
            _nbjobs(places, "down")
        return (up - began) / 1e6, (body.at - began) / 1e6


def _nbjobs(places: dict[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "nbjobs", *arguments]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **places}, check=True, stdout=subprocess.DEVNULL)
