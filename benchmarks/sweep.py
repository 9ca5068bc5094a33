"""What sweeping costs: commands a second at Redis with many idle users, of one idle worker and of four."""

from __future__ import annotations

import contextlib
import time
from typing import Any, cast

import redis

from nbjobs import keys
from tests.support import RedisServer

from .figures import Figure, Goal
from .support import QUEUE, wait_for, worker

IDLE = 5_000
OTHERS = {"zrangebyscore", "zremrangebyscore", "zadd", "script|exists", "ping", "info"}
"""What workers ask for another reason: polls of arq's queue, signs of life, a silent connection's test; and we do."""

_FIRST = 30.0  # seconds in which a worker that begins asks everybody, and its clock settles


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    seconds, idle = (6.0, 50) if quick else (30.0, IDLE)
    alone, four = (_rate(count, seconds, idle, quick=quick) for count in (1, 4))
    how = f"mean of {seconds:g} s, polls of the queue and signs of life left out"
    return [
        Figure("sweep", f"sweeping for {idle:,} idle users, one worker", "/s", alone, how, Goal(300)),
        Figure(
            "sweep_fleet",
            "the same, four workers",
            "/s",
            four,
            how,
            Goal(1.2, "ratio"),
            "one worker",
            alone,
        ),
    ]


def _rate(count: int, seconds: float, idle: int, *, quick: bool) -> float:
    with RedisServer() as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(contextlib.closing(server.client()))
        now = int(cast(tuple[int, int], client.time())[0]) * 1000
        client.zadd(keys.USERS, {f"u{number}": now for number in range(idle)})
        for _ in range(count):
            stack.enter_context(worker(server.url, children=1))
        wait_for(lambda: client.zcard(keys.workers(QUEUE)) == count, 60, "all workers have given their sign")
        time.sleep(1.0 if quick else _FIRST)
        before, began = _commands(client), time.monotonic()
        time.sleep(seconds)
        return (_commands(client) - before) / (time.monotonic() - began)


def _commands(client: redis.Redis) -> int:
    stats = cast(dict[str, Any], client.info("commandstats"))
    return sum(int(stat["calls"]) for name, stat in stats.items() if name.removeprefix("cmdstat_") not in OTHERS)
