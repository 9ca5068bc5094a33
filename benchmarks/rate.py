"""Runs a second of a job that does nothing: two children beside one tuned arq process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import redis
from arq.connections import RedisSettings, create_pool

from nbjobs.keys import Keys
from nbjobs.settings import configure
from tests.support import RedisServer

from .figures import Figure, Goal, median
from .jobs import nothing
from .support import QUEUE, USER, arq_worker, wait_for, worker

PEER = "arq:rate"


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    rounds, runs = (1, 500) if quick else (5, 2000)
    ours, theirs = [], []
    with RedisServer() as server:
        configure(redis_url=server.url, user=USER, queue=QUEUE)
        client = server.client()
        for _ in range(rounds):
            ours.append(_ours(server.url, client, runs))
            client.flushall()
            theirs.append(_theirs(server.url, client, runs))
            client.flushall()
        client.close()
    how = f"median of {rounds} rounds of {runs} runs, in turns"
    return [
        Figure(
            "rate",
            "runs that do nothing, 2 children",
            "/s",
            median(ours),
            how,
            Goal(0.6, "ratio", least=True),
            "tuned arq, one process",
            median(theirs),
        )
    ]


def _ours(url: str, client: redis.Redis, runs: int) -> float:
    for _ in range(runs):
        nothing.enqueue()
    due = Keys(USER).due
    with worker(url, children=2):
        return _rate(lambda: client.zcard(due), runs)


def _theirs(url: str, client: redis.Redis, runs: int) -> float:
    async def enqueue() -> None:
        pool = await create_pool(RedisSettings.from_dsn(url))
        for _ in range(runs):
            await pool.enqueue_job("nothing", _queue_name=PEER)
        await pool.aclose()

    asyncio.run(enqueue())
    with arq_worker(url, PEER, max_jobs=100, poll_delay=0.01, keep_result=0):
        return _rate(lambda: client.zcard(PEER), runs)


def _rate(left: Callable[[], int], runs: int) -> float:
    """Return how many a second end once a tenth has ended: by then all is warm."""
    warm = runs - runs // 10
    wait_for(lambda: left() <= warm, 60, "a tenth of the runs have ended", every=0.005)
    began, first = time.monotonic(), left()
    wait_for(lambda: not left(), 60, "all runs have ended", every=0.005)
    return first / (time.monotonic() - began)
