"""From ``enqueue`` to the body's first line in an idle worker, beside plain arq."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import ExitStack

from arq.connections import ArqRedis, RedisSettings, create_pool

from nbjobs.settings import configure
from tests.support import RedisServer

from .figures import Figure, Goal, percentile
from .jobs import stamp
from .support import QUEUE, USER, Stamps, arq_worker, worker

USUAL, QUICK_POLL = "arq:usual", "arq:quick"
Times = dict[str, list[float]]


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    runs = 8 if quick else 200
    with RedisServer() as server, Stamps() as stamps, ExitStack() as stack:
        configure(redis_url=server.url, user=USER, queue=QUEUE)
        stack.enter_context(worker(server.url))
        stack.enter_context(arq_worker(server.url, USUAL))
        stack.enter_context(arq_worker(server.url, QUICK_POLL, poll_delay=0.01))
        started, called = asyncio.run(_race(server.url, stamps, runs))
    return _figures(started, called)


async def _race(url: str, stamps: Stamps, runs: int) -> tuple[Times, Times]:
    pool = await create_pool(RedisSettings.from_dsn(url))
    started: Times = {"ours": [], USUAL: [], QUICK_POLL: []}
    called: Times = {"ours": [], USUAL: [], QUICK_POLL: []}
    for name in started:
        for _ in range(5):
            await _one(name, pool, stamps)  # first runs load modules and scripts
    for number in range(runs):
        for name in ("ours", QUICK_POLL, *([USUAL] if number % 4 == 0 else [])):
            # Idle workers, met at a random moment of their poll.
            await asyncio.sleep(random.uniform(0.03, 0.53) if name == USUAL else random.uniform(0.03, 0.06))
            began, enqueued, body = await _one(name, pool, stamps)
            started[name].append((body - began) / 1e6)
            called[name].append((enqueued - began) / 1e6)
    await pool.aclose()
    return started, called


async def _one(name: str, pool: ArqRedis, stamps: Stamps) -> tuple[int, int, int]:
    began = time.monotonic_ns()
    if name == "ours":
        stamp.enqueue(stamps.path)
    else:
        await pool.enqueue_job("stamp", stamps.path, _queue_name=name)
    enqueued = time.monotonic_ns()
    return began, enqueued, stamps.next().at


def _figures(started: Times, called: Times) -> list[Figure]:
    figures = []
    for name, share, goal in (("p50", 0.5, Goal(4)), ("p99", 0.99, None)):
        for key, peer, short in ((USUAL, "arq", "arq"), (QUICK_POLL, "arq, polling every 10 ms", "arq_10ms")):
            figures.append(
                Figure(
                    f"start_{name}_{short}",
                    f"enqueue → body started, {name}",
                    "ms",
                    percentile(started["ours"], share),
                    f"{name} of {len(started['ours'])}, the peer's of {len(started[key])}, in turns",
                    goal,
                    peer,
                    percentile(started[key], share),
                )
            )
    figures.append(
        Figure(
            "enqueue_call",
            "enqueue, the call itself, p50",
            "ms",
            percentile(called["ours"], 0.5),
            f"p50 of {len(called['ours'])}, in turns",
            None,
            "arq's enqueue_job",
            percentile(called[QUICK_POLL], 0.5),
        )
    )
    return figures
