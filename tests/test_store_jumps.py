"""What a sweeper's look makes of times that a jump of Redis' clock has spoilt."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from nbjobs.clock import SteadyClock
from nbjobs.store import Store

RUN, OWNER = "r1", "w1:a"
FIELDS = {"job": "m.f", "args": "[[],{}]", "kind": "sync", "queue": "test", "user": "ada"}
SECOND, HOUR = 1_000, 3_600_000
LEASE = 15 * SECOND


class Looks:
    """One run, and looks of a sweeper at it."""

    def __init__(self, store: Store, client: redis.Redis) -> None:
        self.store = store
        self.client = client
        self.key = store.keys.run(RUN)

    def put(self, **fields: Any) -> None:
        self.client.hset(self.key, mapping=fields)

    def field(self, name: str) -> int:
        return int(self.client.hget(self.key, name) or 0)

    @property
    def due(self) -> float | None:
        return self.client.zscore(self.store.keys.due, RUN)

    def look(self, earliest: int = 0, latest: int = 0) -> str:
        """Look where it may be so much earlier or later than Redis says."""
        seconds, micros = self.client.time()
        now = int(seconds) * 1000 + int(micros) // 1000
        return self.store.lapse(RUN, "", "{}", bounds=(now + earliest, now + latest)).code

    def held(self) -> int:
        """Claim the run; return Redis time."""
        self.store.enqueue(RUN, FIELDS)
        return self.store.claim(RUN, OWNER, 1).now


@pytest.fixture
def looks(store: Store, redis_client: redis.Redis) -> Looks:
    return Looks(store, redis_client)


@pytest.mark.weather("H1")
def test_a_lease_is_over_when_it_is_so_by_both_bounds(looks: Looks) -> None:
    """While the clock may be ahead the run is kept, and looked at soon again; afterwards it is taken."""
    now = looks.held()
    looks.put(lease_until=now - SECOND)
    assert looks.look(earliest=-HOUR) == "HELD"
    assert now < (looks.due or 0) <= now + 2 * SECOND
    assert looks.look() == "OK"
    assert looks.field("crashes") == 1


@pytest.mark.weather("H1")
def test_a_jump_after_the_sweeper_asked_the_time_takes_no_run(looks: Looks) -> None:
    """The time of the look is what the sweeper heard, where Redis' own is later by now."""
    now = looks.held()
    looks.put(lease_until=now - SECOND)
    assert looks.look(earliest=-2 * SECOND) == "HELD"


@pytest.mark.weather("M3")
def test_a_lease_that_no_claim_could_give_is_over(looks: Looks) -> None:
    """More than two leases ahead: it is of before the clock was set back. While that may be now it is kept."""
    now = looks.held()
    looks.put(lease_until=now + HOUR + LEASE)
    assert looks.look(latest=HOUR) == "HELD"
    assert looks.look() == "OK"


@pytest.mark.weather("M3")
def test_a_clock_that_knows_nothing_takes_no_run(looks: Looks) -> None:
    """What a sweeper tells that has just begun is understood by the script, whichever way the clock was set."""
    now = looks.held()
    for ends in (now - SECOND, now + HOUR + LEASE):
        looks.put(lease_until=ends)
        bounds = SteadyClock(patience=10, tolerance=1).bounds()
        assert looks.store.lapse(RUN, "", "{}", bounds=bounds).code == "HELD"


@pytest.mark.weather("M3")
def test_a_lease_is_measured_by_the_setting_of_its_holder(store: Store, looks: Looks) -> None:
    """A worker with long leases loses none to a sweeper with short ones."""
    now = looks.held()
    looks.put(lease_until=now + 60 * SECOND, lease_ms=60 * SECOND)
    assert looks.look() == "HELD"


@pytest.mark.weather("M3")
def test_a_wait_begins_again_where_the_clock_was_set_back(looks: Looks) -> None:
    """A retry and a delay last no longer than they were to last, from when that is noticed."""
    looks.store.enqueue(RUN, FIELDS, delay_ms=10 * SECOND)
    assert looks.field("wait") == 10 * SECOND
    at = looks.field("at")
    looks.put(at=at + HOUR)
    assert looks.look(latest=HOUR) == "EARLY"
    assert looks.field("at") == at + HOUR == looks.due
    assert looks.look() == "EARLY"
    assert at <= looks.field("at") < at + 5 * SECOND
    assert looks.due == looks.field("at")


@pytest.mark.weather("M3")
def test_a_retry_says_how_long_it_waits(store: Store, looks: Looks) -> None:
    """Else nobody could tell a wait that is too long; a crash's wait is told too."""
    looks.held()
    looks.store.finish(RUN, OWNER, "retrying", wait_ms=3 * SECOND, d="{}")
    assert looks.field("wait") == 3 * SECOND
    looks.put(at=0)
    looks.store.claim(RUN, OWNER, 2)
    looks.put(crashes=1)
    looks.store.lapse(RUN, OWNER, "{}")
    assert looks.field("wait") == 10 * SECOND


@pytest.mark.weather("M3")
def test_a_time_of_the_day_is_waited_for(looks: Looks) -> None:
    """A run that is scheduled for a time begins then, whatever the clock was when it was enqueued."""
    seconds, _ = looks.client.time()
    at = int(seconds) * 1000 + 9 * HOUR
    looks.store.enqueue(RUN, FIELDS, at_ms=at)
    assert looks.look() == "EARLY"
    assert looks.field("at") == at == looks.due


@pytest.mark.parametrize(("minutes", "next"), [(0, 1), (0.5, 1), (4, 4), (60, 10)])
def test_a_run_that_waits_in_the_queue_is_looked_at_less_and_less(looks: Looks, minutes: float, next: float) -> None:
    """After a minute first, for a wake-up may be lost; then after as long as it has waited, at most ten minutes."""
    looks.store.enqueue(RUN, FIELDS)
    seconds, _ = looks.client.time()
    now = int(seconds) * 1000
    looks.put(last_id=f"{now - round(minutes * 60 * SECOND)}-0")
    assert looks.look() == "QUEUE"
    assert now + next * 60 * SECOND <= (looks.due or 0) < now + next * 60 * SECOND + 5 * SECOND
