"""The worker, with real processes on a real Redis."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arq
import arq.worker
import pytest
import redis

from nbjobs import Gap, Run, attach, connection, job, keys, phrases
from nbjobs.entry import TOLD, entry_commands
from nbjobs.face import face
from nbjobs.keys import Keys
from nbjobs.settings import NbJobs, configure, set_current
from nbjobs.store import Store
from nbjobs.worker import Worker as ArqWorker
from nbjobs.worker import check_modules

from . import workjobs
from .support import RedisServer, wait_until
from .workers import Ledger, Worker, gone

pytestmark = pytest.mark.leaky  # workers leave their sign, their queue's entries and a lock


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def url(redis_url: str, nbjobs_settings: NbJobs) -> str:
    return redis_url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that the test may kill."""
    with RedisServer() as server:
        configure(redis_url=server.url, user="ada", queue="test")
        yield server
        set_current(None)
        connection.drop_client()


def field(run: Run, name: str) -> str:
    return str(Store(connection.client(), run.user, NbJobs()).read(run.id, name)[0] or "")


def await_listener(client: redis.Redis) -> None:
    """Wait until a worker of the queue hears wake-ups."""
    wait_until(lambda: client.pubsub_numsub(keys.wake("test"))[0][1], 10)


def names(run: Run) -> list[str]:
    return [event.name for event in run.events() if event.n is not None]


def interrupts(run: Run) -> list[dict[str, Any]]:
    return [dict(event.payload) for event in run.events() if event.name == "job.interrupt"]


def test_a_run_is_performed_and_its_result_comes_back(url: str) -> None:
    """A run is claimed, performed in a child and completed; its events name the worker."""
    with Worker(url) as worker:
        run = workjobs.add.enqueue(2, 3)
        assert run.result(timeout=10) == 5
    assert names(run) == ["job.enqueued", "job.started", "job.completed"]
    started = next(event for event in run.events() if event.name == "job.started")
    assert started.payload["worker"].split("-")[-2] == str(worker.pid)
    assert started.payload["job_id"] == run.id
    waited = started.timestamp // 1_000_000 - started.payload["enqueued_at"]
    assert -5 <= waited < 20_000  # two processes have stamped them, each with its notion of Redis time
    assert started.context["user_id"] == "ada"


def test_an_async_run_is_performed(url: str) -> None:
    """Async bodies share a child and come back as sync ones do."""
    with Worker(url):
        runs = [workjobs.aadd.enqueue(k, 1) for k in range(5)]
        assert [run.result(timeout=10) for run in runs] == [1, 2, 3, 4, 5]


def test_an_entry_is_gone_once_it_is_claimed(url: str, redis_client: redis.Redis) -> None:
    """Of an attempt that was begun nothing is left in arq's queue."""
    with Worker(url):
        workjobs.add.enqueue(2, 3).wait(timeout=10)
        assert redis_client.zcard(keys.arq_queue("test")) == 0
        assert redis_client.keys("arq:job:*") == []


@pytest.mark.fault(4)
def test_a_killed_child_costs_one_crash_and_its_run_goes_on(url: str, ledger: Ledger) -> None:
    """A body's death is seen at once; the run resumes at its cursor and repeats little."""
    with Worker(url):
        run = workjobs.items.enqueue(ledger.path, 2000)
        child = ledger.wait_for(20)[-1][1]
        os.kill(int(child), signal.SIGKILL)
        ledger.open_gate()
        run.wait(timeout=20)
    assert run.state == "completed"
    assert sorted(set(ledger.items())) == list(range(2000))
    assert len(ledger.items()) - 2000 <= 25  # 100 ms of items of 5 ms, and the one in flight
    assert field(run, "attempt") == "2"
    (interrupt,) = interrupts(run)
    assert (interrupt["reason"], interrupt["signal"]) == ("child_died", "SIGKILL")


