"""What an owner asks of a run that a worker holds, with real processes; `test_control` asks runs that nobody holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from nbjobs import Run, keys
from nbjobs.errors import RunEnded
from nbjobs.settings import NbJobs

from . import workjobs
from .support import wait_until
from .workers import Ledger, Worker

pytestmark = pytest.mark.leaky  # workers leave their sign, their queue's entries and a lock

SLOW = {"renew": 60, "lease": 120}  # who heeds what is asked within seconds has been told, and did not ask by chance


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def url(redis_url: str, nbjobs_settings: NbJobs) -> str:
    return redis_url


def names(run: Run) -> list[str]:
    return [event.name for event in run.events() if event.n is not None]


def last(run: Run, name: str) -> dict[str, Any]:
    return [dict(event.payload) for event in run.events() if event.name == name][-1]


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def cancelled_within(run: Run, **how: bool) -> float:
    """Cancel a run and return how long that took."""

    def cancel() -> None:
        assert run.cancel(**how) == "cancelling"
        run.wait(timeout=20)

    took = seconds(cancel)
    assert run.state == "cancelled"
    return took


# -- cancel --------------------------------------------------------------------------------------


@pytest.mark.fault(61)
def test_c_code_that_holds_the_interpreter_is_cancelled_within_the_grace(url: str, ledger: Ledger) -> None:
    """Its process is ended after the grace; the worker's other runs and its process are untouched."""
    with Worker(url, grace=1, **SLOW) as worker:
        run = workjobs.hold_interpreter.enqueue(ledger.path, 60)
        ledger.wait_for(1)
        other = workjobs.gated.enqueue(ledger.path)
        ledger.wait_for(3)
        assert 1.0 <= cancelled_within(run) < 2.0
        assert worker.process.poll() is None
        ledger.open_gate()
        assert other.result(timeout=10) == "done"
    assert (names(other).count("job.started"), names(other).count("job.interrupt")) == (1, 0)
    assert names(run) == ["job.enqueued", "job.started", "job.cancelling", "job.interrupt", "job.cancelled"]
    assert last(run, "job.interrupt")["description"] == "it did not stop within the grace of 1 s after it was cancelled"
    assert run.view.crashes == 0


@pytest.mark.fault(61)
def test_c_code_that_holds_the_interpreter_is_cancelled_at_once(url: str, ledger: Ledger) -> None:
    """`cancel(now=True)` waits for no grace, also where a cancel that waits came before."""
    with Worker(url, grace=60, **SLOW):
        run = workjobs.hold_interpreter.enqueue(ledger.path, 60)
        ledger.wait_for(1)
        assert cancelled_within(run, now=True) < 1.0
        again = workjobs.hold_interpreter.enqueue(ledger.path, 60)
        ledger.wait_for(2)
        assert again.cancel() == "cancelling"
        assert cancelled_within(again, now=True) < 1.0
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3


@pytest.mark.fault(61)
def test_a_cancel_is_heeded_between_two_items(url: str, ledger: Ledger) -> None:
    """The item in hand ends and is counted; the run ends long before the grace is over."""
    with Worker(url, grace=60, **SLOW):
        run = workjobs.gated.enqueue(ledger.path)
        ledger.wait_for(2)
        assert run.cancel() == "cancelling"
        ledger.open_gate()
        run.wait(timeout=5)
    assert run.state == "cancelled"
    assert (ledger.items(), run.view.done) == ([0, 1], 2)


@pytest.mark.fault(61)
def test_an_async_body_is_cancelled_at_its_checkpoint(url: str, ledger: Ledger) -> None:
    """By the flag, as a sync one."""
    with Worker(url, grace=60, **SLOW):
        run = workjobs.steps_aside.enqueue(ledger.path)
        ledger.wait_for(3)
        assert cancelled_within(run) < 2.0


@pytest.mark.fault(61)
def test_an_async_body_that_waits_is_cancelled_as_a_task(url: str, ledger: Ledger) -> None:
    """After the grace its task is cancelled; its neighbours in the same process do not notice."""
    with Worker(url, grace=1, **SLOW):
        neighbour = workjobs.waits.enqueue(ledger.path, "neighbour")
        ledger.wait_for(1)
        run = workjobs.waits.enqueue(ledger.path + "2", "run")
        at_once = workjobs.waits.enqueue(ledger.path + "3", "run")
        for other in ("2", "3"):
            Ledger(Path(ledger.path + other)).wait_for(1)
        assert cancelled_within(at_once, now=True) < 0.5
        assert 1.0 <= cancelled_within(run) < 2.0
        ledger.open_gate()
        assert neighbour.result(timeout=10) == "neighbour"
    assert names(neighbour) == ["job.enqueued", "job.started", "job.completed"]


