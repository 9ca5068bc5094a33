"""Waiting for Redis: which errors are waited out, how long, and what the log says of it."""

from __future__ import annotations

import logging
from weakref import WeakSet

import pytest
import redis

from nbjobs import backoff
from nbjobs.backoff import Backoff
from nbjobs.errors import EmbeddedError, RedisNotPrepared, RedisUnavailable

LOGGER = logging.getLogger("nbjobs.test")
ANSWERS = [
    RedisUnavailable("Redis at x does not answer."),
    RedisNotPrepared("No worker has prepared this Redis yet."),
    redis.ResponseError("EXPLODED and nobody knows why"),
    redis.ConnectionError("reset"),
    redis.TimeoutError("late"),
    redis.InvalidResponse('Protocol error, got "H"'),
    OSError("no such file"),
]
OF_THE_CALL = [
    redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    redis.ResponseError("user_script:3: attempt to index nil script: " + 40 * "a"),
]


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "_waiting", WeakSet())


@pytest.mark.weather("H2")
@pytest.mark.parametrize("error", ANSWERS + OF_THE_CALL, ids=str)
def test_a_service_waits_out_whatever_redis_answers(error: Exception) -> None:
    """With pauses that grow to the longest, and begin anew once it answers; what is not Redis' is raised."""
    service, pauses = Backoff(LOGGER, longest=1.0), []
    for _ in range(12):
        with service:
            raise error
        pauses.append(service.pause)
    assert 0.01 <= pauses[0] < 0.04 and 0.5 <= pauses[-1] <= 1.5
    with service:
        pass
    assert (service.pause, service.error) == (0.0, "")
    with pytest.raises(EmbeddedError), service:
        raise EmbeddedError("no interpreter")
    with pytest.raises(ZeroDivisionError), service:
        raise ZeroDivisionError


@pytest.mark.weather("H2")
@pytest.mark.parametrize("error", ANSWERS, ids=str)
def test_one_call_is_repeated_where_that_may_help(error: Exception) -> None:
    """What may pass is swallowed."""
    call = Backoff(LOGGER, insists=True)
    with call:
        raise error
    assert call.pause > 0


@pytest.mark.weather("H2")
@pytest.mark.parametrize("error", OF_THE_CALL, ids=str)
def test_one_call_is_not_repeated_where_redis_has_something_against_it(error: Exception) -> None:
    """Its key holds something else, or its script stumbled: again it would do so for ever."""
    with pytest.raises(redis.ResponseError), Backoff(LOGGER, insists=True):
        raise error


@pytest.mark.weather("H2")
def test_one_call_is_not_repeated_for_ever_for_what_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of nothing but unknown errors is the end; any other answer in between begins it anew."""
    now = 1000.0
    monkeypatch.setattr(backoff.time, "monotonic", lambda: now)
    call, unknown = Backoff(LOGGER, insists=True), redis.ResponseError("EXPLODED")
    for seconds, error in ((0, unknown), (59, unknown), (1, RedisUnavailable("away")), (1, unknown), (59, unknown)):
        now += seconds
        with call:
            raise error
    now += 2
    with pytest.raises(redis.ResponseError, match="EXPLODED"), call:
        raise unknown


@pytest.mark.weather("H2")
def test_all_that_wait_say_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line as the first begins, one for each further reason, one when the last of them goes on."""
    caplog.set_level(logging.INFO, LOGGER.name)
    services = [Backoff(LOGGER) for _ in range(3)]
    for error in (RedisUnavailable("Redis at x is away."), redis.ResponseError("READONLY You can't write")):
        for _ in range(20):
            for service in services:
                with service:
                    raise error
    for service in services[:2]:
        with service:
            pass
    assert [record.message for record in caplog.records] == [
        "Redis at x is away. Waiting for it.",
        "Redis answers: READONLY You can't write. Waiting for it.",
    ]
    services.pop()  # one that was cancelled while it waited holds up nothing
    del service
    with services[0]:
        raise RedisUnavailable("Redis at x is away.")
    with services[0]:
        pass
    told = [record.message for record in caplog.records[2:]]
    assert told[0] == "Redis at x is away. Waiting for it." and told[1].startswith("Redis answers again, after ")
    assert len(told) == 2
