"""How attempts end: whatever a body does, its end is written, and it is not begun again for nothing."""

from __future__ import annotations

import pytest

from nbjobs import connection, history
from nbjobs.errors import RunFailed
from nbjobs.run import Run

from ..hostile import HOSTILE
from . import endjobs
from .stage import Stage

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
    run = stage.enqueue(endjobs.tells, "a\udcffb" + "\u2028" * 190)
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
