"""What becomes of runs whose holder is gone, and who looks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from nbjobs import keys
from nbjobs.connection import AsyncClient, async_client
from nbjobs.entry import arq_serialize
from nbjobs.keys import Keys
from nbjobs.leases import Held, Leases, new_owner, new_worker_id, process_of
from nbjobs.settings import NbJobs
from nbjobs.store import Store
from nbjobs.sweeper import Sweeper

from .support import await_until

pytestmark = pytest.mark.leaky  # entries of arq's queue and the sweeper's lock stay

ADA = Keys("ada")
SETTINGS = NbJobs(lease=1, renew=0.3, crash_wait=[0])


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[AsyncClient]:
    found = async_client(redis_url)
    yield found
    await found.aclose()


@pytest.fixture
def leases(client: AsyncClient) -> Leases:
    return Leases(client, SETTINGS)


@pytest.fixture
def ada(redis_url: str, redis_client: redis.Redis) -> Store:
    return Store(redis_client, "ada", SETTINGS)


def enqueue(store: Store, run: str = "r1", **options: Any) -> None:
    fields = {"job": "m.f", "args": "[[],{}]", "kind": "sync", "queue": "test", "user": "ada", "tags": '{"k":1}'}
    assert store.enqueue(run, fields, **options).code == "OK"


def entries(client: redis.Redis) -> list[str]:
    return list(client.zrange(keys.arq_queue("test"), 0, -1))


def held(store: Store, owner: str = "me:1") -> Held:
    fields = ("owner", "attempt", "job", "queue", "user", "tags")
    found = Held.of(ADA, "r1", dict(zip(fields, store.read("r1", *fields), strict=True)))
    assert found.owner == owner
    return found


async def settle(leases: Leases) -> None:
    """Let time go on without a jump for so long that a living holder would have renewed its lease."""
    await leases.tell_time()
    await await_until(lambda: leases.clock.settled, 5, "the clock has seen no jump")


async def test_a_lapsed_run_is_queued_again(ada: Store, leases: Leases, redis_client: redis.Redis) -> None:
    """The interrupt says why, and the next attempt has its entry."""
    enqueue(ada)
    ada.claim("r1", "me:1", 1)
    reply = await leases.lapse(held(ada), "worker_died", "it ended", signal="SIGKILL", last_lines=["bye"])
    assert (reply.code, reply.state, reply.crashes) == ("OK", "queued", 1)
    assert entries(redis_client) == ["{ada}:r1:2"]
    last = redis_client.xrevrange(ADA.events("r1"), count=1)[0][1]
    assert last["e"] == "job.interrupt"
    for text in ('"reason":"worker_died"', '"signal":"SIGKILL"', '"last_lines":["bye"]', '"job":"m.f"', '"t":{"k":1}'):
        assert text in last["d"]


async def test_a_run_that_has_ended_is_left_alone(ada: Store, leases: Leases, redis_client: redis.Redis) -> None:
    """Lapse is called after every end, whatever was said before."""
    enqueue(ada)
    ada.claim("r1", "me:1", 1)
    before = held(ada)
    ada.finish("r1", "me:1", "completed")
    reply = await leases.lapse(before, "child_died")
    assert (reply.code, reply.state) == ("AGAIN", "completed")
    assert entries(redis_client) == []


async def test_a_released_run_counts_no_crash(ada: Store, leases: Leases) -> None:
    """A child that was ended without fault of its own."""
    enqueue(ada)
    ada.claim("r1", "me:1", 1)
    reply = await leases.release(held(ada), "stopping")
    assert (reply.state, reply.crashes) == ("queued", 0)


async def test_a_dead_workers_runs_are_found_by_its_process(ada: Store, leases: Leases) -> None:
    """Whoever saw a process end knows what it held, and takes nothing from others."""
    mine, other = new_owner(new_worker_id()), "elsewhere-1-abcdef:00"
    for run, owner in (("r1", mine), ("r2", other)):
        enqueue(ada, run)
        ada.claim(run, owner, 1)
    assert await leases.lapse_held_by(lambda owner: process_of(owner) is not None, "gone") == 1
    assert ada.read("r1", "owner") == [""]
    assert ada.read("r2", "owner") == [other]


async def test_the_sweeper_takes_back_what_nobody_renews(ada: Store, leases: Leases, redis_client: redis.Redis) -> None:
    """A lease that is over: lapsed and queued."""
    enqueue(ada)
    ada.claim("r1", "me:1", 1)
    redis_client.hset(ADA.run("r1"), "lease_until", "1")
    redis_client.zadd(ADA.due, {"r1": 1})
    await settle(leases)
    await Sweeper(leases, SETTINGS).look()
    assert ada.read("r1", "state", "crashes") == ["queued", "1"]
    assert entries(redis_client) == ["{ada}:r1:2"]


async def test_the_sweeper_begins_what_has_waited(ada: Store, leases: Leases, redis_client: redis.Redis) -> None:
    """A run that says `scheduled` or `retrying` gets its entry when its time has come, not before."""
    enqueue(ada, delay_ms=100_000)
    sweeper = Sweeper(leases, NbJobs(lease=1, renew=0.3, sweep=200))
    redis_client.zadd(ADA.due, {"r1": 1})
    wait = await sweeper.look()
    assert entries(redis_client) == []
    assert 90 < wait <= 100.1
    redis_client.hset(ADA.run("r1"), "at", "1")
    redis_client.zadd(ADA.due, {"r1": 1})
    redis_client.delete(keys.SWEEPER)
    await Sweeper(leases, SETTINGS).look()
    assert entries(redis_client) == ["{ada}:r1:1"]


async def test_the_sweeper_does_not_announce_a_queue_anew(
    ada: Store, leases: Leases, redis_client: redis.Redis
) -> None:
    """A run whose entry is there needs none."""
    enqueue(ada, queue="test")
    redis_client.zadd(keys.arq_queue("test"), {"{ada}:r1:1": 7})
    redis_client.zadd(ADA.due, {"r1": 1})
    await Sweeper(leases, SETTINGS).look()
    assert redis_client.zscore(keys.arq_queue("test"), "{ada}:r1:1") == 7
    assert (redis_client.zscore(ADA.due, "r1") or 0) > 1_000_000


async def test_one_sweeper_looks_at_a_time(leases: Leases, redis_client: redis.Redis, ada: Store) -> None:
    """While another one has the lock, a look is put off, and soon repeated."""
    enqueue(ada)
    redis_client.zadd(ADA.due, {"r1": 1})
    redis_client.set(keys.SWEEPER, "1")
    assert await Sweeper(leases, SETTINGS).look() < 1
    assert redis_client.zscore(ADA.due, "r1") == 1


async def test_scripts_are_loaded_where_redis_forgot_them(
    ada: Store, leases: Leases, redis_client: redis.Redis
) -> None:
    """A pipeline of calls is sent again after a restart of Redis."""
    enqueue(ada)
    ada.claim("r1", "me:1", 1)
    redis_client.script_flush()
    calls = [leases.store(ADA).calls.renew("r1", "me:1")]
    assert [reply.code for reply in await leases.send_all(calls)] == ["OK"]


def test_an_entry_is_what_arq_itself_would_read() -> None:
    """The function, the run as its only argument, no tries."""
    from arq.jobs import deserialize_job_raw

    from nbjobs.entry import arq_deserialize

    raw = arq_serialize({"t": None, "f": "attempt", "a": ["r1"], "k": {}, "et": 5})
    function, arguments, named, tries, at = deserialize_job_raw(raw, deserializer=arq_deserialize)
    assert (function, list(arguments), named, tries, at) == ("attempt", ["r1"], {}, None, 5)
