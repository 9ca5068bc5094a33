"""What a body leaves in its process, and who meets it."""

from __future__ import annotations

import os
import re
import signal

import pytest

from nbjobs import words
from nbjobs.upkeep import LOOK

from ..support import wait_until
from . import leavejobs
from .cgroups import bounded, enter, needs_linux
from .checker import check, check_repeats
from .stage import PATIENCE, Stage


@pytest.mark.slow
@pytest.mark.weather("H10")
def test_what_a_body_leaves_in_its_process_meets_no_other_run(stage: Stage) -> None:
    """After each change of what a process has once, the same user's next run is in another one, and goes well."""
    stage.worker()
    for way in leavejobs.WAYS:
        changed = leavejobs.leave.enqueue(way)
        stage.await_end(changed)
        after = (leavejobs.linger if "alarm" in way or "timer" in way else leavejobs.pid).enqueue()
        stage.await_end(after)
        assert after.result() != changed.result(), f"after {way} the process was used again: {stage.logs()}"
        for run in (changed, after):
            assert stage.names(run) == ["job.enqueued", "job.started", "job.completed"], way


@pytest.mark.weather("H10")
def test_a_process_runs_the_bodies_of_one_user(stage: Stage) -> None:
    """Two users in turn: no process has run bodies of both, and each user's own is used again."""
    stage.worker()
    pids: dict[str, set[int]] = {"ada": set(), "bob": set()}
    for user in ["ada", "bob"] * 4:
        pids[user].add(leavejobs.pid.options(user=user).enqueue().result(PATIENCE))
    assert not pids["ada"] & pids["bob"]
    assert [len(found) for found in pids.values()] == [1, 1], pids


@pytest.mark.weather("H10")
def test_a_value_of_a_context_variable_ends_with_its_run(stage: Stage) -> None:
    """What a body sets in its context the next one does not see; what their module set as it was loaded, both see."""
    stage.worker()
    found = [leavejobs.set_context.enqueue(f"of run {number}").result(PATIENCE) for number in range(6)]
    assert len({process for process, _ in found}) < len(found), "no two had one process"
    assert {before for _, before in found} == {"as loaded"}


@pytest.mark.weather("M6")
def test_a_module_that_raises_ends_no_watch(stage: Stage) -> None:
    """Where a module's attributes raise, commits beside a long item go on, and the process is used again."""
    stage.worker()
    gate = stage.folder / "gate"
    run = stage.enqueue(leavejobs.lazy, stage.path, LOOK + 0.5, str(gate))
    try:
        wait_until(lambda: stage.payloads(run, "still.here"), PATIENCE, lambda: stage.standing(run))
    finally:
        gate.touch()
    stage.await_end(run)
    wait_until(
        lambda: leavejobs.pid.enqueue().result(PATIENCE) == run.result(),
        PATIENCE,
        lambda: f"the process is used again: {stage.logs()}",
    )


ITEMS, HUNGRY, SECONDS = 300, 120, 0.003
MEMORY = 192 << 20  # bytes for a worker and all below it


@needs_linux
@pytest.mark.fault(15)
@pytest.mark.weather("A5")
def test_row_15_a_child_that_runs_out_of_memory_costs_a_moment(stage: Stage) -> None:
    """The kernel ends a process for want of memory: the run goes on where it was, and is told why; others are not."""
    with bounded(MEMORY) as group:
        worker = stage.worker(ready=False)
        enter(group, worker.pid)
        stage.wait_for(worker)
        run = stage.enqueue(leavejobs.hungry, stage.path, ITEMS, HUNGRY, SECONDS)
        os.kill(stage.await_attempt(run, 2).pid, signal.SIGKILL)
        stage.await_end(run)
        worker.close()
    check(stage, run, ITEMS)
    check_repeats(stage, run, crashes={n: stage.ledger.lines(run.id, "count", n)[-1].ns for n in (1, 2)})
    hungry, killed = stage.payloads(run, "job.interrupt")
    assert [(one["reason"], one["signal"]) for one in (hungry, killed)] == [("child_died", "SIGKILL")] * 2
    told = re.fullmatch(r"probably out of memory: peak ([\d.]+ MB) of (.+)", hungry["memory"])
    assert told and told[2] == words.size(MEMORY), hungry
    assert hungry["description"] == f"its process was ended by signal SIGKILL, {told[0]}"
    assert [one.signal for one in run.view.attempts[:2]] == [f"SIGKILL, {told[0]}", "SIGKILL"]
    assert "memory" not in killed, "what somebody else has killed did not run out of it"


@pytest.mark.weather("A5")
def test_a_body_that_closes_its_workers_descriptor_is_told_so(stage: Stage) -> None:
    """A process that can no longer speak with its worker is ended, and the run says why."""
    stage.worker(crash_wait="0,0,0")
    run = stage.enqueue(leavejobs.deaf)
    stage.await_end(run, "dead")
    told = {one["description"] for one in stage.payloads(run, "job.interrupt")}
    assert told == {
        "its body closed the descriptor by which its process speaks with the worker, and the process was ended"
    }


def test_a_fork_of_a_body_finds_no_lock_held(stage: Stage) -> None:
    """A program that a body forks while other threads notify may notify too, and begin steps: it never hangs."""
    stage.worker()
    run = stage.enqueue(leavejobs.forks, 100, 10.0)
    stage.await_end(run)
    assert run.result() == 0


def test_the_nursery_has_loaded_what_bodies_need_of_nbjobs(stage: Stage) -> None:
    """Whatever a body uses is of the version that its worker is of, though nbjobs was upgraded in place since."""
    stage.worker()
    run = leavejobs.everything.enqueue()
    stage.await_end(run)
    assert run.result() == []
