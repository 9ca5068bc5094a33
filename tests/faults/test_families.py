"""Runs that a run enqueues: what another attempt, a retry and a restart of the parent mean for them."""

from __future__ import annotations

from collections import defaultdict

import pytest

from nbjobs.run import Run

from .familyjobs import fail, persistent, single
from .ledger import Ledger
from .stage import Stage


def children(stage: Stage, parent: Run) -> dict[int, list[str]]:
    """Return the ids under which the parent has enqueued each child, in order, without repeats."""
    found: dict[int, list[str]] = defaultdict(list)
    for line in stage.ledger.lines(parent.id, "parent"):
        if line.note not in found[line.item]:
            found[line.item].append(line.note)
    return dict(found)


def times(ledger: Ledger, run: str) -> int:
    """Return how often the body of a child has run."""
    return len(ledger.lines(run, "child"))


@pytest.mark.weather("H11")
def test_a_child_that_failed_is_begun_again_by_the_next_attempt(stage: Stage) -> None:
    """It is the same run, opened again; one that completed keeps its result."""
    stage.worker(children=2)
    fail(stage.path, 2, 2)
    parent = stage.enqueue(persistent, stage.path)
    stage.await_end(parent)
    assert (parent.result(), stage.fields(parent)["attempt"]) == (12, "3")
    (first,), (second,) = children(stage, parent).values()
    assert (times(stage.ledger, first), times(stage.ledger, second)) == (1, 3)
    assert stage.names(Run(second)).count("job.reopened") == 2


@pytest.mark.weather("H11")
def test_a_retry_begins_again_what_failed_and_a_restart_all(stage: Stage) -> None:
    """After retry() the parent meets the run that failed, opened again; after restart() it enqueues others."""
    stage.worker(children=2)
    fail(stage.path, 2, 1)
    parent = stage.enqueue(single, stage.path)
    stage.await_end(parent, "failed")
    parent.retry()
    stage.await_end(parent)
    (first,), (second,) = children(stage, parent).values()
    assert (parent.result(), times(stage.ledger, first), times(stage.ledger, second)) == (12, 1, 2)
    for number in (1, 2):
        fail(stage.path, number, 1)
    other = stage.enqueue(single, stage.path)
    stage.await_end(other, "failed")
    other.retry(from_step="first")
    stage.await_end(other, "failed")
    other.retry()
    stage.await_end(other)
    assert other.result() == 12
    one, two = children(stage, other).values()
    assert len(one) == 2 and len(two) == 1
    assert [times(stage.ledger, run) for run in one] == [1, 1]
    assert times(stage.ledger, two[0]) == 2


@pytest.mark.weather("H11")
@pytest.mark.parametrize("place", ["before_send", "after_send"])
def test_a_parent_that_is_killed_while_it_opens_its_child_again_loses_nothing(stage: Stage, place: str) -> None:
    """Before or after: the next attempt finds the child as it is, and needs no further run of it."""
    stage.worker(children=2, points=[stage.point(f"reopen.{place}")])
    fail(stage.path, 2, 1)
    parent = stage.enqueue(persistent, stage.path)
    stage.await_end(parent)
    (first,), (second,) = children(stage, parent).values()
    assert parent.result() == 12 and stage.fields(parent)["attempt"] == "3"
    assert (times(stage.ledger, first), times(stage.ledger, second)) == (1, 2)


@pytest.mark.weather("H11")
def test_a_restart_begins_all_children_anew(stage: Stage) -> None:
    """Also those that completed: what they returned may be what was wrong."""
    worker = stage.worker(children=2)
    fail(stage.path, 2, 1)
    parent = stage.enqueue(single, stage.path)
    stage.await_end(parent, "failed")
    worker.close()
    for ask, state in ((parent.retry, "queued"), (parent.pause, "paused"), (parent.restart, "queued")):
        assert ask() == state
    stage.worker(children=2)
    stage.await_end(parent)
    ids = children(stage, parent)
    assert [len(found) for found in ids.values()] == [2, 2] and parent.result() == 12
    assert [times(stage.ledger, run) for found in ids.values() for run in found] == [1, 1, 1, 1]
