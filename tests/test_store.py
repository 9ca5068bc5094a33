"""The stores: what goes with a script, plain reads and writes, and asyncio."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis
from arq.connections import ArqRedis
from arq.jobs import Job
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import ConnectionPool

from nbjobs import connection
from nbjobs.calls import CODE_KEPT, Clock, Commit, arq_deserialize, arq_serialize, entry_commands
from nbjobs.entry import TOLD, read_wake_up
from nbjobs.errors import RedisUnavailable, TooLarge
from nbjobs.keys import Keys, arq_id
from nbjobs.settings import NbJobs
from nbjobs.store import AsyncStore, Store

from .proxy import Proxy
from .support import RedisServer, snapshot

RUN = "r1"
OWNER = "w1:a"
FIELDS = {"job": "m.f", "args": "[]", "queue": "q"}
DAY = 86_400_000


@pytest.fixture
async def astore(redis_url: str) -> AsyncIterator[AsyncStore]:
    client = connection.async_client(redis_url)
    yield AsyncStore(client, "ada", NbJobs())
    await client.aclose()


@pytest.fixture
def heard(redis_client: redis.Redis) -> Iterator[Callable[[], str]]:
    """The next wake-up of the queue ``q``."""
    with redis_client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe("nbjobs:wake:q")
        listener.get_message(timeout=5)

        def next_one() -> str:
            message = listener.get_message(timeout=5)
            assert message is not None
            return str(message["data"])

        yield next_one


def arq_client(server: RedisServer) -> ArqRedis:
    pool = ConnectionPool.from_url(server.url)
    arq = ArqRedis(pool, job_serializer=arq_serialize, job_deserializer=arq_deserialize)
    arq.auto_close_connection_pool = True
    return arq


# -- arq's entry -----------------------------------------------------------------------------------


async def test_entry_is_the_one_that_arq_writes(redis_client: redis.Redis, redis_server: RedisServer) -> None:
    """Keys, types and data of an entry are those of arq's own enqueue_job, so arq's worker can take it."""
    id = arq_id("ada", RUN, 1)
    for command in entry_commands("ada", RUN, 1, "q", 1_800_000_000_000):
        redis_client.execute_command(*command)
    ours = snapshot(redis_client)
    redis_client.flushall()
    arq = arq_client(redis_server)
    await arq.enqueue_job("attempt", RUN, _job_id=id, _queue_name="arq:queue:q", _expires=10 * 365 * DAY / 1000)
    theirs = snapshot(redis_client)
    assert ours.keys() == theirs.keys() == {f"arq:job:{id}", "arq:queue:q"}
    (our_id, our_score), (their_id, _) = ours["arq:queue:q"][0], theirs["arq:queue:q"][0]
    assert our_id == their_id == id
    assert our_score == 1_800_000_000_000 - DAY
    mine, arqs = (arq_deserialize(held[f"arq:job:{id}"].encode()) for held in (ours, theirs))
    assert {**mine, "et": 0} == {**arqs, "et": 0}
    await arq.aclose()


async def test_arq_reads_our_entry(store: Store, redis_server: RedisServer) -> None:
    """An entry decoded by arq, with our deserializer, has the run's id as its only argument."""
    reply = store.enqueue(RUN, FIELDS, "{}", queue="q")
    arq = arq_client(redis_server)
    info = await Job(arq_id("ada", RUN, 1), arq, "arq:queue:q", arq_deserialize).info()
    assert info is not None
    assert (info.function, info.args, info.kwargs, info.job_try) == ("attempt", [RUN], {}, None)
    assert info.score is not None
    assert abs(info.score - (reply.now - DAY)) < 5000
    await arq.aclose()


def test_entry_goes_along_with_the_enqueue(store: Store, redis_client: redis.Redis, heard: Callable[[], str]) -> None:
    """One round trip stores the run, writes the entry and wakes a worker with the entry's id."""
    store.enqueue(RUN, FIELDS, "{}", queue="q")
    assert heard() == arq_id("ada", RUN, 1)
    assert redis_client.zrange("arq:queue:q", 0, -1) == [arq_id("ada", RUN, 1)]
    assert redis_client.pttl(f"arq:job:{arq_id('ada', RUN, 1)}") > 365 * DAY