@pytest.mark.fault(61)
@pytest.mark.parametrize(("how", "least", "most"), [({}, 2.0, 3.0), ({"now": True}, 0.5, 1.0)])
def test_an_async_body_that_refuses_is_ended_with_its_process(
    url: str, ledger: Ledger, how: dict[str, bool], least: float, most: float
) -> None:
    """A second after its task was cancelled; the others in there are released without a crash and go on."""
    with Worker(url, grace=1, **SLOW):
        neighbour = workjobs.waits.enqueue(ledger.path + "2", "neighbour")
        Ledger(Path(ledger.path + "2")).wait_for(1)
        run = workjobs.stubborn.enqueue(ledger.path)
        ledger.wait_for(1)
        assert least <= cancelled_within(run, **how) < most
        Ledger(Path(ledger.path + "2")).wait_for(2)
        Path(ledger.path + "2.gate").touch()
        assert neighbour.result(timeout=10) == "neighbour"
    assert [line[0] for line in ledger.lines()] == ["began", "refused"]
    assert names(neighbour) == ["job.enqueued", "job.started", "job.interrupt", "job.started", "job.completed"]
    interrupt = last(neighbour, "job.interrupt")
    assert "another run's body" in interrupt["description"]
    assert neighbour.view.crashes == 0


@pytest.mark.fault(61)
def test_a_cancel_that_comes_with_the_claim_is_heeded(url: str, ledger: Ledger) -> None:
    """However early it is asked, no run is left to the next renewal."""
    with Worker(url, grace=0.1, **SLOW):
        for _ in range(15):
            run = workjobs.endless.enqueue(ledger.path)
            wait_until(lambda run=run: run.state == "running", 5)
            assert run.cancel() in ("cancelling", "cancelled")
            run.wait(timeout=5)
            assert run.state == "cancelled"


# -- pause ---------------------------------------------------------------------------------------


def test_a_pause_comes_after_the_item_in_hand(url: str, ledger: Ledger) -> None:
    """Until then the run is pausing; it keeps its progress and goes on where it was."""
    with Worker(url, **SLOW):
        run = workjobs.gated.enqueue(ledger.path)
        ledger.wait_for(2)
        assert [run.pause(), run.pause()] == ["pausing", "pausing"]
        ledger.open_gate()
        wait_until(lambda: run.state == "paused", 5)
        assert (ledger.items(), run.view.done) == ([0, 1], 2)
        assert run.pause() == "paused"
        assert run.unpause() == "queued"
        assert run.result(timeout=10) == "done"
    assert ledger.items() == [0, 1, 2]
    assert names(run).count("job.pausing") == 1


def test_a_pause_that_is_taken_back_leaves_no_trace_in_the_body(url: str, ledger: Ledger) -> None:
    """The same attempt goes on, though the body was told to stop before."""
    with Worker(url, **SLOW):
        run = workjobs.gated.enqueue(ledger.path)
        ledger.wait_for(2)
        assert run.pause() == "pausing"
        assert [run.unpause(), run.unpause()] == ["running", "running"]
        ledger.open_gate()
        assert run.result(timeout=10) == "done"
    assert ledger.items() == [0, 1, 2]
    assert names(run)[:4] == ["job.enqueued", "job.started", "job.step_started", "job.pausing"]
    assert names(run)[4:] == ["job.unpaused", "job.step", "job.completed"]


def test_a_pause_that_is_taken_back_is_so_where_nothing_is_committed(url: str, ledger: Ledger) -> None:
    """A checkpoint at which nothing has moved asks Redis nothing: the worker tells the body to go on."""
    with Worker(url, **SLOW) as worker:
        run = workjobs.looks_again.enqueue(ledger.path)
        ledger.wait_for(1)
        run.pause()
        run.unpause()
        # told in the order in which it was asked: an answer to a later request shows that both have arrived
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3
        Path(ledger.path + ".check").touch()
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3
        ledger.open_gate()
        assert run.result(timeout=10) == "done", worker.log
    assert names(run).count("job.started") == 1


def test_a_paused_body_is_cancelled(url: str, ledger: Ledger) -> None:
    """A cancel is more than a pause, and is not taken back."""
    with Worker(url, grace=0.3, **SLOW):
        run = workjobs.endless.enqueue(ledger.path)
        ledger.wait_for(1)
        assert run.pause() == "pausing"
        assert run.cancel() == "cancelling"
        assert (run.pause(), run.unpause()) == ("cancelling", "cancelling")
        run.wait(timeout=5)
    assert run.state == "cancelled"


# -- from every state, twice, and while the run ends -----------------------------------------------


def queued(ledger: Ledger) -> Run:
    return workjobs.add.options(queue="nobody").enqueue(1, 2)


def scheduled(ledger: Ledger) -> Run:
    return workjobs.add.options(delay=3600).enqueue(1, 2)


def running(ledger: Ledger) -> Run:
    run = workjobs.endless.enqueue(ledger.path)
    ledger.wait_for(1)
    return run


def pausing(ledger: Ledger) -> Run:
    run = running(ledger)
    run.pause()
    return run


def cancelling(ledger: Ledger) -> Run:
    run = running(ledger)
    run.cancel()
    return run


def paused(ledger: Ledger) -> Run:
    run = queued(ledger)
    run.pause()
    return run


