"""Bodies that block or that tell too much harm nobody else, with real processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import redis

from nbjobs import Event, Gap, Run
from nbjobs.errors import ResultNotKept, RunFailed, TooLarge
from nbjobs.settings import NbJobs

from . import workjobs
from .support import wait_until
from .workers import ROOT, Ledger, Worker

pytestmark = pytest.mark.leaky  # workers leave their sign, their queue's entries and a lock


@pytest.fixture
def url(redis_url: str, nbjobs_settings: NbJobs) -> str:
    return redis_url


def events(run: Run, name: str) -> list[Event]:
    return [event for event in run.events() if isinstance(event, Event) and event.name == name]


def said(run: Run) -> str:
    return "\n".join(line.text for line in run.logs() if not isinstance(line, Gap))


@pytest.mark.fault(11)
def test_an_event_loop_that_is_blocked_loses_no_lease_and_is_ended(url: str, tmp_path: Path) -> None:
    """It is warned of with its stack, then its process is ended; each of its runs goes on in one of its own.

    The worker's patience is shortened; a body that blocks again, now alone, harms nobody and stays.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "from nbjobs.pool import Pool\nPool.__init__.__kwdefaults__.update(stall_warning=1.2, stall_limit=4.0)\n"
    )
    blocking, waiting = Ledger(tmp_path / "blocking"), Ledger(tmp_path / "waiting")
    with Worker(url, path=f"{tmp_path}:{ROOT}", lease=1.5, renew=0.3) as worker:
        neighbour = workjobs.waits.enqueue(waiting.path, "neighbour")
        waiting.wait_for(1)
        run = workjobs.blocks_the_loop.enqueue(blocking.path)
        blocking.wait_for(1)
        wait_until(lambda: "has been blocked" in worker.log, 10, "a warning")
        wait_until(lambda: "in blocks_the_loop" in worker.log, 5, "the stack")
        assert workjobs.add.enqueue(1, 2).result(timeout=5) == 3
        assert neighbour.view.attempt == run.view.attempt == 1, "their leases are kept meanwhile"
        waiting.wait_for(2, timeout=20)
        blocking.wait_for(2, timeout=20)
        waiting.open_gate()
        assert neighbour.result(timeout=10) == "neighbour"
        for one in (run, neighbour):
            (interrupt,) = events(one, "job.interrupt")
            assert interrupt.payload["reason"] == "stalled"
            assert "event loop" in interrupt.payload["description"]
            assert one.view.crashes == 0
        run.cancel(now=True)
        run.wait(timeout=10)
    assert len({pid for _, pid in [*blocking.lines(), *waiting.lines()]}) == 3


def test_a_body_that_never_stops_ends_with_its_timeout(url: str, tmp_path: Path) -> None:
    """In C code, with the interpreter held: a second later, as a `TimeoutError` that the job may retry; no crash."""
    ledger = Ledger(tmp_path / "ledger")
    with Worker(url, grace=60):
        run = workjobs.stuck_in_c.enqueue(ledger.path)
        with pytest.raises(RunFailed, match=r"TimeoutError: .* the job's timeout of 0.5 s and did not stop"):
            run.result(timeout=15)
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3
        wait_until(lambda: "in stuck_in_c" in said(run), 5, "where the body was stands in the run's log")
    view = run.view
    assert (len(ledger.lines()), view.failures, view.crashes, view.attempt) == (2, 2, 0, 2)
    names = [event.name for event in run.events() if event.n is not None]
    ends = ["job.retry_scheduled", "job.started", "job.retry_stopped", "job.failed"]
    assert names == ["job.enqueued", "job.started", *ends]
    assert 1500 <= events(run, "job.failed")[0].timestamp / 1e6 - view.began <= 4000


def test_a_timeout_after_progress_goes_on_at_the_cursor(url: str, tmp_path: Path) -> None:
    """As after any other error: what was committed before the process was ended is not done again."""
    ledger = Ledger(tmp_path / "ledger")
    with Worker(url):
        run = workjobs.stuck_once.enqueue(ledger.path)
        ledger.wait_for(3)
        ledger.open_gate()
        assert run.result(timeout=15) == "done"
    assert ledger.items() == [0, 1, 2, 2, 3]
    (retry,) = events(run, "job.retry_scheduled")
    assert retry.payload["exception"]["type"] == "TimeoutError"
    assert retry.payload["description"] == "at 'items', cursor 2"
    assert (run.view.failures, run.view.crashes, run.view.resumptions) == (1, 0, 1)