def test_the_events_of_a_killed_run_tell_its_whole_life(url: str, ledger: Ledger) -> None:
    """One job_id and a duration at the end, steps with cursors, `resumed` where one was, context on every event."""
    with Worker(url):
        run = workjobs.tells.enqueue(ledger.path, 500)
        os.kill(int(ledger.wait_for(20)[-1][1]), signal.SIGKILL)
        ledger.open_gate()
        run.wait(timeout=20)
    told = [event for event in run.events() if not isinstance(event, Gap)]
    ours = [event for event in told if event.name.startswith("job.")]
    assert {event.payload["job_id"] for event in ours} == {run.id}
    assert [event.name for event in ours if event.n is not None] == [
        "job.enqueued",
        "job.started",
        *("job.step_started", "job.step", "job.step_started"),
        "job.interrupt",
        "job.started",
        "job.resume",
        "job.step_skipped",
        *("job.step_started", "job.step"),
        *("job.step_started", "job.step"),
        "job.completed",
    ]
    assert ours[-1].payload["duration"] > 0
    begun = [event.payload for event in ours if event.name == "job.step_started"]
    assert [(one["step"], one["resumed"]) for one in begun] == [
        ("prepare", False),
        ("items", False),
        ("items", True),
        ("finalize", False),
    ]
    assert 0 < begun[2]["cursor"] <= 25 and begun[2]["cursor"] == begun[2]["done"]
    ended = [event.payload for event in ours if event.name == "job.step"]
    assert [(one["step"], one["cursor"]) for one in ended] == [("prepare", None), ("items", 500), ("finalize", None)]
    assert {"import.prepared", "import.row", "import.finalized"} <= {event.name for event in told}
    for event in told:
        assert (event.context["user_id"], event.context["job_id"]) == ("ada", run.id), event.name
        if event.name.startswith(("import.", "job.step")):
            assert event.context["batch"] == 7, event.name


@pytest.mark.fault(13)
def test_a_run_that_kills_its_process_each_time_ends_dead(url: str, ledger: Ledger) -> None:
    """Four starts without progress, then the run is dead; other runs are unharmed."""
    with Worker(url):
        run = workjobs.poison.enqueue(ledger.path)
        other = workjobs.add.enqueue(1, 1)
        run.wait(timeout=20)
        assert other.result(timeout=10) == 2
    assert run.state == "dead"
    assert len(ledger.lines()) == 4
    assert names(run)[-2:] == ["job.interrupt", "job.dead"]


@pytest.mark.fault(1)
def test_sigterm_hands_the_run_over_without_a_crash(url: str, ledger: Ledger) -> None:
    """The item under way ends, the run goes on in another worker: no repeat, no crash."""
    with Worker(url) as first, Worker(url) as second:
        second.send_signal(signal.SIGSTOP)
        run = workjobs.items.enqueue(ledger.path, 2000)
        ledger.wait_for(20)
        second.send_signal(signal.SIGCONT)
        first.send_signal(signal.SIGTERM)
        assert first.wait() == 0
        ledger.open_gate()
        run.wait(timeout=20)
    assert run.state == "completed"
    assert ledger.items() == list(range(2000))
    assert (field(run, "crashes"), field(run, "attempt")) == ("0", "2")
    assert [one["reason"] for one in interrupts(run)] == ["stopping"]


@pytest.mark.fault(3)
def test_an_item_longer_than_the_grace_is_ended_without_a_crash(url: str, ledger: Ledger) -> None:
    """At the end of the grace the worker ends the child, releases the run itself and says how long the item took."""
    with Worker(url, grace=0.5) as worker:
        run = workjobs.endless.enqueue(ledger.path)
        ledger.wait_for(1)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert "did not end within the grace of 0.5 s" in worker.log
    assert run.state == "queued"
    assert field(run, "crashes") == "0"
    assert [one["reason"] for one in interrupts(run)] == ["stopping"]


