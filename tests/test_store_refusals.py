"""What the scripts refuse before they write anything: wrong keys, too much data, no memory, no rights, no script."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from nbjobs import connection, redis_errors
from nbjobs.calls import Call, Commit
from nbjobs.errors import RedisNotPrepared, RedisUnavailable
from nbjobs.scripts import NAMES, SCRIPTS
from nbjobs.settings import NbJobs
from nbjobs.store import Store

from .support import RedisServer, redis_programs, snapshot

RUN = "r1"
OWNER = "w1:a"
FIELDS = {"job": "m.f", "args": "[]"}
KIB = 1024


def calls_of(store: Store) -> dict[str, Call]:
    """Return a call of each script that a running run would do."""
    calls = store.calls
    return {
        "enqueue": calls.enqueue("r2", FIELDS, "{}"),
        "claim": calls.claim(RUN, OWNER, 1, "{}"),
        "commit": calls.commit(RUN, OWNER, checkpoint()),
        "renew": calls.renew(RUN, OWNER),
        "finish": calls.finish(RUN, OWNER, "released", d="{}", commit=checkpoint()),
        "lapse": calls.lapse(RUN, OWNER, "{}"),
        "control": calls.control(RUN, "pause", 99, "{}"),
        "reopen": calls.reopen(RUN, 99, None, "{}"),
    }


def checkpoint(**given: Any) -> Commit:
    usual = {"view": "view", "moved": True, "step": "rows", "cursor": "1", "done": 1, "total": 9}
    return Commit(1, 2, **{**usual, "ended": [("meta", "1")], "events": [("s", "job.step", "{}")], **given})


def running(store: Store) -> None:
    store.enqueue(RUN, FIELDS, "{}")
    assert store.claim(RUN, OWNER, 1, "{}").code == "OK"


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.leaky
@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("script", NAMES)
def test_wrong_type_of_any_key_is_refused(store: Store, redis_client: redis.Redis, script: str, which: int) -> None:
    """A key that holds something else stops the call before it writes half of what it should."""
    running(store)
    call = calls_of(store)[script]
    key = call.keys[which]
    redis_client.delete(key)
    redis_client.set(key, "not ours")
    before = snapshot(redis_client)
    reply = store.send(call._replace(before=()))
    assert (reply.code, reply.detail) == ("BADTYPE", key)
    assert snapshot(redis_client) == before


@pytest.mark.fault(25)
@pytest.mark.parametrize("script", [name for name in NAMES if name != "enqueue"])
def test_run_that_redis_lost_is_gone(store: Store, redis_client: redis.Redis, script: str) -> None:
    """A run whose hash was evicted or expired answers GONE to all; nothing begins it again from zero."""
    running(store)
    redis_client.delete(store.keys.run(RUN))
    reply = store.send(calls_of(store)[script])
    assert (reply.code, reply.state, reply.n, reply.at) == ("GONE", "", 0, 0)
    assert not redis_client.exists(store.keys.run(RUN))


# -- sizes -----------------------------------------------------------------------------------------

TOO_BIG = [
    ({"view": "x" * (16 * KIB + 1)}, "view"),
    ({"cursor": "x" * (8 * KIB + 1)}, "cursor"),
    ({"step": "x" * (KIB + 1)}, "step"),
    ({"ended": [("m", "x" * (64 * KIB + 1))]}, "value"),
    ({"ended": [("m" * (16 * KIB + 1), "x")]}, "step"),
    ({"ended": [("m", "x")] * 65}, "commit"),
    ({"events": [("o", "own", "x" * (16 * KIB + 1))]}, "event"),
    ({"events": [("o", "o" * (KIB + 1), "x")]}, "event"),
    ({"events": [("o", "own", "x")] * 257}, "commit"),
]


@pytest.mark.parametrize("script", ["commit", "finish"])
@pytest.mark.parametrize(("given", "what"), TOO_BIG, ids=[f"{k}-{what}" for k, (_, what) in enumerate(TOO_BIG)])
def test_checkpoint_that_is_too_big_is_refused_whole(
    store: Store, redis_client: redis.Redis, script: str, given: dict[str, Any], what: str
) -> None:
    """One part that is too big stops the whole commit, and says which part."""
    running(store)
    before = snapshot(redis_client)
    last = checkpoint(**given)
    calls = store.calls
    finish = calls.finish(RUN, OWNER, "completed", commit=last)
    reply = store.send(finish if script == "finish" else calls.commit(RUN, OWNER, last))
    assert (reply.code, reply.detail, reply.ok) == ("TOOBIG", what, False)
    assert snapshot(redis_client) == before


def test_checkpoint_may_be_as_big_as_promised(store: Store) -> None:
    """The largest commit that is allowed is done: 64 steps with their values, 256 events, view and cursor."""
    running(store)
    largest = checkpoint(
        view="x" * 16 * KIB,
        cursor="x" * 8 * KIB,
        ended=[("m" * 16 * KIB, "x" * 63 * KIB)] * 64,
        events=[("s", "e" * 100, "x" * 16 * KIB)] * 256,
    )
    reply = store.commit(RUN, OWNER, largest)
    assert (reply.code, reply.n) == ("OK", 258)
    assert store.read(RUN, "steps", "bytes") == ["64", str(64 * 63 * KIB)]


def test_values_of_a_run_are_bounded(store: Store) -> None:
    """All step values of a run together may take 4 MiB."""
    running(store)
    values = [("m", "x" * 64 * KIB)] * 32
    assert store.commit(RUN, OWNER, checkpoint(ended=values)).code == "OK"
    assert store.commit(RUN, OWNER, Commit(2, 3, ended=values)).code == "OK"
    assert store.commit(RUN, OWNER, Commit(3, 3, ended=[("m", "x")])).detail == "values"


@pytest.mark.parametrize(
    ("script", "index", "limit"),
    [
        ("enqueue", 5, 16 * KIB),
        ("enqueue", 9, 64 * KIB),
        ("claim", 7, 16 * KIB),
        ("finish", 8, 1024 * KIB),
        ("finish", 9, 64 * KIB),
        ("finish", 10, 16 * KIB),
        ("lapse", 7, 16 * KIB),
        ("control", 6, 16 * KIB),
        ("reopen", 6, 16 * KIB),
    ],
)
def test_argument_that_is_too_big_is_refused(
    store: Store, redis_client: redis.Redis, script: str, index: int, limit: int
) -> None:
    """Events, arguments, result and error have limits in Redis too, whoever writes there."""
    running(store)
    if script == "claim":
        store.finish(RUN, OWNER, "released")
    call = calls_of(store)[script]
    call.args[index] = "x" * (limit + 1)  # type: ignore[index]
    before = snapshot(redis_client)
    reply = store.send(call._replace(before=()))
    assert (reply.code, reply.detail) == ("TOOBIG", f"argument {index + 1}")
    assert snapshot(redis_client) == before


def test_run_of_too_many_fields_is_refused(store: Store, redis_client: redis.Redis) -> None:
    """A hash of thousands of fields would stop the script half done."""
    reply = store.enqueue(RUN, {f"f{k}": "" for k in range(5000)})
    assert (reply.code, reply.detail) == ("TOOBIG", "fields")
    assert not redis_client.exists(store.keys.run(RUN))


# -- scripts that are not there --------------------------------------------------------------------


@pytest.mark.fault(28)
@pytest.mark.parametrize("script", NAMES)
def test_scripts_are_loaded_where_redis_has_none(store: Store, redis_client: redis.Redis, script: str) -> None:
    """After SCRIPT FLUSH or a restart, the first call loads all scripts and is done once."""
    running(store)
    redis_client.script_flush()
    reply = store.send(calls_of(store)[script])
    assert reply.code != "GONE"
    assert all(redis_client.script_exists(*(one.sha for one in SCRIPTS.values())))


@pytest.mark.fault(28)
def test_run_is_gone_after_flushall(store: Store, redis_client: redis.Redis) -> None:
    """Where all is lost, the holder learns it with its next call."""
    running(store)
    redis_client.flushall()
    redis_client.script_flush()
    assert store.commit(RUN, OWNER, checkpoint()).code == "GONE"
    assert store.renew(RUN, OWNER).code == "GONE"


def test_client_that_may_not_load_says_so(store: Store, redis_client: redis.Redis, redis_url: str) -> None:
    """A client that is told not to load scripts asks for a worker instead."""
    redis_client.script_flush()
    client = connection.sync_client(redis_url)
    with pytest.raises(RedisNotPrepared, match="Start a worker"):
        Store(client, "ada", NbJobs(), may_load=False).renew(RUN, OWNER)
    client.close()


RIGHTS = (
    "resetkeys resetchannels -@all ~nbjobs:{ada}:* ~nbjobs:users ~arq:* &nbjobs:wake:* "
    "+ping +hello +auth +client|setname +evalsha +publish +multi +exec +time "
    "+type +hmget +hset +hdel +hstrlen +del +xadd +xtrim +zadd +zrem +pexpire +persist +psetex"
)


@pytest.fixture
def tenant(redis_client: redis.Redis, redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client with the rights of a notebook's user."""
    redis_client.execute_command("ACL", "SETUSER", "nb-ada", "reset", "on", ">pw", *RIGHTS.split())
    client = connection.sync_client(redis_server.url, username="nb-ada", password="pw")
    yield client
    client.close()
    redis_client.execute_command("ACL", "DELUSER", "nb-ada")