def test_a_body_that_heard_of_its_timeout_has_the_grace_to_leave(url: str, tmp_path: Path) -> None:
    """An `except` or `finally` of the body may take longer than the second that one in C code has."""
    ledger, late = Ledger(tmp_path / "ledger"), Ledger(tmp_path / "ledger.late")
    with Worker(url, grace=60):
        run = workjobs.cleans_up.enqueue(ledger.path)
        late.wait_for(1)
        heard = time.monotonic()
        wait_until(lambda: time.monotonic() > heard + 1.5, 5, "the second is over")
        ledger.open_gate()
        run.wait(timeout=10)
    assert late.lines() == [["late"], ["left"]]
    assert (run.state, run.view.crashes) == ("failed", 0)
    assert events(run, "job.discarded")[0].payload["exception"]["message"].startswith("the attempt took longer")


def test_an_async_body_that_ignores_its_timeout_is_ended_with_its_process(url: str, tmp_path: Path) -> None:
    """It is cancelled, a second later its child is ended; the other runs in there begin again, without a crash."""
    waiting, stubborn = Ledger(tmp_path / "waiting"), Ledger(tmp_path / "stubborn")
    with Worker(url):
        neighbour = workjobs.waits.enqueue(waiting.path, "neighbour")
        waiting.wait_for(1)
        run = workjobs.stubborn_beyond_its_time.enqueue(stubborn.path)
        with pytest.raises(RunFailed, match=r"TimeoutError: .* the job's timeout of 0.5 s and did not stop"):
            run.result(timeout=15)
        waiting.wait_for(2)
        waiting.open_gate()
        assert neighbour.result(timeout=10) == "neighbour"
    assert stubborn.lines()[1][0] == "refused"
    assert (run.view.crashes, run.view.failures, neighbour.view.crashes, neighbour.view.failures) == (0, 1, 0, 0)


@pytest.mark.fault(35)
def test_ten_megabytes_are_cut_refused_or_not_kept(url: str, redis_client: redis.Redis) -> None:
    """In an event, a cursor, a value, a result, a line and an argument; no command holds Redis for 50 ms."""
    with pytest.raises(TooLarge, match="at most 65,536 are allowed"):
        workjobs.tells_too_much.enqueue("x" * 10_000_000)
    redis_client.config_set("slowlog-log-slower-than", 50_000)
    redis_client.slowlog_reset()
    with Worker(url):
        runs: dict[str, Any] = {
            what: workjobs.tells_too_much.enqueue(what) for what in ("event", "cursor", "value", "result", "print")
        }
        for run in runs.values():
            run.wait(timeout=30)
        assert runs["event"].result() == runs["value"].result() == runs["print"].result() == "done"
        with pytest.raises(RunFailed, match="at most 8,192 are allowed"):
            runs["cursor"].result()
        with pytest.raises(ResultNotKept, match="at most 1,048,576 are allowed"):
            runs["result"].result()
        lines = list(runs["print"].logs(follow=True))
    (event,) = events(runs["event"], "own.much")
    assert len(str(event.payload)) < 20_000
    assert "not-kept" in runs["value"].view.marks
    kept = sum(len(line.text) for line in lines if not isinstance(line, Gap))
    assert 0 < kept < 10_000_000  # a burst, and what the cap lets through each second of a slow machine
    assert [entry for entry in redis_client.slowlog_get() if entry["duration"] > 50_000] == []
    for key in redis_client.scan_iter("nbjobs:*"):
        assert redis_client.memory_usage(key) < 1_500_000, key


@pytest.mark.parametrize("occupies", [workjobs.occupies, workjobs.aoccupies], ids=["sync", "async"])
def test_a_queue_has_as_many_places_as_its_workers(url: str, tmp_path: Path, occupies: Any) -> None:
    """One worker with one place: its runs come one after the other, and those of other queues do not wait for them."""
    ledger = Ledger(tmp_path / "ledger")
    with Worker(url, queue="gpu", children=1, async_runs=1), Worker(url):
        runs = [occupies.enqueue(ledger.path) for _ in range(3)]
        ledger.wait_for(1)
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3
        assert workjobs.aadd.enqueue(1, 2).result(timeout=10) == 3
        assert sorted(run.state for run in runs) == ["queued", "queued", "running"]
        ledger.open_gate()
        for run in runs:
            run.wait(timeout=10)
    assert ledger.lines() == [["in"], ["out"]] * 3