def test_a_new_run_is_told_with_its_wake_up(store: Store, heard: Callable[[], str]) -> None:
    """What never changes of it goes along; what is too long for all who hear it does not."""
    whole = {**FIELDS, **dict.fromkeys(TOLD, "é { \n"), "tags": '{"a":"b c"}'}
    told = []
    for run, fields in {"r1": whole, "r2": {**whole, "tags": "x" * 5000}}.items():
        store.enqueue(run, fields, "{}", queue="q")
        told.append(read_wake_up(heard()))
    assert told == [("{ada}:r1:1", {name: whole[name] for name in TOLD}), ("{ada}:r2:1", {})]


@given(st.text() | st.text().map("{{ada}}:r1:1 {}".format) | st.lists(st.text()).map("{{ada}}:r1:1 {}".format))
@example("{ada}:r1:1 " + "[" * 100_000)
@example('{ada}:r1:1 ["a","b","c","d","e","f","g","h"]')
def test_a_wake_up_may_be_anything(message: str) -> None:
    """The channel is open to others: what is none of ours wakes, and says nothing."""
    id, told = read_wake_up(message)
    assert id in ("", "{ada}:r1:1")
    assert told == {} or list(told) == list(TOLD)


def test_later_attempt_is_queued_by_its_number(store: Store, redis_client: redis.Redis) -> None:
    """Each attempt has an entry of its own."""
    store.queue(RUN, 3, "q")
    assert redis_client.zrange("arq:queue:q", 0, -1) == ["{ada}:r1:3"]


