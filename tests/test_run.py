"""``Run``: what its owner asks and tells it."""

from __future__ import annotations

import asyncio

import pytest

import nbjobs
from nbjobs.errors import RunCancelled, RunLost, RunNotFound
from nbjobs.jobs import job
from nbjobs.run import Run
from nbjobs.settings import NbJobs, configure


@job
def double(x: int) -> int:
    return 2 * x


def test_a_queued_run_is_cancelled_at_once(nbjobs_settings: NbJobs) -> None:
    """Nobody holds it, so there is nothing to wait for; twice is once."""
    run = double.enqueue(1)
    assert run.state == "queued"
    assert run.cancel() == "cancelled"
    assert run.cancel() == "cancelled"
    assert [event.name for event in run.events()] == ["job.enqueued", "job.cancelled"]
    with pytest.raises(RunCancelled, match=run.id):
        run.result()


def test_attach_finds_a_run_by_its_id(nbjobs_settings: NbJobs) -> None:
    """From any process; an unknown id is told."""
    run = double.enqueue(1)
    assert nbjobs.attach(run.id).state == "queued"
    with pytest.raises(RunNotFound, match="ada has no run 'nope'"):
        nbjobs.attach("nope")
    run.cancel()


def test_runs_lists_the_latest_first(nbjobs_settings: NbJobs) -> None:
    """By their last change."""
    configure(adapter="inline")
    first, second = double.enqueue(1), double.enqueue(2)
    assert [run.id for run in nbjobs.runs()] == [second.id, first.id]


def test_wait_gives_up_after_its_timeout_and_the_run_goes_on(nbjobs_settings: NbJobs) -> None:
    """The message says so."""
    run = double.enqueue(1)
    with pytest.raises(TimeoutError, match="it is queued and goes on"):
        run.wait(0.05)
    run.cancel()
    assert run.wait(5) is run


def test_await_is_the_result(nbjobs_settings: NbJobs) -> None:
    """In a notebook's cell, without blocking the kernel."""
    configure(adapter="inline")

    async def body() -> int:
        run = await double.aenqueue(21)
        assert await run.astate() == "completed"
        found: int = await run
        return found

    assert asyncio.run(body()) == 42


def test_a_run_that_redis_lost_says_so(nbjobs_settings: NbJobs) -> None:
    """Its state is a word, its result an error with the run's id."""
    run = Run("gone")
    assert run.state == "lost"
    with pytest.raises(RunLost, match="gone"):
        run.result()
    with pytest.raises(RunLost, match="gone"):
        run.cancel()


def test_the_view_is_what_a_card_shows(nbjobs_settings: NbJobs) -> None:
    """Folded from the run's own events."""
    configure(adapter="inline")
    run = double.enqueue(21)
    view = run.view
    assert (view.state, view.attempt, view.result) == ("completed", 1, "42")


def test_events_can_be_followed_to_the_end(nbjobs_settings: NbJobs) -> None:
    """What is kept first, then what comes, until the run has ended."""
    run = double.enqueue(1)
    following = run.events(follow=True)
    assert next(following).name == "job.enqueued"
    run.cancel()
    assert [event.name for event in following] == ["job.cancelled"]
