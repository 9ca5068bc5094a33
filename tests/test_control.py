"""What an owner asks of a run that nobody holds; ``tests/test_worker_control.py`` asks runs that are held."""

from __future__ import annotations

import pytest

from nbjobs import connection, interrupt, testing
from nbjobs.errors import BadData, InvalidStepError, RunEnded, RunLost
from nbjobs.jobs import job
from nbjobs.run import Run
from nbjobs.settings import NbJobs, configure
from nbjobs.stepping import step

done: list[object] = []


@job
def double(x: int) -> int:
    return 2 * x


@job
def fails_in_the_last_step() -> None:
    step("first", done.append, "first")
    step("second", done.append, "second")
    step("third", {}.__getitem__, "missing")


def names(run: Run) -> list[str]:
    return [event.name for event in run.events() if event.name != "job.progress"]


def test_a_queued_run_is_paused_and_goes_on(nbjobs_settings: NbJobs) -> None:
    """At once, and twice is once."""
    run = double.enqueue(1)
    assert run.pause() == "paused"
    assert run.pause() == "paused"
    assert run.unpause() == "queued"
    assert run.unpause() == "queued"
    assert names(run) == ["job.enqueued", "job.paused", "job.unpaused"]
    paused = next(event for event in run.events() if event.name == "job.paused")
    assert paused.payload["by"] == "ada"
    run.cancel()


def test_a_paused_run_is_cancelled(nbjobs_settings: NbJobs) -> None:
    """And then it has ended: there is nothing to pause or to go on with."""
    run = double.enqueue(1)
    run.pause()
    assert run.cancel() == "cancelled"
    for ask in (run.pause, run.unpause, run.accept, run.restart):
        with pytest.raises(RunEnded, match="has ended"):
            ask()


def test_a_scheduled_run_keeps_its_time_over_a_pause(nbjobs_settings: NbJobs) -> None:
    """It is scheduled again, not queued."""
    run = double.options(delay=3600).enqueue(1)
    assert run.pause() == "paused"
    assert run.unpause() == "scheduled"
    run.cancel()


def test_a_cancelled_run_is_opened_again(nbjobs_settings: NbJobs) -> None:
    """With the same id."""
    run = double.enqueue(1)
    run.cancel()
    assert run.retry() == "queued"
    assert names(run)[-1] == "job.reopened"
    run.cancel()


def test_a_failed_run_goes_on_where_it_failed(nbjobs_settings: NbJobs) -> None:
    """Or at an earlier step; a step that it has not is told."""
    configure(adapter="inline")
    done.clear()
    run = fails_in_the_last_step.enqueue()
    assert run.state == "failed"
    assert done == ["first", "second"]
    with pytest.raises(InvalidStepError, match="it has first, second, third"):
        run.retry(from_step="fourth")
    assert run.retry(from_step="second") == "queued"
    assert (run.view.ended_steps, run.view.step) == (1, "")
    run.cancel()


def test_a_completed_run_is_not_opened_again(nbjobs_settings: NbJobs) -> None:
    """Its work is done; enqueue it again."""
    configure(adapter="inline")
    run = double.enqueue(1)
    with pytest.raises(RunEnded, match="enqueue it again"):
        run.retry()


def test_a_lost_run_can_be_asked_nothing(nbjobs_settings: NbJobs) -> None:
    """The error names it."""
    run = Run("gone")
    for ask in (run.pause, run.cancel, run.retry):
        with pytest.raises(RunLost, match="gone"):
            ask()


rows: list[str] = []


@job
def over_rows() -> None:
    step("prepare", done.append, "prepared")
    for row in step.each("process", list(rows)):
        done.append(row)
        if row == "c":
            rows[:] = ["x"] * 4
            interrupt()


@pytest.fixture
def paused(nbjobs_settings: NbJobs) -> Run:
    """A run whose items are others now than when it did three of them."""
    configure(adapter="inline")
    done.clear()
    rows[:] = ["a", "b", "c", "d"]
    run = over_rows.enqueue()
    assert run.state == "paused"
    assert run.view.marks
    return run


def test_accepting_goes_on_with_what_still_fits(paused: Run) -> None:
    """At the index where it was: two were done."""
    assert paused.accept() == "queued"
    testing.perform(paused)
    assert paused.state == "completed"
    assert done == ["prepared", "a", "b", "c", "x", "x"]


def test_restarting_begins_again(paused: Run) -> None:
    """With no progress."""
    done.clear()
    assert paused.restart() == "queued"
    testing.perform(paused)
    assert paused.state == "completed"
    assert done == ["prepared", "x", "x", "x", "x"]


@pytest.mark.parametrize(
    "garbled",
    [{"n": "words"}, {"n": ""}, {"n": "-1", "control_n": "7"}, {"n": "2", "control_n": "9" * 15}, {"control_n": "nan"}],
)
def test_a_run_whose_numbers_are_spoilt_is_answered_all_the_same(
    nbjobs_settings: NbJobs, garbled: dict[str, str]
) -> None:
    """Nobody waits for ever for a number that never comes."""
    run = double.enqueue(1)
    connection.client().hset(f"nbjobs:{{ada}}:run:{run.id}", mapping=garbled)
    assert run.pause() == "paused"
    assert run.cancel() == "cancelled"
    assert run.retry() == "queued"
    run.cancel()


def test_a_run_whose_steps_are_spoilt_is_not_restarted(nbjobs_settings: NbJobs) -> None:
    """It is refused, in words; nothing is asked of the client's memory either."""
    run = double.enqueue(1)
    run.pause()
    connection.client().hset(f"nbjobs:{{ada}}:run:{run.id}", "steps", "1000000000000")
    with pytest.raises(BadData, match=r"BADDATA steps.*enqueue it again"):
        run.restart()
    run.cancel()
    with pytest.raises(BadData, match=r"1,000,000,000,000 of its steps"):
        run.retry(from_step="load")
