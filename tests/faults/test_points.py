"""Processes that die at one exact place: before a write, or after it and before its answer."""

from __future__ import annotations

import pytest

from ..support import wait_until
from . import jobs
from .checker import check, check_repeats
from .stage import PATIENCE, Stage

ITEMS = 8


@pytest.mark.fault(5)
def test_row_05_an_item_whose_commit_was_not_sent_is_repeated(stage: Stage) -> None:
    """SIGKILL after the work and before its commit, `every=1`: this one item is done again, under the same key."""
    stage.worker(points=[stage.point("commit.before_send", done=5)])
    run = stage.enqueue(jobs.count, stage.path, ITEMS, every=1)
    stage.await_end(run)
    check(stage, run, ITEMS)
    (again,) = stage.ledger.repeats(run.id, "count")
    first, second = stage.ledger.times(run.id, "count")[4]
    assert again == first and (first.attempt, second.attempt) == (1, 2)
    assert first.key == second.key == f"{run.id}:count:4"
    assert second.fence > first.fence
    assert stage.fields(run)["attempt"] == "2"


@pytest.mark.fault(6)
def test_row_06_an_item_whose_commit_is_stored_is_not_repeated(stage: Stage) -> None:
    """SIGKILL after the commit is stored and before the body knows, `every=1`: nothing is done again."""
    stage.worker(points=[stage.point("commit.after_send", done=5)])
    run = stage.enqueue(jobs.count, stage.path, ITEMS, every=1)
    stage.await_end(run)
    check(stage, run, ITEMS)
    assert check_repeats(stage, run) == {1: 0, 2: 0}
    assert [line.item for line in stage.ledger.lines(run.id, "count", 2)] == [5, 6, 7]
    assert stage.names(run).count("job.resume") == 1
    done = [one["done"] for one in stage.payloads(run, "job.progress")]
    assert len(done) == len(set(done)), "a commit's event was written twice"


@pytest.mark.fault(7)
def test_row_07_a_death_before_the_end_is_written_repeats_nothing(stage: Stage) -> None:
    """SIGKILL between the last item and `finish`: the run is resumed, does no item again, and ends once."""
    stage.worker(points=[stage.point("finish.before_send")])
    run = stage.enqueue(jobs.count, stage.path, ITEMS)
    stage.await_end(run)
    check(stage, run, ITEMS)
    check_repeats(stage, run)
    assert stage.names(run).count("job.completed") == 1
    assert stage.names(run).count("job.step_skipped") == 2
    assert (stage.fields(run)["attempt"], stage.fields(run)["resumptions"]) == ("2", "1")
    assert run.result() == ITEMS


@pytest.mark.fault(7)
def test_row_07_a_death_after_the_end_is_written_changes_nothing(stage: Stage) -> None:
    """SIGKILL after `finish` is stored: the run has ended, whatever its worker says of the child's death."""
    worker = stage.worker(points=[stage.point("finish.after_send")])
    run = stage.enqueue(jobs.count, stage.path, ITEMS)
    stage.await_end(run)
    wait_until(lambda: stage.recorder.of(run.id, "lapse"), PATIENCE, "the worker has told of its child's death")
    check(stage, run, ITEMS)
    check_repeats(stage, run)
    assert stage.fields(run)["attempt"] == "1"
    assert stage.names(run)[-1] == "job.completed"
    assert worker.process.poll() is None


@pytest.mark.fault(9)
def test_row_09_a_worker_that_dies_with_a_fresh_claim_loses_nothing(stage: Stage) -> None:
    """SIGKILL of the worker between `claim` and the body: another one begins the run."""
    stage.worker(points=[stage.point("claim.after_send")])
    run = stage.enqueue(jobs.count, stage.path, ITEMS)
    stage.worker()
    stage.await_end(run)
    check(stage, run, ITEMS)
    check_repeats(stage, run)
    assert {line.attempt for line in stage.ledger.lines(run.id)} == {2}
    assert stage.fields(run)["attempt"] == "2"