def test_a_second_sigterm_ends_the_grace(url: str, ledger: Ledger) -> None:
    """Who signals twice does not wait for the item."""
    with Worker(url, grace=60) as worker:
        run = workjobs.endless.enqueue(ledger.path)
        ledger.wait_for(1)
        worker.send_signal(signal.SIGTERM)
        wait_until(lambda: "no more runs are taken" in worker.log)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    assert (run.state, field(run, "crashes")) == ("queued", "0")


@pytest.mark.fault(4)
def test_a_killed_worker_leaves_nothing_and_its_run_goes_on(url: str, ledger: Ledger) -> None:
    """Its processes end with it; when the lease is over another worker sweeps the run up."""
    with Worker(url) as first, Worker(url) as second:
        second.send_signal(signal.SIGSTOP)
        run = workjobs.items.enqueue(ledger.path, 2000)
        ledger.wait_for(20)
        family = first.family()
        first.send_signal(signal.SIGKILL)
        second.send_signal(signal.SIGCONT)
        wait_until(lambda: gone(family[1:]), 1.0, "no process of the worker lives")
        ledger.open_gate()
        run.wait(timeout=20)
    assert run.state == "completed"
    assert sorted(set(ledger.items())) == list(range(2000))
    assert [one["reason"] for one in interrupts(run)] == ["lease_lost"]


@pytest.mark.fault(8)
def test_a_worker_that_slept_through_its_lease_is_refused(url: str, ledger: Ledger) -> None:
    """The paused child's next write is refused and its body ended; the other worker's run is unharmed."""
    with Worker(url) as first, Worker(url) as second:
        second.send_signal(signal.SIGSTOP)
        run = workjobs.items.enqueue(ledger.path, 2000)
        ledger.wait_for(20)
        family = first.family()
        for process in family:
            process.suspend()
        second.send_signal(signal.SIGCONT)
        wait_until(lambda: field(run, "attempt") == "2", 15, "the second worker has claimed the run")
        for process in family:
            process.resume()
        ledger.open_gate()
        run.wait(timeout=30)
        wait_until(lambda: "was refused, and the body has ended" in first.log, 10)
    assert run.state == "completed"
    assert sorted(set(ledger.items())) == list(range(2000))
    numbers = [event.n for event in run.events() if event.n is not None]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.fault(10)
def test_a_body_that_holds_the_interpreter_keeps_its_lease(url: str, ledger: Ledger) -> None:
    """The worker renews, whatever the body does: no take-over, and other runs go on."""
    with Worker(url), Worker(url):
        run = workjobs.hold_interpreter.enqueue(ledger.path, 27)
        ledger.wait_for(1)
        assert workjobs.add.enqueue(1, 2).result(timeout=5) == 3
        run.wait(timeout=60)
    assert [line[0] for line in ledger.lines()] == ["began", "ended"]
    assert field(run, "attempt") == "1"


@pytest.mark.fault(16)
def test_a_worker_and_its_attempts_survive_a_restart_of_redis(own_redis: RedisServer, ledger: Ledger) -> None:
    """The same attempt goes on when Redis is back."""
    with Worker(own_redis.url, lease=15, renew=1):
        run = workjobs.items.enqueue(ledger.path, 2000)
        ledger.wait_for(20)
        client = own_redis.client()
        wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0)
        client.close()
        own_redis.kill()
        own_redis.start()
        ledger.open_gate()
        run.wait(timeout=30)
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3
    assert run.state == "completed"
    assert sorted(set(ledger.items())) == list(range(2000))
    assert field(run, "attempt") == "1"


@pytest.mark.fault(61)
def test_a_running_body_is_cancelled(url: str, ledger: Ledger) -> None:
    """A cancel ends the body at its next checkpoint."""
    with Worker(url):
        run = workjobs.items.enqueue(ledger.path, 10_000)
        ledger.wait_for(5)
        run.cancel()
        run.wait(timeout=10)
    assert run.state == "cancelled"


