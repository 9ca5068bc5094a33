"""Runs a second of a job that does nothing: two children beside one tuned arq process. And what a run costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, cast

import psutil
import redis
from arq.connections import RedisSettings, create_pool

from nbjobs.keys import Keys
from nbjobs.settings import configure
from tests.support import RedisServer

from .figures import Figure, Goal, median
from .jobs import nothing
from .support import QUEUE, USER, arq_worker, wait_for, worker

PEER = "arq:rate"


class Rate(NamedTuple):
    """Runs a second, and CPU milliseconds of a run in all processes of the worker and in Redis."""

    runs: float
    cpu: float


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    rounds, runs = (1, 500) if quick else (5, 1500)
    ours, theirs = [], []
    with RedisServer() as server:
        configure(redis_url=server.url, user=USER, queue=QUEUE)
        client = server.client()
        for _ in range(rounds):
            ours.append(_ours(server, client, runs))
            client.flushall()
            theirs.append(_theirs(server, client, runs))
            client.flushall()
        client.close()
    (rate, cost), (peer_rate, peer_cost) = (tuple(map(median, zip(*found, strict=True))) for found in (ours, theirs))
    how = f"median of {rounds} rounds of {runs} runs, in turns"
    peer = "tuned arq, one process"
    return [
        Figure(
            "rate",
            "runs that do nothing, 2 children",
            "/s",
            rate,
            how,
            Goal(0.6, "ratio", least=True),
            peer,
            peer_rate,
        ),
        Figure("rate_cpu", "CPU of such a run, worker and Redis", "ms", cost, how, None, peer, peer_cost),
    ]


def _ours(server: RedisServer, client: redis.Redis, runs: int) -> Rate:
    for _ in range(runs):
        nothing.enqueue()
    due = Keys(USER).due
    with worker(server.url, children=2) as process:
        return _rate(lambda: cast(int, client.zcard(due)), runs, (process.pid, server.pid))


def _theirs(server: RedisServer, client: redis.Redis, runs: int) -> Rate:
    async def enqueue() -> None:
        pool = await create_pool(RedisSettings.from_dsn(server.url))
        for _ in range(runs):
            await pool.enqueue_job("nothing", _queue_name=PEER)
        await pool.aclose()

    asyncio.run(enqueue())
    with arq_worker(server.url, PEER, max_jobs=100, poll_delay=0.01, keep_result=0) as process:
        return _rate(lambda: cast(int, client.zcard(PEER)), runs, (process.pid, server.pid))


def _rate(left: Callable[[], int], runs: int, pids: tuple[int, int]) -> Rate:
    """Measure once a tenth of the runs has ended: by then all is warm."""
    warm = runs - runs // 10
    wait_for(lambda: left() <= warm, 60, "a tenth of the runs have ended", every=0.005)
    began, first, cpu = time.monotonic(), left(), _cpu(pids)
    wait_for(lambda: not left(), 120, "all runs have ended", every=0.005)
    seconds = time.monotonic() - began
    return Rate(first / seconds, (_cpu(pids) - cpu) / first * 1e3)


def _cpu(pids: tuple[int, int]) -> float:
    """Return the CPU seconds of processes and all that they have started."""
    roots = [psutil.Process(pid) for pid in pids]
    return sum(sum(one.cpu_times()[:4]) for root in roots for one in [root, *root.children(recursive=True)])
