"""Clocks that are wrong, and that somebody sets while a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbjobs import connection, history

from . import jobs
from .checker import check, check_repeats
from .ledger import now_ns
from .stage import Stage, in_time, seconds_since

HOUR = 3600
_PATCH = """
import os, time
real, real_ns = time.time, time.time_ns
def shift():
    try:
        return int(open({file!r}).read())
    except (OSError, ValueError):
        return 0
time.time = lambda: real() + shift()
time.time_ns = lambda: real_ns() + shift() * 1_000_000_000
"""


class Clock:
    """The clock of the workers that have it on their path; it is set by a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._file = folder / "shift"
        (folder / "sitecustomize.py").write_text(_PATCH.format(file=str(self._file)))

    def set(self, seconds: int) -> None:
        """Put it that far ahead of the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._file)


@pytest.mark.fault(32)
@pytest.mark.parametrize("hours", [-1, 1])
def test_row_32_a_clock_that_is_set_in_the_middle_changes_nothing(stage: Stage, hours: int) -> None:
    """An hour forth or back, then right again, beside a worker whose clock is right: no lease, wait or stamp moves."""
    clock = Clock(stage.folder / "clock")
    stage.worker(path=clock.folder)
    run = stage.enqueue(jobs.count, stage.path, 150, 0.03)
    stage.await_item(run, 10)
    stage.worker()
    clock.set(hours * HOUR)
    began = int(stage.client.time()[0])
    stage.await_item(run, 50)
    clock.set(0)
    stage.await_end(run)
    ended = int(stage.client.time()[0])
    check(stage, run, 150)
    assert check_repeats(stage, run) == {1: 0}
    assert stage.fields(run)["attempt"] == "1", "the other worker did not take it for left"
    for event in history.events(connection.client(), stage.keys, run.id):
        assert began - 60 < event.timestamp / 1e9 < ended + 60, event


@pytest.mark.fault(32)
@pytest.mark.parametrize("hours", [-1, 1])
def test_row_32_waits_are_those_of_redis(stage: Stage, hours: int) -> None:
    """A delayed run and one that is tried again begin at their time where the only worker's clock is an hour off."""
    clock = Clock(stage.folder / "clock")
    clock.set(hours * HOUR)
    stage.worker(path=clock.folder)
    began = now_ns()
    later = stage.enqueue(jobs.count.options(delay=1.5), stage.path, 1)
    again = stage.enqueue(jobs.fails_once, stage.path)
    stage.await_end(later)
    stage.await_end(again)
    (first,) = stage.ledger.lines(later.id, "count")
    assert seconds_since(began, first) >= 1.5
    in_time(seconds_since(began, first), 2.5, "a delay of 1.5 s")
    one, two = stage.ledger.lines(again.id, "start")
    assert seconds_since(one.ns, two) >= 1.0
    in_time(seconds_since(one.ns, two), 2.0, "a wait of 1 s")
