"""Connections that are cut, and answers that are lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ..support import wait_until
from . import jobs
from .checker import check, check_repeats
from .proxy import Proxy
from .recorder import Asked
from .stage import AFTER_WORKER, PATIENCE, Stage, in_time, seconds_since

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


@pytest.mark.fault(22)
def test_row_22_who_was_parted_for_longer_than_its_lease_writes_nothing(stage: Stage, proxy: Proxy) -> None:
    """A partition before one worker: another takes over, and what the first one sent meanwhile is refused."""
    hurry = stage.folder / "hurry"
    parted = stage.worker(url=proxy.url)
    run = stage.enqueue(jobs.count, stage.path, 400, 0.06, hurry=str(hurry))
    stage.await_item(run, 5)
    successor = stage.worker()
    proxy.part()
    began = time.monotonic_ns()
    taken = stage.await_attempt(run, 2)
    in_time(seconds_since(began, taken), AFTER_WORKER + 1, "worker parted, another one began")
    assert stage.holder(run) is successor
    proxy.heal()

    def refused() -> list[Asked]:
        stage.recorder.catch_up(stage.client)
        return stage.recorder.refused(run.id)

    late = wait_until(refused, PATIENCE, f"what comes late is refused: {stage.logs()}", every=0.02)
    assert {f"-{parted.pid}-" in call.owner for call in late} == {True}
    hurry.touch()
    stage.await_end(run)
    check(stage, run, 400)
    again = stage.ledger.repeats(run.id, "count")
    print(f"{len(late)} writes refused, {len(again)} items repeated")
    assert len(again) <= 2, "more than what was in hand when the network broke"
    assert (stage.fields(run)["attempt"], parted.process.poll()) == ("2", None)
    later = stage.enqueue(jobs.count, stage.path, 10)
    stage.await_end(later)


@pytest.mark.fault(22)
def test_row_22_a_partition_shorter_than_the_lease_costs_time_alone(stage: Stage, proxy: Proxy) -> None:
    """A second without Redis before one worker, beside another: nobody takes over, and no item is repeated."""
    stage.worker(url=proxy.url, lease=6)
    run = stage.enqueue(jobs.count, stage.path, ITEMS, 0.06)
    stage.await_item(run, 5)
    stage.worker(lease=6)
    proxy.part()
    healed = time.monotonic() + 1.0
    wait_until(lambda: time.monotonic() > healed, 5, "the partition lasts a second")
    proxy.heal()
    stage.await_end(run)
    check(stage, run, ITEMS)
    assert check_repeats(stage, run) == {1: 0}
    assert (stage.fields(run)["attempt"], stage.fields(run)["crashes"]) == ("1", "0")


def _check_once(stage: Stage, run: str) -> None:
    fields = stage.client.hgetall(stage.keys.run(run))
    assert (fields["attempt"], fields["crashes"], fields["state"]) == ("1", "0", "completed")
    written = [call.c for call in stage.recorder.of(run) if call.script in ("commit", "finish") and call.wrote]
    assert written == [str(c) for c in range(1, int(fields["c"]) + 1)]
    names = [entry["e"] for _, entry in stage.client.xrange(stage.keys.user_events) if entry["id"] == run]
    assert names.count("job.started") == names.count("job.completed") == 1
    assert names.count("job.step") == names.count("job.step_started") == 2
