"""Connections that are cut, and answers that are lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support import wait_until
from . import jobs
from .checker import check, check_repeats
from .proxy import Proxy
from .stage import PATIENCE, Stage

ITEMS = 60


@pytest.fixture
def proxy(stage: Stage) -> Iterator[Proxy]:
    """Stands between workers and Redis; the test itself asks Redis directly."""
    with Proxy(stage.server.socket) as found:
        yield found


@pytest.mark.fault(20)
@pytest.mark.parametrize("every", [None, 1])
def test_row_20_a_cut_connection_is_made_anew(stage: Stage, proxy: Proxy, every: int | None) -> None:
    """All connections of a worker and its child are reset three times: the run goes on, and nothing is repeated."""
    worker = stage.worker(url=proxy.url)
    run = stage.enqueue(jobs.count, stage.path, ITEMS, 0.02, every)
    cut = 0
    for item in (10, 25, 40):
        stage.await_item(run, item)
        cut += proxy.cut()
    stage.await_end(run)
    print(f"{cut} connections were cut, {proxy.connections} were made")
    assert cut >= 3 * 3
    check(stage, run, ITEMS)
    assert check_repeats(stage, run) == {1: 0}
    assert (stage.fields(run)["attempt"], worker.process.poll()) == ("1", None)


@pytest.mark.fault(21)
@pytest.mark.parametrize("script", ["claim", "commit", "finish"])
def test_row_21_a_lost_answer_has_one_effect(stage: Stage, proxy: Proxy, script: str) -> None:
    """Redis did the call, its answer is lost: the call is sent again, and is known."""
    worker = stage.worker(url=proxy.url)
    if script != "commit":
        proxy.lose(script, 2)
    run = stage.enqueue(jobs.count, stage.path, ITEMS, 0.005, 1)
    if script == "commit":
        for item in (10, 20, 30):
            stage.await_item(run, item)
            lost = len(proxy.lost)
            proxy.lose(script, 2)
            wait_until(lambda lost=lost: len(proxy.lost) >= lost + 2, PATIENCE, "two answers are lost")
    stage.await_end(run)
    wait_until(lambda: len(proxy.lost) == (6 if script == "commit" else 2), PATIENCE, "each answer was lost")
    wait_until(
        lambda: len([call for call in stage.recorder.of(run.id, script) if not call.wrote]) >= len(proxy.lost),
        PATIENCE,
        "each call that was lost is sent again",
    )
    check(stage, run, ITEMS)
    assert check_repeats(stage, run) == {1: 0}
    assert set(proxy.lost) == {script}
    _check_once(stage, run.id)
    assert "refused" not in worker.said, worker.said


def _check_once(stage: Stage, run: str) -> None:
    fields = stage.client.hgetall(stage.keys.run(run))
    assert (fields["attempt"], fields["crashes"], fields["state"]) == ("1", "0", "completed")
    written = [call.c for call in stage.recorder.of(run) if call.script in ("commit", "finish") and call.wrote]
    assert written == [str(c) for c in range(1, int(fields["c"]) + 1)]
    names = [entry["e"] for _, entry in stage.client.xrange(stage.keys.user_events) if entry["id"] == run]
    assert names.count("job.started") == names.count("job.completed") == 1
    assert names.count("job.step") == names.count("job.step_started") == 2
