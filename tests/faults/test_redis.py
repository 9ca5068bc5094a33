"""A Redis that dies and comes back, and one that is full."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from nbjobs.errors import RunLost
from nbjobs.run import Run

from ..support import wait_until
from . import jobs
from .checker import check, check_repeats
from .stage import PATIENCE, Stage, staged

ITEMS = 600
SECONDS = 0.003


@pytest.mark.fault(16)
def test_row_16_a_redis_that_dies_in_the_middle_costs_what_it_forgot(tmp_path: Path) -> None:
    """SIGKILL of Redis and restart, AOF each second: workers stay, the run goes on from what is left, whole."""
    with staged(tmp_path, appendonly="yes") as stage:
        workers = [stage.worker(ready=False), stage.worker(ready=False)]
        stage.wait_for(*workers)
        run = stage.enqueue(jobs.count, stage.path, ITEMS, SECONDS)
        for item in (150, 350):
            stage.await_item(run, item)
            stage.server.kill()
            assert not any(worker.process.poll() for worker in workers)
            stage.restart_redis()
            fields = stage.fields(run)
            last = stage.client.xrevrange(stage.keys.user_events, count=1)
            assert int(fields["n"]) == int(last[0][1]["n"]), "the hash and the last event do not belong together"
            print(f"Redis was killed at item {item} or later, it remembers {fields['done']} of them")
        stage.await_end(run)
        check(stage, run, ITEMS, lives=3)
        assert all(worker.process.poll() is None for worker in workers)
        # Only what Redis forgot is done again: each attempt begins where the commit that is left says.
        for attempt in range(2, int(stage.fields(run)["attempt"]) + 1):
            began = stage.ledger.lines(run.id, "count", attempt)[0].item
            repeated = stage.ledger.repeats(run.id, "count", attempt - 1)
            assert len(repeated) == max(line.item for line in repeated) + 1 - began if repeated else True


@pytest.mark.fault(16)
def test_row_16_a_redis_that_has_written_all_forgets_nothing(tmp_path: Path) -> None:
    """The same where Redis had handed all it acknowledged to the system: not one item is done again."""
    with staged(tmp_path, appendonly="yes") as stage:
        worker = stage.worker(lease=20)
        run = stage.enqueue(jobs.count, stage.path, ITEMS, SECONDS)
        for item in (150, 350):
            stage.await_item(run, item)
            worker.send(signal.SIGSTOP, everybody=True)
            wait_until(lambda: not stage.client.info("persistence")["aof_buffer_length"], PATIENCE, "all is written")
            stage.recorder.catch_up(stage.client)
            before = stage.fields(run)
            stage.server.kill()
            stage.restart_redis()
            assert stage.fields(run) == before
            worker.send(signal.SIGCONT, everybody=True)
        stage.await_end(run)
        check(stage, run, ITEMS, lives=3)
        assert check_repeats(stage, run) == {1: 0}
        assert stage.fields(run)["attempt"] == "1"


@pytest.mark.fault(24)
def test_row_24_a_full_redis_holds_the_run_and_breaks_nothing(stage: Stage) -> None:
    """`maxmemory`, `noeviction`: commits are refused whole, leases are kept, and the run goes on after relief."""
    worker = stage.worker()
    stage.worker()
    run = stage.enqueue(jobs.count, stage.path, ITEMS, SECONDS)
    stage.await_item(run, 150)
    stage.client.config_set("maxmemory-policy", "noeviction")
    stage.client.config_set("maxmemory", "1mb")
    wait_until(lambda: _refusals(stage) >= 3, PATIENCE, "commits are refused", every=0.02)
    before, lengths, first_lease = stage.fields(run), _lengths(stage, run.id), _lease(stage, run.id)
    refusals = _refusals(stage)
    wait_until(lambda: _lease(stage, run.id) > first_lease + 1000, PATIENCE, "the lease is renewed meanwhile")
    wait_until(lambda: _refusals(stage) > refusals + 2, PATIENCE, "commits are tried again", every=0.02)
    after = stage.fields(run)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"lease_until"}, changed
    assert _lengths(stage, run.id) == lengths
    held_for = _still_for(stage, run.id)
    assert held_for > 0.5, f"the body went on while nothing could be stored: last item {held_for:.2f} s ago"
    stage.client.config_set("maxmemory", "0")
    stage.await_end(run)
    check(stage, run, ITEMS)
    assert check_repeats(stage, run) == {1: 0}
    assert stage.fields(run)["attempt"] == "1"
    assert worker.process.poll() is None


@pytest.mark.fault(24)
def test_row_24_an_end_is_written_into_a_full_redis(stage: Stage) -> None:
    """A body without steps that returns while Redis is full has completed: `finish` is not refused."""
    gate = stage.folder / "gate"
    stage.worker()
    run = stage.enqueue(jobs.gated, stage.path, str(gate))
    stage.await_attempt(run, 1, "start")
    stage.client.config_set("maxmemory", "1mb")
    gate.touch()
    stage.await_end(run)
    stage.client.config_set("maxmemory", "0")
    assert run.result(10) == "through"
    assert stage.names(run) == ["job.enqueued", "job.started", "job.completed"]


@pytest.mark.fault(18)
def test_row_18_a_redis_without_a_file_loses_the_run_and_all_say_so(stage: Stage) -> None:
    """Killed and restarted it knows nothing: the run is lost to readers, its body ends, the worker goes on idly."""
    worker = stage.worker()
    assert "no append-only file" in worker.said, "a worker warns at its start"
    run = stage.enqueue(jobs.count, stage.path, 100_000, SECONDS)
    body = stage.await_item(run, 150).pid
    stage.server.kill()
    stage.restart_redis()
    check_lost(stage, run, body)
    asked = stage.client.info("stats")["total_commands_processed"]
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + 1, 5, "a second passes")
    calm = int(stage.client.info("stats")["total_commands_processed"]) - int(asked)
    assert calm < 200, f"the worker asked Redis {calm} times within a second, with nothing to do"
    assert worker.process.poll() is None
    later = stage.enqueue(jobs.count, stage.path, 10)
    stage.await_end(later)
    assert later.result() == 10


@pytest.mark.fault(18)
def test_row_18_a_redis_that_falls_back_to_its_snapshot_costs_what_came_after_it(stage: Stage) -> None:
    """RDB alone: the run goes on from the cursor of the snapshot, and whoever follows it is told of that state."""
    stage.worker()
    run = stage.enqueue(jobs.count, stage.path, ITEMS, SECONDS)
    stage.await_item(run, 100)
    remembered = int(stage.fields(run)["done"])
    stage.client.save()
    stage.await_item(run, 300)
    stage.server.kill()
    stage.restart_redis()
    stage.await_end(run)
    check(stage, run, ITEMS, lives=2)
    again = {line.item for line in stage.ledger.repeats(run.id, "count")}
    assert again and min(again) >= remembered, f"{min(again)} was done again, the snapshot knew {remembered} items"
    assert again == set(range(min(again), max(again) + 1)), "only what the snapshot did not know is done again"
    assert stage.fields(run)["crashes"] == "0"


@pytest.mark.fault(28)
def test_row_28_forgotten_scripts_are_loaded_again(stage: Stage) -> None:
    """SCRIPT FLUSH again and again in the middle of a run: no item is done twice, nobody gives up."""
    stage.worker()
    run = stage.enqueue(jobs.count, stage.path, ITEMS, SECONDS)
    for item in range(50, 400, 50):
        stage.await_item(run, item)
        stage.client.script_flush()
    stage.await_end(run)
    check(stage, run, ITEMS)
    assert check_repeats(stage, run) == {1: 0}
    assert stage.fields(run)["attempt"] == "1"


@pytest.mark.fault(28)
def test_row_28_a_flushed_redis_has_lost_the_run(stage: Stage) -> None:
    """FLUSHALL in the middle of a run: readers say so, the body ends, and the worker takes the next run."""
    worker = stage.worker()
    run = stage.enqueue(jobs.count, stage.path, 100_000, SECONDS)
    body = stage.await_item(run, 150).pid
    stage.client.flushall()
    check_lost(stage, run, body)
    assert worker.process.poll() is None
    later = stage.enqueue(jobs.count, stage.path, 10)
    stage.await_end(later)
    assert later.result() == 10


def check_lost(stage: Stage, run: Run, body: int) -> None:
    """Readers say that the run is lost, and its body has ended; nothing of it is written any more."""
    wait_until(lambda: run.state == "lost", PATIENCE, "its state is told")
    wait_until(lambda: stage.transcripts[run.id].last.state == "lost", 10, "whoever follows it is told")
    with pytest.raises(RunLost, match=run.id):
        run.result(timeout=10)
    wait_until(lambda: _still_for(stage, run.id) > 1, 10, f"the body in process {body} ends: {stage.logs()}", every=0.1)
    assert not stage.client.exists(stage.keys.run(run.id), stage.keys.events(run.id))


def _refusals(stage: Stage) -> int:
    """How many commands Redis has refused since it is full."""
    return int(stage.client.info("errorstats").get("errorstat_OOM", {}).get("count", 0))


def _lengths(stage: Stage, run: str) -> list[int]:
    return [stage.client.xlen(key) for key in (stage.keys.events(run), stage.keys.user_events)]


def _lease(stage: Stage, run: str) -> int:
    return int(stage.client.hget(stage.keys.run(run), "lease_until"))


def _still_for(stage: Stage, run: str) -> float:
    """For how many seconds no item was done."""
    return (time.monotonic_ns() - stage.ledger.lines(run, "count")[-1].ns) / 1e9
