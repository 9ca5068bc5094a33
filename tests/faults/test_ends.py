"""How attempts end: whatever a body does, its end is written, and it is not begun again for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from nbjobs import connection, history
from nbjobs.errors import RunFailed
from nbjobs.face import face
from nbjobs.jobs import Job
from nbjobs.run import Run

from ..hostile import HOSTILE
from ..support import wait_until
from . import endjobs
from .stage import PATIENCE, Stage

LIMIT = 64 * 1024


def told_once(stage: Stage, runs: list[Run]) -> None:
    """Each of the runs failed by its first attempt, with an error that can be read."""
    for run in runs:
        stage.await_end(run, "failed")
        fields = stage.fields(run)
        assert (fields["attempt"], fields["crashes"], fields["failures"]) == ("1", "0", "1"), stage.standing(run)
        assert 0 < len(fields["error"].encode()) <= LIMIT
        assert run.view.error_type
        with pytest.raises(RunFailed):
            run.result()


def entries(stage: Stage) -> int:
    """How many entries the user's stream has, of which all runs share so many."""
    client: Any = stage.client
    return len(client.xrange(stage.keys.user_events))


@pytest.mark.weather("H5")
def test_whatever_an_error_is_its_run_fails_by_its_first_attempt(stage: Stage) -> None:
    """The text, the class, the notes and the cause of an error may be anything: it is told, and costs no process."""
    stage.worker(children=2)
    runs = [stage.enqueue(endjobs.raises, name) for name in (*HOSTILE, *endjobs.ODD)]
    for body in (endjobs.araises, endjobs.araises_in_time):
        runs += [stage.enqueue(body, name) for name in endjobs.ODD if name != "it ends an iteration"]
    told_once(stage, runs)
    files = [run for run in runs if "caf\ufffd.txt" in run.view.error_message]
    assert len(files) == 3, "the name of the file is told, as far as it is text"


@pytest.mark.weather("H4", "H5")
def test_the_name_of_an_event_refuses_no_commit(stage: Stage) -> None:
    """It is cleaned as all texts are, and cut: what follows it is kept."""
    stage.worker()
    run = stage.enqueue(endjobs.tells, "a\ud800b" + "\u2028" * 190)
    stage.await_end(run)
    assert stage.fields(run)["attempt"] == "1"
    names = [event.name for event in history.events(connection.client(), stage.keys, run.id)]
    assert [name.strip() for name in names if name.startswith("a")] == ["a\ufffdb"] * 2


@pytest.mark.weather("H5")
def test_what_a_body_puts_into_its_last_commit_refuses_no_end(stage: Stage) -> None:
    """A total that is none is left out; a place that cannot be told fails the run, by its first attempt."""
    stage.worker()
    totals, items = stage.enqueue(endjobs.totals), stage.enqueue(endjobs.loses_its_place)
    stage.await_end(totals)
    stage.await_end(items, "failed")
    for run in (totals, items):
        assert (stage.fields(run)["attempt"], stage.fields(run)["crashes"]) == ("1", "0")
    assert items.view.error_message == "the file is closed"


@pytest.mark.weather("H4")
def test_a_stop_that_nobody_has_asked_for_is_a_failure(stage: Stage) -> None:
    """Of a body that awaits a task that it has cancelled, raises it, or interrupts itself: it is begun once."""
    stage.worker(children=2)
    bodies: list[Job[Any, Any]] = [
        endjobs.awaits_its_cancelled_task,
        endjobs.cancelled,
        endjobs.interrupts_itself,
        endjobs.ainterrupts_itself,
        endjobs.ainterrupts_a_task,
    ]
    runs = [stage.enqueue(body, stage.path) for body in bodies]
    told_once(stage, runs)
    assert [run.view.error_type for run in runs] == [*["CancelledError"] * 2, *["KeyboardInterrupt"] * 3]
    assert [len(stage.ledger.lines(run.id)) for run in runs] == [1] * 5


@pytest.mark.weather("H4")
def test_a_body_that_lets_itself_go_waits_longer_each_time(stage: Stage) -> None:
    """It was begun a thousand times in eight seconds; now its next attempts are 0, 1 and 10 s away."""
    stage.worker()
    run = stage.enqueue(endjobs.lets_itself_go, stage.path)
    wait_until(lambda: stage.fields(run)["fruitless"] == "3", PATIENCE, lambda: stage.standing(run))
    fields = stage.fields(run)
    assert (fields["state"], fields["wait"], fields["attempt"]) == ("retrying", "10000", "3")
    assert len(stage.ledger.lines(run.id)) == 3
    assert entries(stage) < 20, "the stream is not flooded"
    shown = run.view
    assert face(shown, now=shown.at - 8_500).facts[-2].text == "next attempt in 9 s"
    run.cancel()


@pytest.mark.slow
@pytest.mark.weather("H4")
def test_a_body_that_kills_its_nursery_is_dead_and_those_beside_it_end(stage: Stage) -> None:
    """It was begun 62 times in 40 s, and a body of 6 s beside it never came to its end."""
    worker = stage.worker(children=2, crash_wait="0")
    beside = stage.enqueue(endjobs.beside, stage.path, 6.0)
    stage.await_item(beside, 0, "began")
    killer = stage.enqueue(endjobs.kills_its_nursery, stage.path)
    stage.await_end(beside)
    assert beside.result() == "through"
    stage.await_end(killer, "dead")
    assert len(stage.ledger.lines(killer.id)) <= 6, stage.standing(killer)
    assert len(stage.ledger.lines(beside.id)) <= 3, stage.standing(beside)
    assert entries(stage) < 60, "the stream is not flooded"
    assert worker.process.poll() is None


@pytest.mark.weather("A1")
def test_a_worker_sleeps_waits_whatever_its_environment_says_of_the_adapter(stage: Stage) -> None:
    """That of who started it is for enqueuing: waits are slept, and a run of a run has a process of its own."""
    stage.worker(adapter="inline", children=2)
    run = stage.enqueue(endjobs.fails, stage.path)
    family = stage.enqueue(endjobs.parent, stage.path)
    stage.await_end(family)
    child, parent = family.result()
    assert child != parent
    wait_until(lambda: run.state == "retrying", PATIENCE, lambda: stage.standing(run))
    assert int(stage.fields(run)["wait"]) >= 30_000
    run.cancel()
    stage.await_end(run, "cancelled")
