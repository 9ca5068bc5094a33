"""Runs are found by id, state, time and job."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest
import redis

from nbjobs import Run, attach, keys, runs
from nbjobs.errors import RunNotFound
from nbjobs.jobs import job
from nbjobs.listing import rows
from nbjobs.settings import NbJobs

from .support import wait_until

KEYS = keys.Keys("ada")


@job
def double(x: int) -> int:
    return 2 * x


@job
def triple(x: int) -> int:
    return 3 * x


def ids(found: list[Run]) -> list[str]:
    return [run.id for run in found]


@pytest.fixture
def four(nbjobs_settings: NbJobs, redis_client: redis.Redis) -> dict[str, Run]:
    """Four runs, of which the first named changed last."""
    found = {
        "queued": double.options(id="queued").enqueue(1),
        "paused": triple.options(id="paused").enqueue(1),
        "cancelled": double.options(id="cancelled").enqueue(1),
        "scheduled": triple.options(id="scheduled", delay=3600).enqueue(1),
    }
    found["paused"].pause()
    found["cancelled"].cancel()
    now = time.time() * 1000
    for hours, name in enumerate(found):
        redis_client.zadd(KEYS.runs, {name: now - hours * 3_600_000})
    return found


def test_runs_are_listed_by_their_last_change(four: dict[str, Run]) -> None:
    """The latest first, up to a limit, and as objects to go on with."""
    assert ids(runs()) == ["queued", "paused", "cancelled", "scheduled"]
    assert ids(runs(limit=2)) == ["queued", "paused"]
    assert [run.state for run in runs()] == list(four)
    assert runs(user="bob") == []


def test_runs_of_a_state(four: dict[str, Run]) -> None:
    """One, or one of several; a state that there is not is told."""
    assert ids(runs(state="paused")) == ["paused"]
    assert ids(runs(state=["queued", "scheduled"])) == ["queued", "scheduled"]
    assert ids(runs(state=("queued", "scheduled"), limit=1)) == ["queued"]
    assert runs(state="running") == []
    with pytest.raises(ValueError, match="'finished' is no state, expected one of cancelled, cancelling, completed"):
        runs(state="finished")


def test_a_run_whose_time_has_come_is_listed_as_queued(nbjobs_settings: NbJobs) -> None:
    """As its card shows it."""
    run = double.options(delay=0.05).enqueue(1)
    wait_until(lambda: run.state == "queued", 3)
    assert ids(runs(state="queued")) == [run.id]
    assert runs(state="scheduled") == []


def test_runs_since(four: dict[str, Run]) -> None:
    """A moment with or without a zone, or how long ago."""
    assert ids(runs(since=timedelta(hours=1.5))) == ["queued", "paused"]
    assert ids(runs(since=1800)) == ["queued"]
    for moment in (datetime.now(timezone.utc), datetime.now()):
        assert ids(runs(since=moment - timedelta(hours=2.5))) == ["queued", "paused", "cancelled"]


def test_runs_of_a_job(four: dict[str, Run]) -> None:
    """The job itself, its short name or its full one."""
    for wanted in (double, "double", "tests.test_listing.double"):
        assert ids(runs(job=wanted)) == ["queued", "cancelled"]
    assert runs(job="quadruple") == []
    assert ids(runs(job=triple, state="paused", since=7200)) == ["paused"]


def test_a_row_shows_how_far_a_run_is(four: dict[str, Run], redis_client: redis.Redis) -> None:
    """Without loading it."""
    redis_client.hset(KEYS.run("queued"), mapping={"step": "load", "done": "5", "total": "20", "attempt": "2"})
    row, other = rows(limit=2)
    assert (row.id, row.job, row.state) == ("queued", "tests.test_listing.double", "queued")
    assert (row.step, row.done, row.total, row.attempt, row.queue) == ("load", 5, 20, 2, "test")
    assert abs(row.changed - time.time() * 1000) < 60_000
    assert (other.step, other.done, other.total) == ("", None, None)


def test_a_list_takes_two_round_trips(four: dict[str, Run], redis_client: redis.Redis) -> None:
    """However many runs there are."""
    runs()  # the connection is made
    with redis_client.monitor() as monitor:
        runs(state="queued")
        commands = []
        while not commands or commands[-1] != "HMGET" or len(commands) < 6:
            commands.append(monitor.next_command()["command"].split()[0])
    assert commands == ["ZRANGE", "TIME", *["HMGET"] * 4]


def test_a_run_that_is_gone_is_not_listed(four: dict[str, Run], redis_client: redis.Redis) -> None:
    """Its time is over; the list is swept once an hour."""
    redis_client.delete(KEYS.run("paused"))
    assert ids(runs()) == ["queued", "cancelled", "scheduled"]
    redis_client.zrem(KEYS.due, "paused")


def test_a_run_is_attached_by_its_id(four: dict[str, Run]) -> None:
    """One that there is not is told, with where to look."""
    assert attach("paused").state == "paused"
    with pytest.raises(RunNotFound, match=r"nbjobs\.runs"):
        attach("nobody")
