"""What one user's broken or hostile keys and entries do to another user on the same workers: nothing."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from nbjobs import connection, keys
from nbjobs.calls import Commit
from nbjobs.errors import BadData
from nbjobs.keys import Keys, arq_job, arq_queue
from nbjobs.run import Run
from nbjobs.store import Store

from ..support import wait_until
from .processes import Worker
from .stage import QUEUE, Stage, staged
from .tenantjobs import anothing, nothing

EVE = Keys("eve")
RUNS = 40
LONGEST = 5.0  # seconds that the slowest of them may take on a busy machine; the figures are printed

Row = Callable[[redis.Redis, Store], None]
ROWS: dict[str, Row] = {}


def row(fn: Row) -> Row:
    """Take a deed of eve's into the table."""
    ROWS[fn.__name__] = fn
    return fn


def given(store: Store, run: str, **options: int) -> str:
    """A run of eve's as her notebook would enqueue it."""
    fields = {"job": nothing.name, "args": "[[1],{}]", "kind": "sync", "queue": QUEUE, "user": "eve", "tags": "{}"}
    assert store.enqueue(run, fields, "{}", **options).code == "OK"
    return EVE.run(run)


def listed(client: redis.Redis, entry: str | bytes, score: float = 1) -> None:
    """Put something into the queue that everybody's runs go through."""
    client.zadd(arq_queue(QUEUE), {entry: score})


@row
def entry_that_is_no_text(client: redis.Redis, store: Store) -> None:
    for entry in (b"\xff\xfe", b"{eve}:\xe9:1", b"", b"\x00" * 100_000):
        listed(client, entry)


@row
def entry_that_names_no_run(client: redis.Redis, store: Store) -> None:
    for entry in ("{eve}:none:1", "{eve}:r:0", "{EVE}:r:1", "{eve}:r:999999999999", "words", "{eve}:r:1\n"):
        listed(client, entry)


@row
def entry_whose_run_is_no_hash(client: redis.Redis, store: Store) -> None:
    for k in range(50):
        client.set(EVE.run(f"s{k}"), "no hash")
        listed(client, f"{{eve}}:s{k}:1")


@row
def due_that_is_a_hash(client: redis.Redis, store: Store) -> None:
    given(store, "d1")
    client.delete(EVE.due)
    client.hset(EVE.due, "a", "b")


@row
def due_that_names_what_is_no_run(client: redis.Redis, store: Store) -> None:
    client.set(EVE.run("string"), "no hash")
    given(store, "other")
    client.zadd(EVE.due, {"string": 1, b"\xff\xfe": 1, "": 1, "x" * 100_000: 1, "a:b\n": 1, "other": "-inf"})


@row
def twelve_hundred_due_runs_with_a_broken_log(client: redis.Redis, store: Store) -> None:
    with client.pipeline(transaction=False) as pipe:
        for k in range(1_200):
            pipe.hset(EVE.run(f"l{k}"), mapping={"state": "queued", "job": "m.f", "queue": QUEUE, "user": "eve"})
            pipe.set(EVE.log(f"l{k}"), "no stream")
            pipe.zadd(EVE.due, {f"l{k}": k})
        pipe.execute()


@row
def a_queue_of_her_own_that_is_none(client: redis.Redis, store: Store) -> None:
    client.set(arq_queue("eve"), "no sorted set")
    given(store, "q1")
    client.hset(EVE.run("q1"), "queue", "eve")
    client.zadd(EVE.due, {"q1": 1})


@row
def a_count_of_steps_that_is_a_lie(client: redis.Redis, store: Store) -> None:
    key = given(store, "c1", delay_ms=3_600_000)
    store.control("c1", "pause", 99, "{}")
    client.hset(key, "steps", "1000000000000")
    assert store.control("c1", "restart", 99, "{}").code == "BADDATA"


@row
def a_commit_of_less_than_no_steps(client: redis.Redis, store: Store) -> None:
    given(store, "m1", delay_ms=1)
    wait_until(lambda: store.claim("m1", "eve:1", 1, "{}").ok, 5, "eve holds her run")
    call = store.calls.commit("m1", "eve:1", Commit(1, 0, ended=[("m", "1")]))
    args = [*call.args[:14], "-1000000000000000", *call.args[15:]]
    assert store.send(call._replace(args=args)).code == "BADDATA"


@row
def a_stream_that_has_ended(client: redis.Redis, store: Store) -> None:
    given(store, "e1")
    client.xadd(EVE.user_events, {"a": "b"}, id=f"{2**64 - 1}-{2**64 - 1}")
    listed(client, "{eve}:e1:1")
    client.zadd(EVE.due, {"e1": 1})


@row
def runs_of_a_newer_version(client: redis.Redis, store: Store) -> None:
    with client.pipeline(transaction=False) as pipe:
        for k in range(1_300):
            pipe.hset(EVE.run(f"n{k}"), mapping={"state": "queued", "v": "2", "attempt": "0", "user": "eve"})
            pipe.zadd(arq_queue(QUEUE), {f"{{eve}}:n{k}:1": 1})
        pipe.execute()