def retrying(ledger: Ledger) -> Run:
    run = workjobs.fail_once.enqueue(ledger.path)
    wait_until(lambda: run.state == "retrying", 10)
    return run


def completed(ledger: Ledger) -> Run:
    return workjobs.add.enqueue(1, 2).wait(10)


def failed(ledger: Ledger) -> Run:
    return workjobs.add.enqueue("a", 1).wait(10)


def cancelled(ledger: Ledger) -> Run:
    run = queued(ledger)
    run.cancel()
    return run


def dead(ledger: Ledger) -> Run:
    return workjobs.poison.enqueue(ledger.path).wait(10)


ENDED = RunEnded
STATES: dict[Callable[[Ledger], Run], tuple[Any, Any, Any, Any]] = {
    # state     cancel        pause       unpause     retry
    queued: ("cancelled", "paused", "queued", "queued"),
    scheduled: ("cancelled", "paused", "scheduled", "scheduled"),
    running: ("cancelling", "pausing", "running", "running"),
    pausing: ("cancelling", "pausing", "running", "pausing"),
    cancelling: ("cancelling", "cancelling", "cancelling", "cancelling"),
    paused: ("cancelled", "paused", "queued", "paused"),
    retrying: ("cancelled", "paused", "retrying", "retrying"),
    completed: ("completed", ENDED, ENDED, ENDED),
    failed: ("failed", ENDED, ENDED, "queued"),
    cancelled: ("cancelled", ENDED, ENDED, "queued"),
    dead: ("dead", ENDED, ENDED, "queued"),
}


@pytest.fixture(scope="module")
def held_for_long() -> dict[str, Any]:
    return {"grace": 60, "queue": "test", **SLOW}


@pytest.mark.fault(61)
@pytest.mark.parametrize("state", STATES, ids=lambda make: make.__name__)
def test_each_control_from_each_state_twice(
    url: str, tmp_path: Path, redis_client: redis.Redis, held_for_long: dict[str, Any], state: Any
) -> None:
    """What comes of it is as the table says; asked again it changes nothing, and no event is written twice."""
    with Worker(url, children=5, **held_for_long) as worker:
        for k, op in enumerate(("cancel", "pause", "unpause", "retry")):
            run = state(Ledger(tmp_path / op))
            expected = STATES[state][k]
            if expected is ENDED:
                with pytest.raises(RunEnded, match=run.id):
                    getattr(run, op)()
                continue
            assert getattr(run, op)() == expected, op
            if op == "retry" and expected == "queued" and state is not queued:
                continue  # it may have begun by now
            known = names(run)
            assert getattr(run, op)() == expected, op
            assert names(run) == known, op
        worker.send_signal(9)
        worker.wait()


@pytest.mark.fault(61)
@pytest.mark.parametrize("op", ["cancel", "pause"])
def test_a_control_that_races_the_runs_end_is_decided_once(url: str, op: str) -> None:
    """Whoever comes first to Redis wins: one end, one event of it, and a state that fits."""
    seen = set()
    with Worker(url, **SLOW):
        for k in range(40):
            run = workjobs.add.enqueue(k, 1)
            gate = threading.Barrier(2)

            def ask(run: Run = run, gate: threading.Barrier = gate) -> None:
                gate.wait()
                try:
                    getattr(run, op)()
                except RunEnded:
                    assert op == "pause"

            asking = threading.Thread(target=ask)
            asking.start()
            gate.wait()
            asking.join()
            wait_until(lambda run=run: run.state in ("completed", "cancelled", "paused"), 10)
            ends = [name for name in names(run) if name in ("job.completed", "job.cancelled", "job.failed")]
            seen.add(run.state)
            if run.state == "paused":
                assert ends == []
                run.cancel()
            else:
                assert ends == [f"job.{run.state}"]
    assert seen, "no run ended"


@pytest.mark.fault(61)
def test_many_who_cancel_at_once_are_one(url: str, ledger: Ledger) -> None:
    """Eight threads cancel a run that is held: one event says so, and the run ends once."""
    with Worker(url, grace=0.2, **SLOW):
        run = running(ledger)
        threads = [threading.Thread(target=run.cancel) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.wait(timeout=10)
    assert names(run).count("job.cancelling") == 1
    assert names(run).count("job.cancelled") == 1


def test_what_is_asked_of_a_held_run_names_its_attempt(url: str, ledger: Ledger, redis_client: redis.Redis) -> None:
    """A worker that holds it hears of that on its queue's channel; a draining one still heeds it."""
    with Worker(url, grace=20, **SLOW) as worker, redis_client.pubsub(ignore_subscribe_messages=True) as heard:
        run = running(ledger)
        heard.subscribe(keys.wake("test"))
        worker.send_signal(15)
        wait_until(lambda: "no more runs are taken" in worker.log)
        run.cancel(now=True)
        message = wait_until(heard.get_message, 5)
        assert message["data"] == f"{{ada}}:{run.id}:1"
        run.wait(timeout=3)
        assert run.state == "cancelled"
        assert worker.wait(5) == 0
