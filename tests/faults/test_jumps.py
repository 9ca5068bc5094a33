"""Redis' wall clock jumps, as when a laptop sleeps or somebody sets it; the steady clocks of the workers do not."""

from __future__ import annotations

import random
import time

import pytest

from nbjobs.keys import SWEEPER

from ..support import wait_until
from . import jobs
from .checker import check, check_repeats
from .ledger import now_ns
from .stage import AFTER_WORKER, RENEW, SWEEP, Stage, in_time, seconds_since
from .wallclock import wall_clock

MINUTE, HOUR = 60, 3600
JUMPS = [10 * MINUTE] * 14 + [2, 20, HOUR, 9 * HOUR] * 2 + [-3, -5 * MINUTE, -HOUR, -9 * HOUR] * 2
SETTLED = 2 * RENEW + SWEEP  # by then each holder has renewed its lease since a jump


@pytest.mark.slow
@pytest.mark.weather("H1")
def test_a_jump_of_the_clock_takes_no_run_from_a_living_worker(stage: Stage) -> None:
    """Thirty jumps at any moment, with delayed runs in between: no attempt ends, no crash is counted."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    jumps = chance.sample(JUMPS, len(JUMPS))
    gate = stage.folder / "gate"
    with wall_clock(stage) as clock:
        for _ in range(2):
            stage.worker(path=clock.folder)
        held = [stage.enqueue(jobs.gated, stage.path, str(gate)) for _ in range(2)]
        later = []
        for run in held:
            stage.await_attempt(run, 1, "start")
        for jump in jumps:
            time.sleep(chance.uniform(0, 2 * SWEEP))  # the phase of the fault, not a wait for something
            later.append(stage.enqueue(jobs.count.options(delay=chance.uniform(0.05, 1)), stage.path, 1))
            clock.step(jump)
        gate.touch()
        for run in held + later:
            stage.await_end(run)
            fields = stage.fields(run)
            assert (fields["attempt"], fields["crashes"]) == ("1", "0"), stage.standing(run)
            assert "job.interrupt" not in stage.names(run)
    assert len(jumps) == 30


@pytest.mark.weather("M3")
def test_a_clock_that_is_set_back_holds_no_run_of_a_dead_worker(stage: Stage) -> None:
    """Back by an hour while the worker dies that sweeps: another goes on with its run, and no wait lasts that hour."""
    hurry = stage.folder / "hurry"
    with wall_clock(stage) as clock:
        first = stage.worker(path=clock.folder)
        run = stage.enqueue(jobs.count, stage.path, 2000, 0.03, hurry=str(hurry))
        stage.await_item(run, 10)
        stage.worker(path=clock.folder)
        again = stage.enqueue(jobs.fails_once, stage.path)
        wait_until(lambda: stage.fields(again)["state"] == "retrying", 20, "it is to be tried again")
        later = stage.enqueue(jobs.count.options(delay=1.5), stage.path, 1)
        assert stage.holder(run) is first and stage.client.get(SWEEPER) in stage.fields(run)["owner"]
        killed = first.kill()
        clock.step(-HOUR)
        stage.client.pexpire(SWEEPER, (HOUR + 1) * 1000)  # as it stands by a clock that was set back
        in_time(seconds_since(killed, stage.await_attempt(run, 2)), AFTER_WORKER + SETTLED, "a run of a dead worker")
        hurry.touch()
        for one, wait in ((again, 1.0), (later, 1.5)):
            stage.await_end(one, timeout=20)
            in_time((now_ns() - killed) / 1e9, AFTER_WORKER + SETTLED + wait, f"a wait of {wait:g} s")
        stage.await_end(run)
        check(stage, run, 2000)


@pytest.mark.fault(33)
@pytest.mark.parametrize("minutes", [-10, 10])
def test_row_33_a_clock_of_redis_that_is_set_moves_no_run(stage: Stage, minutes: int) -> None:
    """Ids of events rise all the same, and beside another worker the holder keeps its run."""
    with wall_clock(stage) as clock:
        for _ in range(2):
            stage.worker(path=clock.folder)
        run = stage.enqueue(jobs.count, stage.path, 150, 0.03)
        stage.await_item(run, 10)
        ahead = f"{int(time.time() * 1000) + 10 * MINUTE * 1000}-0"
        for stream in (stage.keys.user_events, stage.keys.events(run.id)):
            stage.client.execute_command("XSETID", stream, ahead)  # the last id is of before the clock was set back
        clock.step(minutes * MINUTE)
        stage.await_end(run)
        check(stage, run, 150)
        assert check_repeats(stage, run) == {1: 0}
        assert stage.fields(run)["attempt"] == "1"