@pytest.mark.fault(61)
def test_a_body_without_checkpoints_is_cancelled_at_once(url: str, ledger: Ledger) -> None:
    """`cancel(now=True)` kills the process; no crash is told."""
    with Worker(url):
        run = workjobs.endless.enqueue(ledger.path)
        ledger.wait_for(1)
        run.cancel(now=True)
        run.wait(timeout=10)
    assert run.state == "cancelled"


SHOP = """
import asyncio, time
from pathlib import Path
from nbjobs import job, step

PRICE = {price}

@job
def sell(gate):
    for item in step.each("sell", range(10**9)):
        if Path(gate).exists():
            break
        time.sleep(0.002)
    return PRICE

@job
async def asell(gate):
    for item in step.each("sell", range(10**9)):
        if Path(gate).exists():
            break
        await asyncio.sleep(0.002)
    return PRICE
"""


@pytest.mark.parametrize("name", ["sell", "asell"])
def test_a_run_tells_of_newer_code_until_an_attempt_has_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A module that is saved while its job runs is news of this attempt; the next one runs what is on disk then."""
    shop, gate = tmp_path / "nbjobs_test_shop.py", tmp_path / "gate"
    shop.write_text(SHOP.format(price=1))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, shop.stem, raising=False)
    job = getattr(importlib.import_module(shop.stem), name)
    with Worker(url, path=str(tmp_path)):
        run = job.enqueue(str(gate))
        wait_until(lambda: run.view.done, 10)
        assert run.view.newer == ""
        shop.write_text(SHOP.format(price=22))
        wait_until(lambda: run.view.newer == shop.name, 10)
        shown = face(run.view)
        assert "newer-code" in shown.marks
        assert shown.facts[-1].text == "nbjobs_test_shop.py has changed on disk"
        run.pause()
        wait_until(lambda: run.state == "paused", 10)
        assert "newer-code" not in face(run.view).marks
        run.unpause()
        wait_until(lambda: run.view.attempt == 2 and run.view.in_step, 10)
        assert run.view.newer == ""
        gate.touch()
        assert run.result(timeout=10) == 22


@pytest.mark.fault(9)
def test_of_several_workers_one_performs_a_run(url: str, ledger: Ledger) -> None:
    """Each run is begun once, however many workers hear the wake-up."""
    with Worker(url), Worker(url), Worker(url):
        runs = [workjobs.add.enqueue(k, k) for k in range(40)]
        for run in runs:
            run.wait(timeout=20)
        assert {names(run).count("job.started") for run in runs} == {1}


def test_an_idle_worker_claims_a_new_run_unread(url: str, redis_client: redis.Redis) -> None:
    """The wake-up says all that a claim needs: the worker's first command about the run is the claim."""
    with Worker(url), redis_client.monitor() as monitor:
        await_listener(redis_client)
        run = workjobs.add.enqueue(1, 2)
        asked: list[str] = []
        while len(asked) < 5:
            seen = monitor.next_command()
            if run.id in seen["command"] and seen["client_type"] != "lua":
                asked.append(seen["command"].partition(" ")[0])
        assert asked == ["EVALSHA", "PSETEX", "ZADD", "PUBLISH", "EVALSHA"]
        assert run.result(timeout=10) == 3


@pytest.mark.parametrize(
    "wrong", [{"job": "tests.workjobs.fail"}, {"kind": "async"}, {"tags": f'{{"a":"{"x" * 20_000}"}}'}]
)
def test_a_wake_up_that_tells_wrong_begins_nothing_else(
    url: str, redis_client: redis.Redis, wrong: dict[str, str]
) -> None:
    """A worker believes it as far as the run is so; of another run it takes what the run itself says."""
    store = Store(connection.client(), "ada", NbJobs())
    fields = {"job": workjobs.add.name, "args": "[[1,2],{}]", "user": "ada", "queue": "test"}
    fields |= {"kind": "sync", "code": "", "tags": "{}", "enqueued_at": "1"}
    with Worker(url):
        await_listener(redis_client)
        store.enqueue("r1", fields)  # without an entry: nobody else wakes the worker
        told = json.dumps([{**fields, **wrong}[name] for name in TOLD])
        redis_client.publish(keys.wake("test"), f"{{ada}}:r1:1 {told}")
        assert attach("r1", user="ada").result(timeout=10) == 3
    (started,) = [event for event in attach("r1", user="ada").events() if event.name == "job.started"]
    assert (started.payload["job"], started.payload["attempt"], started.tags) == (workjobs.add.name, 1, {})


