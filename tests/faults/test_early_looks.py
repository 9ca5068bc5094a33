"""Who looks a moment too early: a worker at an entry before its run is there, a reader before the next event is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from nbjobs import connection
from nbjobs.attempts import Attempts
from nbjobs.keys import arq_queue
from nbjobs.leases import Leases
from nbjobs.run import Run
from nbjobs.settings import NbJobs

from ..support import wait_until
from . import jobs
from .stage import QUEUE, USER, Stage
from .transcript import Transcript


class Hasty(Attempts):
    """Looks, and only then lets the run be enqueued."""

    enqueue: Any = None

    async def _read(self, ids: Sequence[str], before: Sequence[Any] = ()) -> Any:
        found = await super()._read(ids, before)
        enqueue, self.enqueue = self.enqueue, None
        if enqueue is not None:
            enqueue()
        return found


@pytest.mark.fault(21)
async def test_row_21_a_look_that_comes_too_early_loses_no_run(stage: Stage) -> None:
    """A run that is written between a worker's look and its removing the entry is taken all the same.

    So it is on a Redis that has just started: the first enqueue finds no scripts, but its entry is written; then the
    scripts are loaded, and both are written again.
    """
    client = connection.async_client(stage.server.url)
    pool: Any = None
    attempts = Hasty(Leases(client, stage.settings), pool, worker="w", queue=QUEUE, grace=1, on_free=lambda kind: None)
    attempts.enqueue = lambda: jobs.count.options(id="r1").enqueue(stage.path, 1)
    candidates = await attempts.look(["{ada}:r1:1"])
    await client.aclose()
    assert [one.held.run for one in candidates] == ["r1"] or stage.client.zrange(arq_queue(QUEUE), 0, -1)


@pytest.mark.fault(21)
def test_row_21_the_first_run_on_a_bare_redis_begins_at_once(stage: Stage) -> None:
    """Scripts that Redis has forgotten delay no run: the worker loads them, the client too."""
    stage.worker()
    for _ in range(5):
        stage.client.script_flush()
        stage.await_end(stage.enqueue(jobs.count, stage.path, 1), timeout=20)


class HastyReader(Transcript):
    """Loads the run, and cancels it before the first read."""

    hasty = True

    def _read(self) -> None:
        if self.hasty:
            self.hasty = False
            self.run.cancel()
        super()._read()

    def __init__(self, run: Run, settings: NbJobs) -> None:
        self.run = run
        super().__init__(run.id, USER, settings)


@pytest.mark.fault(29)
def test_row_29_what_comes_before_the_first_read_is_shown(stage: Stage) -> None:
    """I7: an event between a reader's look at the run and its first read is shown as soon as any other."""
    run = jobs.count.enqueue(stage.path, 1)
    reader = stage.transcripts[run.id] = HastyReader(run, stage.settings)
    wait_until(lambda: reader.seen and reader.last.state == "cancelled", 4, "the reader shows the end")
    assert [(one.view.n, one.view.state) for one in reader.seen] == [(1, "queued"), (2, "cancelled")]
