"""Workers that are asked to stop while they work."""

from __future__ import annotations

import signal

import pytest

from . import jobs
from .checker import check, check_repeats
from .processes import Worker
from .stage import AFTER_CHILD, QUEUE, USER, Stage, in_time, seconds_since

STOPS, ITEMS = 20, 1000


@pytest.mark.fault(1)
def test_row_01_a_stopped_worker_ends_its_item_and_hands_the_run_on(stage: Stage) -> None:
    """SIGTERM in the middle of an item: it ends, is committed, and another worker goes on; nothing is counted."""
    workers = [stage.worker(ready=False), stage.worker(ready=False)]
    stage.wait_for(*workers)
    run = stage.enqueue(jobs.count, stage.path, 20, 0.08)
    stage.await_item(run, 6)
    stopped = stage.holder(run)
    told = stopped.send(signal.SIGTERM)
    in_time(seconds_since(told, stage.await_attempt(run, 2)), AFTER_CHILD, "worker stopped")
    assert stopped.leave() == 0, stopped.said
    stage.await_end(run)
    check(stage, run, 20)
    assert check_repeats(stage, run) == {1: 0, 2: 0}
    (interrupt,) = stage.payloads(run, "job.interrupt")
    assert interrupt["reason"] == "stopping"
    check_not_counted(stage, run.id, attempt=2)


@pytest.mark.fault(2)
@pytest.mark.slow
def test_row_02_twenty_stops_are_no_reason_to_give_up(stage: Stage) -> None:
    """SIGTERM twenty times over one run: it completes in attempt 21, without a crash, a retry or a repeat."""
    waiting = [stage.worker(ready=False), stage.worker(ready=False)]
    hurry = stage.folder / "hurry"
    run = stage.enqueue(jobs.count, stage.path, ITEMS, 0.04, hurry=str(hurry))
    for attempt in range(1, STOPS + 1):
        stage.await_attempt(run, attempt)
        stopped: Worker = stage.holder(run)
        stopped.send(signal.SIGTERM)
        if attempt < STOPS:
            waiting.append(stage.worker(ready=False))
        assert stopped.leave() == 0, stopped.said
    stage.await_attempt(run, STOPS + 1)
    hurry.touch()
    stage.await_end(run)
    check(stage, run, ITEMS)
    assert not any(check_repeats(stage, run).values())
    check_not_counted(stage, run.id, attempt=STOPS + 1)


def check_not_counted(stage: Stage, run: str, attempt: int, resumptions: int | None = None) -> None:
    """A stop is no crash, no failure, and burns no try of arq's."""
    fields = stage.client.hgetall(stage.keys.run(run))
    assert (fields["attempt"], fields["crashes"], fields["failures"]) == (str(attempt), "0", "0")
    assert int(fields["resumptions"]) == (attempt - 1 if resumptions is None else resumptions)
    assert stage.client.keys(f"arq:retry:*{USER}*") == []
    assert stage.client.zrange(f"arq:queue:{QUEUE}", 0, -1) == []
