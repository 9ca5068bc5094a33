"""Several runs in finished words."""

from __future__ import annotations

from typing import Any

import pytest

from nbjobs import summary as summaries
from nbjobs.summary import Several
from nbjobs.view import RunView

NOW = 1_795_000_000_000
EACH = {"job": "shop.imports.import_orders", "enqueued": NOW - 60_000, "updated": NOW}


def run(number: int, state: str, **fields: Any) -> RunView:
    return RunView(run=f"r{number}", state=state, **{**EACH, **fields})


def done(number: int) -> RunView:
    return run(number, "completed", started=NOW - 50_000, ended=NOW - 1000)


def test_counts_are_told_failures_first() -> None:
    """Each state that is there is told once, with its number, in an order that begins with what wants the eye."""
    several = Several([run(1, "queued"), done(2), run(3, "failed"), run(4, "running"), done(5), run(6, "dead")])
    made = several.summary()
    assert [part.text for part in made.parts] == ["1 failed", "1 dead", "1 running", "1 queued", "2 done"]
    assert (made.name, made.headline, made.state) == ("import_orders", "6 runs", "running")
    assert (made.total, made.ended) == (6, 4)


def test_cells_of_failures_come_first_and_the_others_keep_their_order() -> None:
    """The number of a cell is the run's place in the order of enqueueing."""
    made = Several([done(1), run(2, "queued"), run(3, "failed"), done(4), run(5, "lost")]).summary()
    assert [cell.number for cell in made.cells] == [3, 5, 1, 2, 4]
    assert made.cells[0].text.startswith("#3 · failed")


def test_a_cell_says_in_a_line_what_became_of_its_run() -> None:
    """Where it failed and with which error; a long one is cut."""
    error = {"error_type": "ValueError", "error_message": "row 3: " + "x" * 500, "step": "load_rows"}
    (cell,) = Several([run(1, "failed", **error)]).summary().cells
    assert cell.text.startswith("#1 · failed in step 1 · load rows · ValueError: row 3: xxx")
    assert len(cell.text) < 220


def test_the_share_counts_runs_under_way_in_part() -> None:
    """An ended run counts as one, one in a step as far as it is."""
    half = run(2, "running", step="load", in_step=True, done=5, total=10)
    made = Several([done(1), half, run(3, "failed"), run(4, "queued")]).summary()
    assert made.done == pytest.approx(2.5 / 4)
    assert made.failed == pytest.approx(1 / 4)
    assert made.percent == "62 %"


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (["completed", "completed"], "completed"),
        (["completed", "failed"], "failed"),
        (["completed", "cancelled"], "cancelled"),
        (["completed", "queued"], "running"),
        (["queued", "scheduled"], "queued"),
        (["paused", "failed"], "paused"),
        (["failed", "running"], "running"),
        (["completed", "of a newer version"], "of a newer version"),
    ],
)
def test_the_state_of_all_is_the_liveliest_then_the_worst(states: list[str], state: str) -> None:
    """While one is under way all are; where all have ended the worst of the ends counts."""
    several = Several(run(number, one) for number, one in enumerate(states))
    assert several.summary().state == state
    assert several.over == (state in ("completed", "failed", "cancelled") and "paused" not in states)


def test_time_left_comes_from_those_that_are_done() -> None:
    """Three at least must be; before that the clock runs. At the end it says how long all took."""
    running = run(9, "running", started=NOW - 10_000)
    made = Several([*map(done, range(2)), running]).summary()
    assert made.clock is not None
    made = Several([*map(done, range(4)), running]).summary()
    assert [fact.text for fact in made.facts] == ["about 12 s left"]
    made = Several(map(done, range(4))).summary()
    assert [fact.text for fact in made.facts] == ["took 49 s"]


def test_runs_that_no_worker_takes_say_so() -> None:
    """One fact names the queue."""
    made = Several([run(1, "queued", no_worker=True, queue="gpu"), run(2, "queued")]).summary()
    assert [fact.text for fact in made.facts] == ["no worker alive on queue gpu"]


def test_several_jobs_are_named_together() -> None:
    """The first by name, the others by number."""
    made = Several([run(1, "queued"), run(2, "queued", job="shop.clean"), run(3, "queued", job="shop.send")])
    assert made.summary().name == "import_orders and 2 other jobs"


def test_what_is_taken_replaces_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new view changes its own cell alone; one of a run that is not among them changes nothing."""
    several = Several([run(1, "queued"), run(2, "queued")])
    several.summary()
    worded: list[str] = []
    made = summaries._made
    monkeypatch.setattr(summaries, "_made", lambda view, number: worded.append(view.run) or made(view, number))
    several.take(done(2))
    several.take(done(7))
    assert [cell.state for cell in several.summary().cells] == ["queued", "completed"]
    assert worded == ["r2"]


def test_very_many_runs_are_told_in_part() -> None:
    """A thousand cells, the failures among them, and how many more there are."""
    made = Several([*(run(number, "queued") for number in range(1500)), run(9999, "failed")]).summary()
    assert (len(made.cells), made.hidden, made.total) == (1000, 501, 1501)
    assert made.cells[0].state == "failed"
