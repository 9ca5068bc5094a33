"""Several runs at once, and runs that runs enqueue."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import nbjobs
from nbjobs import events
from nbjobs.errors import NotData, RedisUnavailable, RunFailed, TooLarge
from nbjobs.events import Event
from nbjobs.jobs import job
from nbjobs.run import Run
from nbjobs.settings import NbJobs, configure
from nbjobs.stepping import interrupt, step

from .support import RedisServer

children: list[str] = []


@job
def half(x: int) -> float:
    return 12 / x


@job
def total(x: int, y: int) -> int:
    return x + y


@job
def leaf(x: int) -> int:
    return x


@job
def parent() -> None:
    for x in step.each("process", range(3)):
        children.append(leaf.enqueue(x).id)
        children.append(leaf.enqueue(x + 10).id)
        if x == 1 and len(children) < 5:
            interrupt()
    children.append(leaf.enqueue(99).id)


@pytest.fixture(autouse=True)
def inline(nbjobs_settings: NbJobs) -> NbJobs:
    children.clear()
    return configure(adapter="inline")


def test_calls_are_enqueued_as_map_calls_a_function() -> None:
    """Results come in that order."""
    runs = half.enqueue_all([1, 2, 3])
    assert len(runs) == 3
    assert runs.results() == [12, 6, 4]
    assert runs[0].id != runs[-1].id
    assert [run.id for run in runs[1:]] == [run.id for run in runs][1:]
    assert repr(runs) == "<Runs 3>"


@pytest.mark.weather("A2")
@pytest.mark.parametrize(
    ("job", "iterables", "error", "words"),
    [
        (total, ([1, 2, 3], [4, 5]), ValueError, "shorter"),
        (half, ([1, 2], [3, 4]), TypeError, "too many"),
        (half, ([1, 2, object()],), NotData, r"args\[0\]"),
        (half, ([1, 2, "x" * 70_000],), TooLarge, "at most 65,536"),
        (half.options(id="mine"), ([1, 2],), ValueError, "2 calls, and an id stands for one run"),
    ],
    ids=["lengths", "arguments", "no data", "too large", "one id"],
)
def test_no_call_is_enqueued_where_one_is_wrong(
    job: Any, iterables: tuple[Any, ...], error: type[Exception], words: str, redis_client: redis.Redis
) -> None:
    """All are checked before the first."""
    with pytest.raises(error, match=words):
        job.enqueue_all(*iterables)
    assert redis_client.keys("nbjobs:*:run:*") == []


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.weather("A2")
def test_an_id_may_stand_for_the_one_call() -> None:
    """Of one, it is no different from `enqueue`."""
    assert [run.id for run in half.options(id="mine").enqueue_all([1])] == ["mine"]


@pytest.mark.weather("A2")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("trouble", ["Redis is gone", "Ctrl-C"])
def test_no_run_is_lost_where_an_enqueue_ends_in_the_middle(nbjobs_settings: NbJobs, trouble: str) -> None:
    """The error has those that are enqueued."""
    seen: list[str] = []

    def end_after_two(event: Event) -> None:
        seen.append(event.payload["job_id"])
        if len(seen) == 2 and trouble == "Redis is gone":
            server.stop()
        elif len(seen) == 2:
            signal.raise_signal(signal.SIGINT)

    with RedisServer() as server:
        configure(redis_url=server.url, adapter="arq")
        events.subscribe(end_after_two, names="job.enqueued")
        try:
            expected = RedisUnavailable if trouble == "Redis is gone" else KeyboardInterrupt
            with pytest.raises(expected) as caught:
                half.enqueue_all([1, 2, 3, 4])
        finally:
            events.unsubscribe(end_after_two)
    assert [run.id for run in caught.value.runs] == seen
    if trouble == "Redis is gone":
        assert "2 of 4 runs are enqueued: they are this error's `runs`" in str(caught.value)


def test_a_bulk_is_told_once_in_the_process() -> None:
    """With the count of each job."""
    seen: list[Event] = []
    events.subscribe(seen.append, names="job.bulk_enqueued")
    try:
        half.enqueue_all([1, 2])
    finally:
        events.unsubscribe(seen.append)
    assert [event.payload for event in seen] == [{"adapter": "inline", "count": 2, "jobs": {half.name: 2}}]


def test_the_first_failure_is_raised_by_results() -> None:
    """All have ended by then."""
    runs = half.enqueue_all([1, 0, 2])
    with pytest.raises(RunFailed, match="ZeroDivisionError"):
        runs.results()
    assert {run.state for run in runs} == {"completed", "failed"}


def test_runs_are_yielded_as_they_end(nbjobs_settings: NbJobs) -> None:
    """Not in the order in which they were enqueued; and a timeout is told."""
    configure(adapter="arq")
    runs = half.enqueue_all([1, 2, 3])
    ending = runs.as_completed(5)
    runs[2].cancel()
    assert next(ending).id == runs[2].id
    runs[0].cancel()
    assert next(ending).id == runs[0].id
    with pytest.raises(TimeoutError, match="1 of 3 runs have not ended"):
        runs.wait(0.05)
    runs[1].cancel()
    assert runs.wait(5) is runs


def test_a_run_enqueued_by_a_run_is_the_same_after_a_resume() -> None:
    """By its step, item and place, so nothing is enqueued twice."""
    run = parent.enqueue()
    assert run.state == "completed"
    assert len(children) == 9  # the item in hand at the interrupt was done twice
    assert children[2:4] == children[4:6]
    assert len(set(children)) == 7
    assert len(nbjobs.runs()) == 8


def test_a_run_enqueued_by_a_run_has_its_user_and_tags() -> None:
    """The tags of the call come on top."""

    @job
    def outer() -> str:
        return leaf.options(tags={"own": 1}).enqueue(1).id

    run = outer.options(user="bob", tags={"team": "sales"}).enqueue()
    inner = Run(run.result(), user="bob")
    assert inner.state == "completed"
    assert next(iter(inner.events())).tags == {"team": "sales", "own": 1}