def test_a_wake_up_of_no_run_leaves_nothing(url: str, redis_client: redis.Redis) -> None:
    """Nor does the worker fail over it."""
    fields = dict.fromkeys(TOLD, "") | {"user": "ada"}
    with Worker(url):
        await_listener(redis_client)
        for user in ("ada", "eve"):
            *_, (_, channel, message) = entry_commands(user, "ghost", 1, "test", 0, fields)
            redis_client.publish(channel, message)
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3
        wait_until(lambda: not redis_client.zcard(keys.arq_queue("test")) and not redis_client.keys("*ghost*"), 10)


def test_a_run_whose_wait_is_over_begins(url: str, ledger: Ledger) -> None:
    """Who failed after progress is queued by the sweeper when its time has come."""
    with Worker(url):
        run = workjobs.fail_once.enqueue(ledger.path)
        assert run.result(timeout=20) == "done"
    assert ledger.items() == [0, 1, 1, 2]


def test_a_delayed_run_begins_at_its_time(url: str) -> None:
    """A scheduled run has no entry until its time has come."""
    with Worker(url):
        run = workjobs.add.options(delay=0.7).enqueue(1, 2)
        assert run.state == "scheduled"
        assert run.result(timeout=10) == 3


def test_a_run_without_an_entry_is_found(url: str, redis_client: redis.Redis) -> None:
    """Where the entry and the wake-up were lost, the sweeper writes the entry."""
    run = workjobs.add.enqueue(1, 2)
    redis_client.delete(keys.arq_queue("test"))
    redis_client.zadd(Keys("ada").due, {run.id: 1})
    with Worker(url):
        assert run.result(timeout=10) == 3


def test_a_job_that_cannot_be_found_is_put_back(url: str, redis_client: redis.Redis) -> None:
    """It is not tried again at once, nor does it fail: some seconds later somebody looks again."""
    store = Store(connection.client(), "ada", NbJobs())
    fields = {"job": "no_such_module.work", "args": "[[],{}]", "kind": "sync", "queue": "test", "user": "ada"}
    store.enqueue("lost", fields, queue="test")
    with Worker(url):
        wait_until(lambda: store.read("lost", "last_owner")[0], 10, "the run was put back")
        assert store.read("lost", "state", "crashes") == ["queued", "0"]
        assert redis_client.zcard(keys.arq_queue("test")) == 0
        due = redis_client.zscore(Keys("ada").due, "lost")
        seconds, micros = redis_client.time()
        assert 3000 < float(due or 0) - (seconds * 1000 + micros / 1000) <= 5000


@pytest.mark.fault(32)
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_changes_nothing(url: str, tmp_path: Path, hours: int) -> None:
    """All deadlines come from Redis: a worker whose clock is an hour off takes runs as any other does."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import time\nreal = time.time\ntime.time = lambda: real() + {hours * 3600}\n"
    )
    with Worker(url, path=str(tmp_path)):
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3
        assert workjobs.add.options(delay=0.4).enqueue(1, 2).result(timeout=10) == 3


@pytest.mark.fault(57)
def test_a_pickle_in_arqs_keys_is_never_loaded(url: str, redis_client: redis.Redis, tmp_path: Path) -> None:
    """What a stranger has written into arq's keys runs nothing, and the worker goes on."""
    canary = tmp_path / "canary"

    class Canary:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(canary),)

    run = workjobs.add.enqueue(1, 2)
    for id in ("stranger", f"{{ada}}:{run.id}:1"):
        redis_client.set(keys.arq_job(id), pickle.dumps(Canary()))
    redis_client.zadd(keys.arq_queue("test"), {"stranger": 1})
    with Worker(url):
        assert run.result(timeout=10) == 3
        wait_until(lambda: redis_client.zcard(keys.arq_queue("test")) == 0, 5)
    assert not canary.exists()


