"""What the scripts make of numbers that are none: in their arguments, and in fields that their user has written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nbjobs import connection
from nbjobs.calls import MAX_ENDED, Call, Commit
from nbjobs.scripts import NAMES
from nbjobs.settings import NbJobs
from nbjobs.store import Store

from .support import RedisServer, snapshot

RUN, OWNER = "r1", "w1:a"
FIELDS = {"job": "m.f", "args": "[]", "kind": "sync", "queue": "q"}
LONGEST = 4.0  # seconds that a call may take on a busy machine; a loop that is not bounded takes minutes
GARBAGE = [
    *("", "nan", "-nan", "inf", "-inf", "1e15", "1e308", "-1", "-0", "-1000000000000000", "+5", "0x10", "1.5"),
    *(" 5", "5 ", "5\n", "\x005", "٣", "words", "9007199254740992", "9" * 17, "9" * 400, "1" * 20_000, "1," * 50_000),
]
NUMBERS = ("c", "n", "control_n", "attempt", "at", "fence", "lease_until", "crashes", "failures", "resumptions")
COUNTED = (*NUMBERS, "steps", "bytes", "done", "total", "maps")
ALL = {
    "max_examples": 25,
    "derandomize": True,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture
def bare(redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[Store]:
    """A store for many examples, each of which begins with an empty Redis."""
    client = connection.sync_client(redis_server.url)
    yield Store(client, "ada", NbJobs())
    redis_client.flushall()
    client.close()


def checkpoint(c: int, n: int, **more: Any) -> Commit:
    usual = {"view": "view", "step": "rows", "cursor": "1", "done": 1, "total": 9, "events": [("s", "job.step", "{}")]}
    return Commit(c, n, **{**usual, "ended": [('{"name":"a"}', "1")], "results": [("1:0", "2")], **more})


def brought(store: Store, script: str) -> Call:
    """Bring a run to where the script does something, and return the call of it."""
    calls = store.calls
    if script == "enqueue":
        return calls.enqueue(RUN, FIELDS, "{}", delay_ms=5)
    store.enqueue(RUN, FIELDS, "{}")
    if script == "claim":
        return calls.claim(RUN, OWNER, 1, "{}", told={"kind": "sync"})
    store.claim(RUN, OWNER, 1, "{}")
    store.commit(RUN, OWNER, checkpoint(1, 2, results=[("1", "load"), ("1:0", "1")]))
    if script == "control":
        store.finish(RUN, OWNER, "paused", d="{}", commit=checkpoint(2, 3))
        return calls.control(RUN, "restart", 99, "{}")
    if script == "reopen":
        store.finish(RUN, OWNER, "failed", d="{}", commit=checkpoint(2, 3))
        return calls.reopen(RUN, 99, 1, "{}")
    return {
        "commit": calls.commit(RUN, OWNER, checkpoint(2, 3)),
        "renew": calls.renew(RUN, OWNER),
        "finish": calls.finish(RUN, OWNER, "retrying", wait_ms=5, failed=True, d="{}", commit=checkpoint(2, 3)),
        "lapse": calls.lapse(RUN, OWNER, "{}"),
    }[script]


def sent(store: Store, call: Call, client: redis.Redis) -> str:
    """Send a call; return its code, or nothing where Redis refused it and nothing was changed."""
    before, began = snapshot(client), time.monotonic()
    try:
        code = store.send(call._replace(before=())).code
    except connection.ResponseError:
        code = ""
    assert time.monotonic() - began < LONGEST
    if code not in ("OK", "AGAIN", "QUEUE", "NONE", "EARLY", "HELD"):
        assert snapshot(client) == before, code
    return code


def well_formed(client: redis.Redis, store: Store) -> None:
    """Check what every run keeps: numbers, an event for each of 1..n, and as many steps as it counts."""
    run = client.hgetall(store.keys.run(RUN))
    assert all(run[name].isdigit() and int(run[name]) < 2**53 for name in (*NUMBERS[:2], "steps", "bytes")), run
    numbered = [int(entry["n"]) for _, entry in client.xrange(store.keys.events(RUN)) if "n" in entry]
    assert numbered == list(range(1, int(run["n"]) + 1))
    counts = [sum(name.startswith(kind) for name in run) for kind in ("s:", "v:")]
    assert counts == [int(run["steps"])] * 2
    assert int(run["bytes"]) == sum(len(text.encode()) for name, text in run.items() if name.startswith("v:"))
    assert run["last_id"] == client.xrevrange(store.keys.events(RUN), count=1)[0][0]


@pytest.mark.weather("H9")
@pytest.mark.leaky
@pytest.mark.parametrize("script", NAMES)
def test_a_garbled_argument_is_refused_or_taken_for_none(bare: Store, redis_client: redis.Redis, script: str) -> None:
    """Whatever stands where a number should: the answer comes soon, a refusal changes nothing, and the run holds."""

    @settings(**ALL)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        redis_client.flushall()
        call = brought(bare, script)
        args = [str(one) for one in call.args]
        for index in data.draw(st.sets(st.integers(1, len(args) - 1), min_size=1, max_size=3)):
            args[index] = data.draw(st.sampled_from(GARBAGE))
        sent(bare, call._replace(args=args), redis_client)
        if redis_client.exists(bare.keys.run(RUN)) and args[2:4] == [str(one) for one in call.args][2:4]:
            well_formed(redis_client, bare)

    check()


@pytest.mark.weather("H9")
@pytest.mark.leaky
@pytest.mark.parametrize("script", ["commit", "finish", "enqueue", "claim"])
def test_arguments_that_are_missing_or_too_many_are_refused(
    bare: Store, redis_client: redis.Redis, script: str
) -> None:
    """Cut anywhere, or of a million: nothing is written, and nothing takes long."""
    call = brought(bare, script)
    for count in range(4, len(call.args)):
        before = snapshot(redis_client)
        code = sent(bare, call._replace(args=call.args[:count]), redis_client)
        if code == "OK":  # some are optional: the next one begins where this one did
            redis_client.flushall()
            brought(bare, script)
        else:
            assert snapshot(redis_client) == before
    many = [*call.args, *["m", "1:1", "x"] * 100_000]
    assert sent(bare, call._replace(args=many), redis_client) in ("TOOBIG", "BADDATA")


@pytest.mark.weather("H9")
@pytest.mark.leaky
@pytest.mark.parametrize("script", NAMES)
def test_a_garbled_field_costs_no_time(bare: Store, redis_client: redis.Redis, script: str) -> None:
    """A user may write anything into the fields of a run of its own; each call of it answers all the same."""

    @settings(**ALL)
    @given(st.dictionaries(st.sampled_from(COUNTED), st.sampled_from(GARBAGE), min_size=1, max_size=4))
    @example({"steps": "1000000000000"})
    @example({"steps": "1e12"})
    @example({"steps": str(MAX_ENDED + 1)})
    @example({"maps": "1," * 1_000_000})
    @example({"maps": "1," * 131_000})
    def check(garbled: dict[str, str]) -> None:
        redis_client.flushall()
        call = brought(bare, script)
        redis_client.hset(bare.keys.run(RUN), mapping=garbled)
        sent(bare, call, redis_client)

    check()


@pytest.mark.weather("H9")
def test_a_count_below_zero_of_ended_steps_is_refused(store: Store) -> None:
    """It would be as many turns of a loop, in which Redis answers nobody."""
    store.enqueue(RUN, FIELDS, "{}")
    store.claim(RUN, OWNER, 1, "{}")
    call = store.calls.commit(RUN, OWNER, checkpoint(1, 2))
    args = [*call.args[:14], "-1000000000000000", *call.args[15:]]
    assert call.args[14] == "1"
    reply = store.send(call._replace(args=args))
    assert (reply.code, reply.detail) == ("BADDATA", "commit")


# -- many steps ------------------------------------------------------------------------------------


def with_steps(store: Store, count: int) -> None:
    """Bring a run to where it is held and so many of its steps have ended."""
    store.enqueue(RUN, FIELDS, "{}")
    store.claim(RUN, OWNER, 1, "{}")
    for c, first in enumerate(range(1, count + 1, 64), 1):
        ended = [(f'{{"name":"{k}"}}', str(k)) for k in range(first, min(first + 64, count + 1))]
        assert store.commit(RUN, OWNER, Commit(c, 0, ended=ended, step="last", cursor="5")).code == "OK"


@pytest.mark.weather("H6")
@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 6000), st.booleans(), st.data())
@example(0, False, None)
@example(3_990, False, None)
@example(4_000, True, None)
@example(20_000, False, None)
@example(20_000, True, None)
def test_steps_are_forgotten_however_many_they_are(
    bare: Store, redis_client: redis.Redis, count: int, ended: bool, data: Any
) -> None:
    """Restarted or opened again from any step: all behind it is gone, and what is left is counted right."""
    redis_client.flushall()
    with_steps(bare, count)
    bare.finish(RUN, OWNER, "failed" if ended else "paused", d="{}")
    first = data.draw(st.integers(1, count + 1)) if ended and data is not None else 1
    reply = bare.reopen(RUN, 99, first, "{}") if ended else bare.control(RUN, "restart", 99, "{}")
    assert (reply.code, reply.state) == ("OK", "queued")
    assert redis_client.hget(bare.keys.run(RUN), "steps") == str(first - 1)
    assert redis_client.hmget(bare.keys.run(RUN), "step", "cursor") == ["", ""]
    well_formed(redis_client, bare)


@pytest.mark.weather("H6")
@pytest.mark.parametrize("claimed", ["6", "1000000000000", str(MAX_ENDED + 1), "100000"])
@pytest.mark.parametrize("ended", [False, True])
def test_a_run_that_counts_steps_it_has_not_keeps_what_it_has(
    store: Store, redis_client: redis.Redis, claimed: str, ended: bool
) -> None:
    """Restart and retry refuse it before they forget the first."""
    with_steps(store, 5)
    store.finish(RUN, OWNER, "failed" if ended else "paused", d="{}")
    redis_client.hset(store.keys.run(RUN), "steps", claimed)
    before = snapshot(redis_client)
    call = store.calls.reopen(RUN, 99, 2, "{}") if ended else store.calls.control(RUN, "restart", 99, "{}")
    reply = store.send(call._replace(before=()))
    assert (reply.code, reply.detail) == ("BADDATA", "steps")
    assert snapshot(redis_client) == before
    redis_client.delete(store.keys.due)


@pytest.mark.weather("H6")
def test_a_run_has_no_more_steps_than_can_be_forgotten(store: Store, redis_client: redis.Redis) -> None:
    """A commit that would bring more is refused whole."""
    with_steps(store, 1)
    redis_client.hset(store.keys.run(RUN), "steps", str(MAX_ENDED - 1))
    ended = [('{"name":"a"}', "1")] * 2
    reply = store.commit(RUN, OWNER, Commit(2, 0, ended=ended))
    assert (reply.code, reply.detail) == ("TOOBIG", "steps")
    assert store.commit(RUN, OWNER, Commit(2, 0, ended=ended[:1])).code == "OK"
