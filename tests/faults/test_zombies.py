"""Who was taken for dead and comes back, and who comes late: only one of them can write."""

from __future__ import annotations

import signal
import time

import pytest

from ..support import wait_until
from . import jobs
from .checker import check, check_repeats
from .processes import Worker
from .recorder import Asked
from .stage import AFTER_WORKER, PATIENCE, Stage, in_time, seconds_since

FENCED_WITHIN = 5.0
SAID = ("is no longer held by this worker", "a write of its body was refused")


@pytest.mark.fault(8)
@pytest.mark.parametrize("every", [None, 1])
def test_row_08_a_worker_that_wakes_up_writes_nothing(stage: Stage, every: int | None) -> None:
    """SIGSTOP of a worker and its children for longer than the lease, then SIGCONT while another one does the run."""
    hurry = stage.folder / "hurry"
    zombie = stage.worker()
    run = stage.enqueue(jobs.count, stage.path, 400, 0.06, every, hurry=str(hurry))
    stage.await_item(run, 5)
    stopped = zombie.send(signal.SIGSTOP, everybody=True)
    successor = stage.worker()
    in_time(seconds_since(stopped, stage.await_attempt(run, 2)), AFTER_WORKER + 1, "worker stopped, another one began")
    assert stage.holder(run) is successor
    woken = zombie.send(signal.SIGCONT, everybody=True)
    refused = _await_refusal(stage, run.id)
    _check_ended(stage, run.id, zombie, woken)
    hurry.touch()
    stage.await_end(run)
    check(stage, run, 400)
    overlap = [line for line in stage.ledger.lines(run.id, "count", 1) if line.ns > woken]
    print(f"{len(refused)} writes refused, {len(overlap)} items done by the zombie")
    # The item in hand when it woke; without `every=1` perhaps the next one too, in hand at its first write.
    assert len(overlap) <= (1 if every else 2), "the zombie did more than what it had in hand"
    repeats = stage.ledger.repeats(run.id, "count")
    assert {line.attempt for line in repeats} <= {1} and len(repeats) <= len(overlap)
    assert stage.fields(run)["attempt"] == "2"


@pytest.mark.fault(8)
@pytest.mark.parametrize("script", ["commit", "finish"])
def test_row_08_a_zombie_is_refused_though_its_number_comes_next(stage: Stage, script: str) -> None:
    """It wakes when its successor holds the run but has written nothing yet: only the owner tells them apart."""
    zombie = stage.worker(
        points=[stage.point(f"{script}.before_send", do="stop", done=6 if script == "commit" else None)]
    )
    run = stage.enqueue(jobs.count, stage.path, 20, every=1)
    stage.await_stop(f"{script}.before_send", "the zombie is about to write")
    zombie.send(signal.SIGSTOP, everybody=True)
    before = int(stage.fields(run)["c"])
    successor = stage.worker(points=[stage.point("commit.before_send", name="successor", do="stop")])
    stage.await_stop("successor", "the successor is about to write")
    woken = zombie.send(signal.SIGCONT, everybody=True)
    refused = _await_refusal(stage, run.id)
    assert (refused[0].script, int(refused[0].c)) == (script, before + 1), "not the next commit: this has shown little"
    # A late `finish` of who held the run last is answered as one sent again: it writes nothing, and says nothing.
    _check_ended(stage, run.id, zombie, woken, says=script == "commit")
    assert int(stage.fields(run)["c"]) == before
    successor.send(signal.SIGCONT, everybody=True)
    stage.await_end(run)
    check(stage, run, 20)
    repeats = stage.ledger.repeats(run.id, "count")
    assert len(repeats) <= 1, "the zombie did more than the item that it had in hand"