def test_an_entry_of_a_newer_nbjobs_is_left_alone(url: str, redis_client: redis.Redis) -> None:
    """A run of a schema that this worker does not know waits for another worker."""
    run = workjobs.add.enqueue(1, 2)
    redis_client.hset(Keys("ada").run(run.id), "v", "2")
    with Worker(url):
        assert workjobs.add.enqueue(3, 4).result(timeout=10) == 7
        assert run.state == "queued"
        assert redis_client.zcard(keys.arq_queue("test")) == 1


def test_a_run_under_a_strangers_name_is_not_performed(url: str, redis_client: redis.Redis) -> None:
    """Whose run it is, its key says; a field that says otherwise makes it nobody's."""
    run = workjobs.add.enqueue(1, 2)
    redis_client.hset(Keys("ada").run(run.id), "user", "bob")
    with Worker(url):
        wait_until(lambda: redis_client.zcard(keys.arq_queue("test")) == 0, 5)
        assert run.state == "queued"


def test_arq_is_as_the_worker_expects_it() -> None:
    """Each name of arq that is overridden or read is there, with the arguments it had."""
    assert arq.VERSION.startswith("0.28."), "look at nbjobs/worker.py before another arq is allowed"
    for name, arguments in {
        "main": ["self"],
        "start_jobs": ["self", "job_ids"],
        "run_job": ["self", "job_id", "score"],
        "handle_sig": ["self", "signum"],
        "_poll_iteration": ["self"],
        "async_run": ["self"],
    }.items():
        assert list(inspect.signature(getattr(arq.worker.Worker, name)).parameters) == arguments
    source = inspect.getsource(arq.worker.Worker)
    for name in (
        "job_counter",
        "tasks",
        "allow_pick_jobs",
        "in_progress_timeout_s",
        "queue_read_limit",
        "poll_delay_s",
    ):
        assert f"self.{name}" in source
    assert issubclass(ArqWorker, arq.worker.Worker)


def test_a_module_that_cannot_be_imported_is_told_before_the_start() -> None:
    """The check imports in another process, and says which module and why."""
    check_modules(["json"])
    with pytest.raises(Exception, match=r"no_such_module cannot be imported by .*ModuleNotFoundError"):
        check_modules(["no_such_module"])


@pytest.mark.weather("A3")
async def test_a_worker_that_takes_no_code_is_named_with_what_to_type(url: str) -> None:
    """By the card, the terminal, whoever waits, and once by the worker's log."""

    @job
    def of_a_notebook() -> None: ...

    why = r"takes no code from notebooks \(start it with NBJOBS_ACCEPT_CODE=true\)"
    with Worker(url) as worker:
        runs = [of_a_notebook.enqueue(), of_a_notebook.enqueue()]
        for run in runs:
            canceller = threading.Thread(target=cancel_once_hindered, args=(run,))
            canceller.start()
            with pytest.warns(UserWarning, match=why):
                assert run.wait(timeout=20) is run
            canceller.join(5)
        assert worker.log.count("takes no code from notebooks. Start it with NBJOBS_ACCEPT_CODE=true") == 1
        again = of_a_notebook.enqueue()
        canceller = threading.Thread(target=cancel_once_hindered, args=(again,))
        canceller.start()
        with pytest.warns(UserWarning, match=why):
            await again.await_end(timeout=20)
        canceller.join(5)


def cancel_once_hindered(run: Run) -> None:
    wait_until(lambda: run.state == "queued" and phrases.hindrance(run.view), 15, "it says what hinders it")
    assert "takes no code from notebooks" in phrases.note(run.view)
    wait_until(lambda: run.cancel() == "cancelled" or run.state == "cancelled", 5)
