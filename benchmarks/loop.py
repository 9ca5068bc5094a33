"""What an item costs: ``step.each`` beside tqdm, ``advance`` beside ``tqdm.update``; and how soon it is durable.

The cost is CPU time of the whole process, so that of the thread which commits is in it, and what other processes
take from the machine meanwhile is not. The clock's time is shown too.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from os import devnull
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from nbjobs import job, step
from nbjobs.keys import Keys
from nbjobs.settings import configure
from tests.support import RedisServer

from .figures import Figure, Goal, percentile
from .support import ROOT, USER


class Spent(NamedTuple):
    """Nanoseconds of an item: of the processor, and by the clock."""

    cpu: float
    clock: float


class Watch:
    """Measures a loop over so many items."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Spent:
        """Return what an item has taken."""
        cpu, clock = time.process_time() - self._cpu, time.perf_counter() - self._clock
        return Spent(cpu / self._items * 1e9, clock / self._items * 1e9)


_spent: list[Spent] = []
_times: list[tuple[int, int]] = []


@job
def each(items: int) -> None:
    """Loop over items that cost nothing."""
    watch = Watch(items)
    for _ in step.each("each", range(items)):
        pass
    _spent.append(watch.read())


@job
def advance(items: int) -> None:
    """Move a cursor as often as there are items."""
    step("advance", _advance, items)


def _advance(items: int) -> None:
    current = step.current
    current.set(0)
    watch = Watch(items)
    for _ in range(items):
        current.advance()
    _spent.append(watch.read())


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


def ours(body: Callable[[int], None], items: int) -> Spent:
    """Loop inside a run that writes its commits into Redis."""
    run = body.enqueue(items)  # type: ignore[attr-defined]
    if run.state != "completed":
        raise RuntimeError(f"the run is {run.state}")
    return _spent.pop()


def bare(items: int) -> Spent:
    """Loop with nothing in it."""
    watch = Watch(items)
    for _ in range(items):
        pass
    return watch.read()


def tqdm_each(items: int) -> Spent:
    """Loop over tqdm."""
    with Path(devnull).open("w") as nowhere:
        watch = Watch(items)
        for _ in tqdm(range(items), file=nowhere):
            pass
        return watch.read()


def tqdm_update(items: int) -> Spent:
    """Loop, and call tqdm's ``update``."""
    with Path(devnull).open("w") as nowhere, tqdm(total=items, file=nowhere) as bar:
        watch = Watch(items)
        for _ in range(items):
            bar.update()
        return watch.read()


def best(rounds: int, items: int, *loops: Callable[[int], Spent]) -> list[Spent]:
    """Return for each loop but the first, which has nothing in it, the best of what it adds; they take turns."""
    found: list[list[Spent]] = [[] for _ in loops]
    for _ in range(rounds):
        for place, loop in enumerate(loops):
            found[place].append(loop(items))
    empty, *least = (Spent(*map(min, zip(*spent, strict=True))) for spent in found)
    return [Spent(spent.cpu - empty.cpu, spent.clock - empty.clock) for spent in least]


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
    rounds, many, some = (2, 500_000, 300_000) if quick else (15, 5_000_000, 3_000_000)
    with RedisServer() as server:
        configure(redis_url=server.url, user=USER, adapter="inline")
        tqdm_item, item = best(rounds, many, bare, tqdm_each, lambda n: ours(each, n))
        update, move = best(rounds, some, bare, tqdm_update, lambda n: ours(advance, n))
        late = lags(server.url, 1 if quick else 5)
    how = f"best of {rounds} in turns, the bare loop taken off"
    figures = []
    for name, what, own, goal, peer, theirs in (
        ("each_item", "step.each, an item", item, 0.6, "tqdm", tqdm_item),
        ("advance", "step.current.advance()", move, 0.4, "tqdm.update()", update),
    ):
        figures += [
            Figure(f"{name}_cpu", f"{what}, CPU", "ns", own.cpu, how, Goal(goal, "ratio"), peer, theirs.cpu),
            Figure(f"{name}_clock", f"{what}, by the clock", "ns", own.clock, how, None, peer, theirs.clock),
        ]
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        figures.append(
            Figure(
                f"lag_{name}",
                f"fast item done → in Redis, {name}",
                "ms",
                percentile(late, share),
                f"{name} of {len(late)} items",
            )
        )
    return figures