def test_tenant_needs_prepared_scripts_and_no_more(
    tenant: redis.Redis, store: Store, redis_client: redis.Redis
) -> None:
    """Without the right to load, a client says that no worker has prepared this Redis; then all eight scripts work."""
    redis_client.script_flush()
    mine = Store(tenant, "ada", NbJobs())
    with pytest.raises(RedisNotPrepared):
        mine.enqueue(RUN, FIELDS)
    store.load()
    mine.enqueue(RUN, FIELDS, "{}", queue="q")
    calls = {**calls_of(mine), "finish": mine.calls.finish(RUN, OWNER, "released")}
    for script, code in [("claim", "OK"), ("commit", "OK"), ("renew", "OK"), ("finish", "OK"), ("lapse", "AGAIN")]:
        assert mine.send(calls[script]).code == code
    mine.control(RUN, "cancel", 99)
    assert mine.reopen(RUN, 99, 1).code == "OK"
    with pytest.raises(RedisUnavailable, match="does not let this user do what is needed") as caught:
        Store(tenant, "bob", NbJobs()).enqueue("r9", FIELDS)
    assert isinstance(caught.value.__cause__, connection.NoPermissionError)
    assert not redis_client.exists("nbjobs:{bob}:run:r9")


# -- memory ----------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(redis_programs()))
def full(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Redis of its own, of each version that is here."""
    with RedisServer(redis_programs()[request.param]) as server:
        yield server


@pytest.mark.fault(24)
def test_full_redis_refuses_commits_whole_and_lets_runs_end(full: RedisServer) -> None:
    """Where memory is full, a commit leaves c, n and lengths as they are and works once there is room; renew, control
    and finish work all the time, so no run is taken from its holder and each can end.
    """
    plain, client = full.client(), connection.sync_client(full.url)
    store = Store(client, "ada", NbJobs())
    running(store)
    before = snapshot(plain)
    plain.config_set("maxmemory", "1")
    with pytest.raises(RedisUnavailable, match="full") as caught:
        store.commit(RUN, OWNER, checkpoint())
    assert isinstance(caught.value.__cause__, connection.OutOfMemoryError)
    assert redis_errors.find(caught.value.__cause__).concerns == "server"
    for refused in ("enqueue", "claim", "reopen"):
        with pytest.raises(RedisUnavailable, match="full"):
            store.send(calls_of(store)[refused])
    assert snapshot(plain) == before
    assert store.renew(RUN, OWNER).code == "OK"
    assert store.control(RUN, "pause", 2).state == "pausing"
    assert store.control(RUN, "unpause", 3).state == "running"
    plain.config_set("maxmemory", "0")
    assert store.commit(RUN, OWNER, checkpoint()).code == "OK"
    plain.config_set("maxmemory", "1")
    last = Commit(2, 5, events=[("s", "job.step", "{}")])
    assert store.finish(RUN, OWNER, "completed", commit=last).state == "completed"
    plain.config_set("maxmemory", "0")
    store.enqueue("r2", FIELDS)
    store.claim("r2", OWNER, 1)
    plain.config_set("maxmemory", "1")
    assert store.lapse("r2", OWNER).state == "queued"
    client.close()
    plain.close()


def test_runs_survive_a_restart(full: RedisServer) -> None:
    """What was answered is there after a restart; the scripts are not, and are loaded again."""
    client, plain = connection.sync_client(full.url), full.client()
    store = Store(client, "ada", NbJobs())
    running(store)
    store.commit(RUN, OWNER, checkpoint())
    before = snapshot(plain)
    full.restart()
    assert snapshot(plain) == before
    assert store.commit(RUN, OWNER, checkpoint()).code == "AGAIN"
    assert store.commit(RUN, OWNER, Commit(2, 3)).code == "OK"
    client.close()
    plain.close()
