"""What a checkpoint costs, beside the least that a script and a round trip can cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from timeit import timeit
from typing import Any, cast

from nbjobs import connection, job, step
from nbjobs.settings import configure
from nbjobs.view import fold
from tests.entries import Story
from tests.support import RedisServer

from .figures import Figure, Goal, median, percentile
from .support import USER

_spent: dict[str, list[float]] = {"checkpoint": [], "script": [], "ping": []}


@job
def checkpoints(count: int) -> None:
    """Commit a moved cursor, again and again."""
    step("checkpoints", _checkpoints, count)


def _checkpoints(count: int) -> None:
    client = connection.client()
    sha = cast(str, client.script_load("return 1"))
    current = step.current
    current.set(0)

    def checkpoint() -> None:
        current.advance()
        current.checkpoint()

    turns: dict[str, Callable[[], Any]] = {
        "checkpoint": checkpoint,
        "script": lambda: client.evalsha(sha, 0),
        "ping": client.ping,
    }
    for _ in range(count):
        for name, turn in turns.items():
            began = time.perf_counter()
            turn()
            _spent[name].append((time.perf_counter() - began) * 1e6)


def _folding() -> float:
    """Return what a child spends on one of its own events before it commits it, in µs."""
    story = Story().queued().started().prepared().loading().progress(8000)
    view, entry = story.view, story.entries[-1]
    return timeit(lambda: fold(view, entry), number=500) / 500 * 1e6


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    count = 300 if quick else 3000
    with RedisServer() as server:
        configure(redis_url=server.url, user=USER, adapter="inline")
        checkpoints.enqueue(count)
    folding = [_folding() for _ in range(9)]
    half = {name: percentile(spent, 0.5) for name, spent in _spent.items()}
    how = f"p50 of {count}, in turns"
    what = "checkpoint, round trip p50"
    return [
        Figure("commit", what, "µs", half["checkpoint"], how, None, "EVALSHA of `return 1`", half["script"]),
        Figure("fold", "fold of an event into the view", "µs", median(folding), "median of 9", Goal(30)),
        Figure("commit_ping", what, "µs", half["checkpoint"], how, None, "PING", half["ping"]),
    ]