@pytest.mark.fault(8)
def test_row_08_a_late_end_does_not_replace_the_run_s_own(stage: Stage) -> None:
    """A child that stands still before its `finish`, its worker too, until another has completed: FENCED."""
    zombie = stage.worker(points=[stage.point("finish.before_send", do="stop")])
    run = stage.enqueue(jobs.count, stage.path, 20)
    stage.await_stop("finish.before_send", "the body has reached its end")
    zombie.send(signal.SIGSTOP, everybody=True)
    stage.worker()
    stage.await_end(run)
    before = stage.fields(run)
    woken = zombie.send(signal.SIGCONT, everybody=True)
    refused = _await_refusal(stage, run.id)
    _check_ended(stage, run.id, zombie, woken)
    assert [call.script for call in refused][:1] == ["finish"]
    assert stage.fields(run) == before
    check(stage, run, 20)
    check_repeats(stage, run)
    assert stage.names(run)[-1] == "job.completed"


@pytest.mark.fault(9)
def test_row_09_of_eight_workers_one_claims(stage: Stage) -> None:
    """Eight workers hear of each run at once: one begins it, and nobody counts a crash for the seven others."""
    workers = [stage.worker(ready=False) for _ in range(8)]
    stage.wait_for(*workers)
    runs = [stage.enqueue(jobs.count, stage.path, 3) for _ in range(12)]
    for run in runs:
        stage.await_end(run)
        check(stage, run, 3)
        assert check_repeats(stage, run) == {1: 0}
        fields = stage.fields(run)
        assert (fields["attempt"], fields["crashes"]) == ("1", "0")
        assert stage.names(run).count("job.started") == 1
    claims = [call for run in runs for call in stage.recorder.of(run.id, "claim")]
    print(f"{len(claims)} claims of {len(runs)} runs")
    assert len([call for call in claims if call.wrote]) == len(runs)
    assert len(claims) > len(runs), "no claim was refused, so this has shown nothing"
    assert all(worker.process.poll() is None for worker in workers)


@pytest.mark.fault(10)
def test_row_10_an_item_that_holds_the_interpreter_keeps_its_lease(stage: Stage) -> None:
    """An item of one long call in C, longer than the lease: its worker renews, nobody takes over, others go on."""
    stage.worker(children=2, lease=1.5, renew=0.3)
    stage.worker(lease=1.5, renew=0.3)
    run = stage.enqueue(jobs.hold, stage.path, 2.5)
    wait_until(lambda: stage.fields(run).get("step") == "hold", PATIENCE, "the body is in its item")
    held_by = stage.fields(run)["owner"]
    others = [stage.enqueue(jobs.count, stage.path, 50, 0.001) for _ in range(4)]
    for other in others:
        stage.await_end(other)
    assert not stage.ledger.lines(run.id, "hold"), "the item was done before the others, so this has shown nothing"
    stage.await_end(run)
    (line,) = stage.ledger.lines(run.id, "hold")
    print(f"the interpreter was held for {float(line.note):.1f} s")
    assert float(line.note) > 1.5 and line.attempt == 1
    check(stage, run, 1, step="hold")
    renewals = [call for call in stage.recorder.of(run.id, "renew") if call.wrote]
    assert len(renewals) >= 3 and {call.owner for call in renewals} == {held_by}
    assert stage.names(run).count("job.started") == 1


def _await_refusal(stage: Stage, run: str) -> list[Asked]:
    """Return the zombie's writes that were refused, as soon as there are any: without one a test proves nothing."""

    def refused() -> list[Asked]:
        stage.recorder.catch_up(stage.client)
        return stage.recorder.refused(run)

    return wait_until(refused, PATIENCE, f"a write of the zombie is refused: {stage.logs()}", every=0.02)


def _check_ended(stage: Stage, run: str, zombie: Worker, woken: int, *, says: bool = True) -> None:
    """The zombie's worker says so, and its body is ended in time."""
    try:
        wait_until(
            lambda: not says or any(text in zombie.said for text in SAID), FENCED_WITHIN, "the zombie's worker says so"
        )
    except AssertionError:
        raise AssertionError(f"the worker of the zombie does not say so: {zombie.said}") from None
    (owner,) = {call.owner for call in stage.recorder.refused(run)}
    assert f"-{zombie.pid}-" in owner
    last = max(line.ns for line in stage.ledger.lines(run, attempt=1))
    took = (max(last, woken) - woken) / 1e9
    print(
        f"the zombie's last item was done {took:.2f} s after it woke, {(time.monotonic_ns() - woken) / 1e9:.1f} s ago"
    )
    assert took <= FENCED_WITHIN
