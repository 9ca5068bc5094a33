"""Processes that are killed: workers, children, both; and jobs that kill their own."""

from __future__ import annotations

import os
import random
import signal
import time
from itertools import pairwise

import pytest

from nbjobs.errors import RunFailed

from . import jobs
from .checker import check, check_events, check_repeats, check_shown
from .stage import AFTER_CHILD, AFTER_WORKER, Stage, in_time, seconds_since

ITEMS = 1500
SECONDS = 0.002


@pytest.mark.fault(4)
@pytest.mark.parametrize("seed", [1, 2])
def test_row_04_a_killed_child_costs_a_moment(stage: Stage, seed: int) -> None:
    """SIGKILL of the child at a random item: its worker sees it, and the run goes on where it was."""
    stage.worker()
    hurry = stage.folder / "hurry"
    run = stage.enqueue(jobs.count, stage.path, ITEMS, SECONDS, hurry=str(hurry))
    crashes = {}
    for attempt in (1, 2):
        last = stage.await_item(run, _item(seed, attempt))
        crashes[attempt] = time.monotonic_ns()
        os.kill(last.pid, signal.SIGKILL)
        in_time(seconds_since(crashes[attempt], stage.await_attempt(run, attempt + 1)), AFTER_CHILD, "child killed")
    hurry.touch()
    stage.await_end(run)
    check(stage, run, ITEMS)
    check_repeats(stage, run, crashes=crashes)
    interrupts = stage.payloads(run, "job.interrupt")
    assert [(one["reason"], one["signal"]) for one in interrupts] == [("child_died", "SIGKILL")] * 2
    assert run.result() == ITEMS


@pytest.mark.fault(4)
@pytest.mark.parametrize("everybody", [False, True], ids=["worker", "worker-and-children"])
def test_row_04_a_killed_worker_costs_its_lease(stage: Stage, everybody: bool) -> None:
    """SIGKILL of the worker, alone or with its children: nothing of it is left, and another one goes on."""
    workers = [stage.worker(ready=False), stage.worker(ready=False)]
    stage.wait_for(*workers)
    hurry = stage.folder / "hurry"
    run = stage.enqueue(jobs.count, stage.path, ITEMS, SECONDS, hurry=str(hurry))
    stage.await_item(run, _item(3 + everybody, 1))
    victim = stage.holder(run)
    before = time.monotonic_ns()
    killed = victim.kill(everybody=everybody)
    victim.check_orphans()
    in_time(seconds_since(before, stage.await_attempt(run, 2)), AFTER_WORKER, "worker killed")
    hurry.touch()
    stage.await_end(run)
    check(stage, run, ITEMS)
    last = stage.ledger.lines(run.id, "count", 1)[-1].ns
    print(f"the body went on for {(last - before) / 1e6:.1f} ms")
    check_repeats(stage, run, crashes={1: min(last, killed)})
    assert stage.payloads(run, "job.interrupt")[0]["reason"] == "lease_lost"
    assert stage.fields(run)["crashes"] == "0"


def _item(seed: int, attempt: int) -> int:
    item = attempt * 200 - random.Random(seed * 10 + attempt).randrange(150)
    print(f"seed {seed}: attempt {attempt} is killed at item {item}")
    return item


@pytest.mark.fault(13)
def test_row_13_a_job_that_kills_its_process_is_dead_after_four_starts(stage: Stage) -> None:
    """A body that ends its process each time is started four times, with growing waits; other runs are not harmed."""
    worker = stage.worker(children=2, crash_wait="0,0.4,0.8")
    other = stage.enqueue(jobs.count, stage.path, ITEMS, SECONDS)
    run = stage.enqueue(jobs.poison, stage.path)
    stage.await_end(run, "dead")
    starts = stage.ledger.lines(run.id, "start")
    assert [line.attempt for line in starts] == [1, 2, 3, 4]
    waits = [(b.ns - a.ns) / 1e9 for a, b in pairwise(starts)]
    print("waits", [f"{wait:.2f} s" for wait in waits])
    assert waits[1] >= 0.4 and waits[2] >= 0.8
    assert stage.names(run)[-2:] == ["job.interrupt", "job.dead"]
    assert stage.names(run).count("job.retry_scheduled") == 2
    assert all(one["signal"] == "SIGKILL" for one in stage.payloads(run, "job.interrupt"))
    check_events(stage, run)
    check_shown(stage, run)
    with pytest.raises(RunFailed):
        run.result()
    stage.await_end(other)
    check(stage, other, ITEMS)
    assert check_repeats(stage, other) == {1: 0}
    assert worker.process.poll() is None