@pytest.mark.leaky
def test_hint_that_is_refused_does_not_undo_the_run(
    store: Store, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Where only the entry is refused, the run is stored all the same: the sweeper will find it. It is told."""
    redis_client.set("arq:queue:q", "not a sorted set")
    with caplog.at_level(logging.WARNING, "nbjobs.store"):
        assert store.enqueue(RUN, FIELDS, queue="q").code == "OK"
    assert "may begin late" in caplog.text


def test_pickle_is_never_loaded() -> None:
    """An entry that is no JSON is an error, whatever else it may be."""
    import pickle

    with pytest.raises(ValueError, match="JSON is malformed"):
        arq_deserialize(pickle.dumps({"f": "attempt"}))


# -- plain reads and writes ------------------------------------------------------------------------


def test_code_is_stored_once_and_kept_while_it_is_used(store: Store, redis_client: redis.Redis) -> None:
    """Code by value comes back byte for byte; writing, enqueuing and loading each keep it for 30 days more."""
    data = bytes(range(256)) * 10
    store.put_code("abc", data)
    key = store.keys.code("abc")
    for use in (
        lambda: store.put_code("abc", b"not stored: the hash is known"),
        lambda: store.enqueue(RUN, {**FIELDS, "code": "abc"}),
        lambda: store.get_code("abc"),
    ):
        redis_client.pexpire(key, 1000)
        use()
        assert redis_client.pttl(key) > CODE_KEPT - 60_000
    assert store.get_code("abc") == data
    assert store.get_code("other") is None


def test_code_that_is_too_large_is_refused(store: Store) -> None:
    """One MiB of code is the limit, and the error says what to do."""
    with pytest.raises(TooLarge, match="belong into a file") as caught:
        store.put_code("abc", b"x" * (1024 * 1024 + 1))
    assert (caught.value.size, caught.value.limit, caught.value.what) == (1024 * 1024 + 1, 1024 * 1024, "code")


def test_bytes_that_are_no_text_survive_reading(store: Store, redis_client: redis.Redis) -> None:
    """Foreign bytes in a field do not stop a reader; the codec is who refuses them."""
    store.enqueue(RUN, FIELDS)
    redis_client.hset(store.keys.run(RUN), "cursor", b"\x80\x04pickle")
    assert store.read(RUN, "cursor", "nothing") == ["\udc80\x04pickle", None]
    assert store.claim(RUN, OWNER, 1).cursor.encode("utf-8", "surrogateescape") == b"\x80\x04pickle"


def test_since_measures_in_redis_time(store: Store, redis_client: redis.Redis) -> None:
    """The first call notes the time, later ones say how long ago that was, until it is forgotten."""
    store.enqueue(RUN, FIELDS)
    assert store.since(RUN, "missing_since") < 5
    noted = int(store.read(RUN, "missing_since")[0] or 0)
    redis_client.hset(store.keys.run(RUN), "missing_since", noted - 700_000)
    assert 700 <= store.since(RUN, "missing_since") < 710
    store.forget(RUN, "missing_since")
    assert store.read(RUN, "missing_since") == [None]


def test_keys_of_a_hashed_user_serve_as_well(store: Store, redis_url: str) -> None:
    """A worker knows some users by their encoded name alone."""
    client = connection.sync_client(redis_url)
    long = "x" * 100
    Store(client, long, NbJobs()).enqueue(RUN, FIELDS)
    of = Store(client, Keys.of(Keys(long).u), NbJobs())
    assert of.claim(RUN, OWNER, 1).code == "OK"
    client.close()


def test_clock_follows_redis() -> None:
    """Redis time as last heard of runs on with the monotonic clock; an answer without time changes nothing."""
    clock = Clock()
    clock.heard(5_000_000)
    clock.heard(0)
    assert 5_000_000 <= clock.now() < 5_010_000


# -- asyncio ---------------------------------------------------------------------------------------


def test_both_stores_have_the_same_methods() -> None:
    """Whatever one store can do, the other can, with the same arguments and docstring."""
    names = {name for name in vars(Store) if not name.startswith("_")}
    assert names == {name for name in vars(AsyncStore) if not name.startswith("_")}
    for name in names:
        one, other = getattr(Store, name), getattr(AsyncStore, name)
        assert inspect.signature(one).parameters.keys() == inspect.signature(other).parameters.keys()
        assert one.__doc__ == other.__doc__
        assert one.__doc__


async def test_async_store_does_what_the_sync_one_does(astore: AsyncStore, redis_client: redis.Redis) -> None:
    """A run's whole life through asyncio, scripts loaded on the way."""
    redis_client.script_flush()
    assert (await astore.enqueue(RUN, FIELDS, "{}", queue="q")).state == "queued"
    claimed = await astore.claim(RUN, OWNER, 1)
    assert (claimed.attempt, claimed.steps) == (1, 0)
    assert (await astore.commit(RUN, OWNER, Commit(1, 2, ended=[("m", "1")]))).c == 1
    assert (await astore.renew(RUN, OWNER)).ok
    assert (await astore.control(RUN, "pause", 2)).state == "pausing"
    assert (await astore.finish(RUN, OWNER, "released")).state == "paused"
    assert (await astore.control(RUN, "unpause", 4, queue="q")).state == "queued"
    assert "{ada}:r1:2" in redis_client.zrange("arq:queue:q", 0, -1)
    assert (await astore.lapse(RUN)).code == "QUEUE"
    assert (await astore.control(RUN, "cancel", 99)).state == "cancelled"
    assert (await astore.reopen(RUN, 99)).state == "queued"
    await astore.load()
    await astore.queue(RUN, 2, "q")
    await astore.put_code("abc", b"\xff")
    assert await astore.get_code("abc") == b"\xff"
    assert await astore.read(RUN, "n") == ["7"]
    assert (await astore.read_all(RUN))["state"] == "queued"
    assert await astore.since(RUN, "missing_since") < 5
    await astore.forget(RUN, "missing_since")


async def test_async_store_reads_answers_in_bytes(redis_url: str, redis_client: redis.Redis) -> None:
    """The client that arq makes answers in bytes; the records are the same."""
    arq = ArqRedis.from_url(redis_url)
    astore = AsyncStore(arq, "ada", NbJobs())
    await astore.enqueue(RUN, FIELDS)
    assert (await astore.claim(RUN, OWNER, 1)).state == "running"
    await arq.aclose()


# -- answers that are lost -------------------------------------------------------------------------


@pytest.fixture
def proxy(redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[Proxy]:
    with Proxy(str(redis_server.socket)) as found:
        yield found


def a_life(store: Any) -> list[tuple[str, Any]]:
    """Return calls that make up a run's life."""
    calls = store.calls
    return [
        ("enqueue", calls.enqueue(RUN, FIELDS, "{}", queue="q")),
        ("claim", calls.claim(RUN, OWNER, 1, "{}")),
        ("commit", calls.commit(RUN, OWNER, Commit(1, 2, ended=[("m", "1")], events=[("s", "job.step", "{}")]))),
        ("control", calls.control(RUN, "pause", 3, "{}")),
        ("renew", calls.renew(RUN, OWNER)),
        ("finish", calls.finish(RUN, OWNER, "failed", failed=True, d="{}", commit=Commit(2, 4))),
        ("reopen", calls.reopen(RUN, 5, None, "{}")),
        ("claim", calls.claim(RUN, "w2:b", 2, "{}")),
        ("lapse", calls.lapse(RUN, "w2:b", "{}")),
    ]


@pytest.mark.fault(21)
def test_call_whose_answer_was_lost_is_done_once(proxy: Proxy, redis_client: redis.Redis) -> None:
    """The client sends the call again by itself; each has one effect, and the answer is the run as it stands."""
    client = connection.sync_client(proxy.url)
    store = Store(client, "ada", NbJobs())
    store.load()
    for n, (script, call) in enumerate(a_life(store), 1):
        proxy.lose = 1
        reply = store.send(call)
        assert reply.code == ("OK" if script == "renew" else "AGAIN"), (script, reply)
        assert proxy.lost == n
    names = [entry["e"] for _, entry in redis_client.xrange(store.keys.events(RUN))]
    assert names == [
        *("job.enqueued", "job.started", "job.step", "job.pausing", "job.failed"),
        *("job.reopened", "job.started", "job.interrupt"),
    ]
    assert store.read(RUN, "c", "n", "failures", "crashes", "steps") == ["2", "8", "0", "1", "1"]
    client.close()


@pytest.mark.fault(21)
async def test_async_call_whose_answer_was_lost_is_done_once(proxy: Proxy, redis_client: redis.Redis) -> None:
    """The same holds for asyncio."""
    client = connection.async_client(proxy.url)
    store = AsyncStore(client, "ada", NbJobs())
    await store.load()
    for script, call in a_life(store):
        proxy.lose = 1
        reply = await store.send(call)
        assert reply.code == ("OK" if script == "renew" else "AGAIN"), (script, reply)
    assert redis_client.xlen(Keys("ada").events(RUN)) == 8
    await client.aclose()


@pytest.mark.fault(20)
def test_cut_connection_is_opened_again(proxy: Proxy) -> None:
    """A connection that was cut between two calls costs nothing but a new one."""
    client = connection.sync_client(proxy.url)
    store = Store(client, "ada", NbJobs())
    store.enqueue(RUN, FIELDS)
    proxy.cut()
    assert store.claim(RUN, OWNER, 1).code == "OK"
    client.close()


def test_redis_that_is_away_is_told(proxy: Proxy) -> None:
    """After some tries the error says which Redis does not answer."""
    client = connection.sync_client(proxy.url)
    store = Store(client, "ada", NbJobs())
    proxy.refuse = True
    with pytest.raises(RedisUnavailable, match=f"127.0.0.1:{proxy.port}/0 does not answer"):
        store.renew(RUN, OWNER)
    proxy.refuse = False
    assert store.renew(RUN, OWNER).code == "GONE"
    client.close()