@row
def jobs_of_arq_that_are_none(client: redis.Redis, store: Store) -> None:
    unknown = b'{"f":"none","a":[],"k":{},"t":null,"et":1}'
    entries = [pickle.dumps({"f": "print"}), b'{"f":[]}', b"\xff", b"[" * 99_999, unknown]
    for k, entry in enumerate(entries):
        client.set(arq_job(f"foreign{k}"), entry)
        listed(client, f"foreign{k}")
    client.hset(arq_job("hash"), "a", "b")
    listed(client, "hash")
    listed(client, "gone")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One worker for all of them; the good user is ada."""
    with staged(tmp_path_factory.mktemp("tenants")) as found:
        found.worker(children=2)
        yield found


@pytest.fixture
def eve(stage: Stage) -> Iterator[Store]:
    client = connection.sync_client(stage.server.url)
    yield Store(client, "eve", stage.settings)
    client.close()
    left = [*stage.client.scan_iter("nbjobs:{eve}:*", count=1000), arq_queue("eve")]
    stage.client.delete(*left)
    stage.client.zremrangebyscore(arq_queue(QUEUE), 1, 1)
    stage.client.zrem(keys.USERS, "eve")


def do(deed: str, stage: Stage, eve: Store) -> None:
    """Let eve do it, and sweepers know of her."""
    ROWS[deed](stage.client, eve)
    stage.client.execute_command(*eve.calls.sign())


def in_turn(stage: Stage) -> list[float]:
    """Run empty jobs of the good user, one after the other; return how long each took."""
    took = []
    for k in range(RUNS):
        began = time.monotonic()
        run = (anothing if k % 2 else nothing).enqueue(k)
        wait_until(lambda r=run: stage.fields(r).get("state") == "completed", 30, lambda r=run: stage.standing(r))
        took.append(time.monotonic() - began)
    return sorted(took)


@pytest.mark.weather("H9", "M10")
@pytest.mark.parametrize("deed", ROWS)
def test_what_one_user_breaks_delays_no_other(stage: Stage, eve: Store, deed: str) -> None:
    """The worker lives, and another user's runs begin as ever: those that are announced, delayed, or not announced."""
    worker: Worker = stage.workers[0]
    delayed = nothing.options(delay=0.5).enqueue(1)
    before = len(worker.said)
    do(deed, stage, eve)
    missed = _unannounced(stage)
    took = in_turn(stage)
    for run in (delayed, missed):
        wait_until(lambda r=run: stage.fields(r).get("state") == "completed", 30, lambda r=run: stage.standing(r))
    print(f"{deed}: an empty job takes {took[RUNS // 2]:.3f} s, the slowest of {RUNS} {took[-1]:.3f} s")
    assert took[-1] < LONGEST
    assert worker.process.poll() is None
    assert "Traceback" not in worker.said[before:], worker.said[-3000:]


def _unannounced(stage: Stage) -> Run:
    """A run whose wake-up was lost: its entry stands behind all others of the queue."""
    store = Store(connection.client(), "ada", stage.settings)
    fields = {"job": nothing.name, "args": "[[1],{}]", "kind": "sync", "queue": QUEUE, "user": "ada", "tags": "{}"}
    run = Run(f"missed-{time.monotonic_ns()}", user="ada")
    assert store.enqueue(run.id, fields, "{}").code == "OK"
    stage.client.zadd(arq_queue(QUEUE), {f"{{ada}}:{run.id}:1": time.time() * 1000 - 1000})
    return run


@pytest.mark.weather("H9")
def test_what_is_of_no_use_leaves_the_queue(stage: Stage, eve: Store) -> None:
    """An entry that nobody can do anything with is removed, with one line in the worker's log."""
    before = len(stage.workers[0].said)
    for deed in ("entry_that_is_no_text", "entry_whose_run_is_no_hash", "jobs_of_arq_that_are_none"):
        do(deed, stage, eve)
    wait_until(lambda: stage.client.zcard(arq_queue(QUEUE)) == 0, 30, stage.logs)
    said = stage.workers[0].said[before:]
    assert said.count("is removed") == 4 + 6 and "Traceback" not in said, said


@pytest.mark.weather("H9")
def test_a_run_that_cannot_be_looked_at_is_left_alone_for_an_hour(stage: Stage, eve: Store) -> None:
    """Not looked at without end, twenty times a second."""
    do("twelve_hundred_due_runs_with_a_broken_log", stage, eve)
    soon = stage.client.time()[0] * 1000 + 60_000
    wait_until(lambda: stage.client.zcount(EVE.due, "-inf", soon) == 0, 30, stage.logs)
    assert stage.client.zcount(EVE.due, soon, soon + 3_600_000) == 1_200


def test_a_restart_that_is_refused_says_why(stage: Stage, eve: Store) -> None:
    """Whose run it is reads what to do."""
    do("a_count_of_steps_that_is_a_lie", stage, eve)
    with pytest.raises(BadData, match="Something other than nbjobs has written"):
        Run("c1", user="eve").restart()
