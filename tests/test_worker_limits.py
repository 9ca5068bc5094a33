"""Bodies that block or that tell too much harm nobody else, with real processes."""

from __future__ import annotations

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
        Path(waiting.path + ".gate").touch()
        assert neighbour.result(timeout=10) == "neighbour"
        for one in (run, neighbour):
            (interrupt,) = events(one, "job.interrupt")
            assert interrupt.payload["reason"] == "stalled"
            assert "event loop" in interrupt.payload["description"]
            assert one.view.crashes == 0
        run.cancel(now=True)
        run.wait(timeout=10)
    assert len({pid for _, pid in [*blocking.lines(), *waiting.lines()]}) == 3


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
    assert 0 < kept < 2_000_000
    assert [entry for entry in redis_client.slowlog_get() if entry["duration"] > 50_000] == []
    for key in redis_client.scan_iter("nbjobs:*"):
        assert redis_client.memory_usage(key) < 1_500_000, key
