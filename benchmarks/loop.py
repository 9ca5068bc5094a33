"""What an item costs: ``step.each`` beside tqdm, ``advance`` beside ``tqdm.update``; and how soon it is durable."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from os import devnull
from pathlib import Path

from tqdm import tqdm

from nbjobs import job, step
from nbjobs.keys import Keys
from nbjobs.settings import configure
from tests.support import RedisServer

from .figures import Figure, Goal, percentile
from .support import ROOT, USER

_spent: list[float] = []
_times: list[tuple[int, int]] = []


@job
def each(items: int) -> None:
    """Loop over items that cost nothing."""
    began = time.perf_counter()
    for _ in step.each("each", range(items)):
        pass
    _spent.append(time.perf_counter() - began)


@job
def advance(items: int) -> None:
    """Move a cursor as often as there are items."""
    step("advance", _advance, items)


def _advance(items: int) -> None:
    current = step.current
    current.set(0)
    began = time.perf_counter()
    for _ in range(items):
        current.advance()
    _spent.append(time.perf_counter() - began)


@job
def fast_items(seconds: float) -> None:
    """Loop over items of some microseconds, and note when each hundredth was done."""
    end = time.monotonic() + seconds
    for item in step.each("fast", range(10**9)):
        if item % 100 == 0:
            _times.append((item, time.monotonic_ns()))
            if time.monotonic() > end:
                break
        sum(range(200))


def ours(body: Callable[[int], None], items: int) -> float:
    """Return the seconds that a loop took inside a run that writes its commits into Redis."""
    run = body.enqueue(items)  # type: ignore[attr-defined]
    if run.state != "completed":
        raise RuntimeError(f"the run is {run.state}")
    return _spent.pop()


def bare(items: int) -> float:
    """Return the seconds of a loop with nothing in it."""
    began = time.perf_counter()
    for _ in range(items):
        pass
    return time.perf_counter() - began


def tqdm_each(items: int) -> float:
    """Return the seconds of tqdm's loop."""
    with Path(devnull).open("w") as nowhere:
        began = time.perf_counter()
        for _ in tqdm(range(items), file=nowhere):
            pass
        return time.perf_counter() - began


def tqdm_update(items: int) -> float:
    """Return the seconds of a loop that calls tqdm's ``update``."""
    with Path(devnull).open("w") as nowhere, tqdm(total=items, file=nowhere) as bar:
        began = time.perf_counter()
        for _ in range(items):
            bar.update()
        return time.perf_counter() - began


def best(rounds: int, items: int, *loops: Callable[[int], float]) -> list[float]:
    """Return for each loop its best nanoseconds an item; the loops take turns."""
    least = [float("inf")] * len(loops)
    for _ in range(rounds):
        for place, loop in enumerate(loops):
            least[place] = min(least[place], loop(items) / items * 1e9)
    return least


def lags(url: str, seconds: float) -> list[float]:
    """Return after how many ms each of many fast items was in Redis, as another process saw it."""
    del _times[:]
    watcher = subprocess.Popen(
        [sys.executable, "-c", _WATCH, url, Keys(USER).run("fast")], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert watcher.stdout is not None
    watcher.stdout.readline()
    fast_items.options(id="fast").enqueue(seconds)
    seen = [tuple(map(int, line.split())) for line in watcher.communicate(timeout=20)[0].splitlines()]
    found, place = [], 0
    for item, at in _times:
        while place < len(seen) and seen[place][0] < item:
            place += 1
        if place < len(seen):
            found.append((seen[place][1] - at) / 1e6)
    return found


# Says each new count of the run and when it was there, until the run has ended.
_WATCH = """
import sys, time, redis
client = redis.Redis.from_url(sys.argv[1], decode_responses=True)
client.ping()
print(flush=True)
last = None
while True:
    done, state, steps = client.hmget(sys.argv[2], "done", "state", "steps")
    at = time.monotonic_ns()
    if done and done != last:
        print(done, at)
        last = done
    if state == "completed":
        break
    time.sleep(0.0005)
"""


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    rounds, many, some = (2, 2_000_000, 1_000_000) if quick else (7, 10_000_000, 3_000_000)
    with RedisServer() as server:
        configure(redis_url=server.url, user=USER, adapter="inline")
        empty, tqdm_item, item = best(rounds, many, bare, tqdm_each, lambda n: ours(each, n))
        empty_update, update, move = best(rounds, some, bare, tqdm_update, lambda n: ours(advance, n))
        late = lags(server.url, 2 if quick else 5)
    how = f"best of {rounds}, the bare loop taken off"
    return [
        Figure(
            "each_item",
            "step.each, an item",
            "ns",
            item - empty,
            how,
            Goal(0.6, "ratio"),
            "tqdm",
            tqdm_item - empty,
        ),
        Figure(
            "advance",
            "step.current.advance()",
            "ns",
            move - empty_update,
            how,
            Goal(0.4, "ratio"),
            "tqdm.update()",
            update - empty_update,
        ),
        Figure("lag_p50", "fast item done → in Redis, p50", "ms", percentile(late, 0.5), f"p50 of {len(late)} items"),
        Figure(
            "lag_p99",
            "fast item done → in Redis, p99",
            "ms",
            percentile(late, 0.99),
            f"p99 of {len(late)} items",
        ),
    ]
