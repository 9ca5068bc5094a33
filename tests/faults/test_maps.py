"""Maps whose process is killed: what is repeated, and what must not be."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from ..support import wait_until
from . import mapjobs
from .checker import RECENT_NS, check
from .ledger import Line
from .stage import PATIENCE, Stage

ITEMS, WORKERS, KILLS = 10_000, 4, 5


def lines(stage: Stage, run: str) -> list[Line]:
    return stage.ledger.lines(run, "map")


@pytest.mark.parametrize("seed", [1])
def test_a_map_that_is_killed_five_times_repeats_only_what_was_in_flight(stage: Stage, seed: int) -> None:
    """Every item is done, in order of their results; a kill costs the items in flight and those of 100 ms."""
    stage.worker()
    run = stage.enqueue(mapjobs.mapped, stage.path, ITEMS, 0.001, WORKERS)
    dice, crashes = random.Random(seed), {}
    for kill in range(1, KILLS + 1):
        wanted = kill * ITEMS // (KILLS + 1) - dice.randrange(ITEMS // 20)
        wait_until(lambda n=wanted: len(lines(stage, run.id)) >= n, PATIENCE, f"{wanted} items: {stage.logs()}")
        last = lines(stage, run.id)[-1]
        crashes[last.attempt] = time.monotonic_ns()
        os.kill(last.pid, signal.SIGKILL)
        wait_until(lambda a=last.attempt: lines(stage, run.id)[-1].attempt > a, PATIENCE, "the next attempt works")
    stage.await_end(run)
    check(stage, run, ITEMS, step="map")
    assert run.result() == [3 * number for number in range(ITEMS)] and len(crashes) == KILLS
    for attempt, at in crashes.items():
        done = stage.ledger.lines(run.id, "map", attempt)
        recent = sum(line.ns > at - RECENT_NS for line in done)
        again = len(stage.ledger.repeats(run.id, "map", attempt))
        print(f"attempt {attempt}: {again} of {len(done)} repeated, at most {WORKERS} and {recent}")
        assert again <= WORKERS + recent
    assert len({line.key for line in lines(stage, run.id)}) == ITEMS


def test_one_slow_item_beside_5000_fast_ones_makes_none_of_them_repeat(stage: Stage, tmp_path: Path) -> None:
    """What is done beyond it is kept, though the low-water mark stands still."""
    gate, total = tmp_path / "gate", 5001
    stage.worker()
    run = stage.enqueue(mapjobs.slow_first, stage.path, total, str(gate))
    wait_until(lambda: stage.fields(run).get("done") == "1023", PATIENCE, "all that may be begun are durable")
    assert stage.fields(run)["cursor"] == ""
    os.kill(lines(stage, run.id)[0].pid, signal.SIGKILL)
    wait_until(lambda: stage.fields(run).get("attempt") == "2", PATIENCE, "the run goes on")
    gate.touch()
    stage.await_end(run)
    check(stage, run, total, step="map")
    assert max(Counter(line.item for line in lines(stage, run.id)).values()) == 1
    assert run.result() == list(range(total))


def test_processes_of_a_map_die_with_their_child(stage: Stage, tmp_path: Path) -> None:
    """SIGKILL of the child in the middle: nothing of it is left, and the run goes on."""
    worker, out = stage.worker(), tmp_path / "out"
    out.touch()
    run = stage.enqueue(mapjobs.in_processes, str(out), 300)
    wait_until(lambda: out.read_text().count("\n") > 50, PATIENCE, f"items are done: {stage.logs()}")
    (child,) = {one.ppid() for one in worker.below() if "multiprocessing.spawn" in " ".join(one.cmdline())}
    below = psutil.Process(child).children(recursive=True)
    assert len(below) >= 2
    os.kill(child, signal.SIGKILL)
    _, alive = psutil.wait_procs(below, timeout=5)
    assert not alive
    stage.await_end(run)
    assert run.result() == [number * number for number in range(300)]
    keys = Counter(line.split()[0] for line in out.read_text().splitlines())
    assert len(keys) == 300 and all(key.startswith(f"{run.id}:map:") for key in keys)
    assert sum(keys.values()) - 300 <= 2 + 2 * 10 + 10
