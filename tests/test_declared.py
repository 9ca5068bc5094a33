"""``@job(steps=[…])``: the names of all steps, told in advance."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from nbjobs.errors import InvalidStepError
from nbjobs.face import face
from nbjobs.jobs import job
from nbjobs.settings import NbJobs, configure
from nbjobs.stepping import step
from nbjobs.testing import interrupt_after_step
from nbjobs.view import dump, parse

from .entries import Story

NAMES = ("prepare", "load_rows", "check", "finalize")


@pytest.fixture
def inline(nbjobs_settings: NbJobs) -> NbJobs:
    """Attempts run in this process."""
    return configure(adapter="inline")


def told(*names: str, **payload: Any) -> Story:
    return Story().state("job.enqueued", "queued", queue="default", steps=list(names), wait=0, **payload)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("load", TypeError, r"@job\(steps='load'\): expected a list of names"),
        (7, TypeError, r"@job\(steps=7\): expected a list of names"),
        (["load", 7], InvalidStepError, "Step '7' must be a str, found 'int'"),
        (["load", ""], InvalidStepError, "Step '' must be a str, and not empty"),
        (["load", "x" * 201], InvalidStepError, "has a name of 201 characters"),
        (["load", "clean", "load"], InvalidStepError, "Step 'load' is declared twice"),
        ([f"step {n}" for n in range(51)], InvalidStepError, "51 steps are declared, in .* at most 50"),
        ([f"{n}" + "ü" * 180 for n in range(20)], InvalidStepError, "at most 50 in 4,096 bytes"),
    ],
)
def test_the_names_are_checked_where_they_are_declared(names: Any, error: type[Exception], message: str) -> None:
    """A list of different names, few enough to be shown."""
    with pytest.raises(error, match=message):
        job(steps=names)


def test_a_step_is_counted_among_those_declared() -> None:
    """It is "Step 2 of 4" where the job declares four; the name's place counts, not how many ended before."""
    story = told(*NAMES).started().loading()
    assert story.view.declared == NAMES
    assert (face(story.view).headline, face(story.view).step_no) == ("Step 2 of 4 · load rows", 2)
    assert face(story.killed().view).headline == "queued · Step 2 of 4 · load rows"
    assert face(story.resumed().view).headline == "Step 2 of 4 · load rows"
    assert parse(dump(story.view)).declared == NAMES


def test_a_step_that_is_not_declared_is_counted_as_ever() -> None:
    """Nothing is said of how many there are, where that is not known."""
    assert face(told("first", "last").started().prepared().loading().view).headline == "Step 2 · load rows"
    assert face(Story().queued().started().loading().view).headline == "Step 1 · load rows"


def test_what_strangers_declare_is_cleaned_and_cut() -> None:
    """Names are texts of one line; a view stays below its limit."""
    assert told("a\nb\x1b[31m", "", "x" * 500).view.declared == ("a b[31m", "x" * 199 + "…")
    assert Story().state("job.enqueued", "queued", steps={"a": 1}).view.declared == ()
    much = told(*[f"{n} " + "語" * 195 for n in range(90)]).view
    assert len(much.declared) == 50
    assert parse(dump(much)).run == "r1"


@job(steps=["prepare", "check"])
def well_declared() -> str:
    step("prepare", str)
    step("check", str)
    return "done"


@job(steps=["check", "prepare"])
def turned_round() -> str:
    step("prepare", str)
    step("check", str)
    step("more", str)
    return "done"


@job(steps=["check"])
def told_too_little() -> str:
    step("prepare", str)
    step("more", str)
    step("check", str)
    return "done"


def test_a_run_tells_its_steps_from_the_start(inline: NbJobs) -> None:
    """They are in the run's first event, so each reader knows them before a step has begun."""
    run = well_declared.enqueue()
    (enqueued,) = [event for event in run.events() if event.name == "job.enqueued"]
    assert enqueued.payload["steps"] == ["prepare", "check"]
    assert run.view.declared == ("prepare", "check")


def test_a_body_that_does_not_keep_to_its_list_runs_on(inline: NbJobs, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once an attempt, in the log, and nothing else happens: also where the run is resumed."""
    with caplog.at_level(logging.WARNING, "nbjobs.steps"):
        assert well_declared.enqueue().result() == "done"
        assert caplog.messages == []
        assert turned_round.enqueue().result() == "done"
        assert caplog.messages == [
            "Step 'check' comes out of the order of those that @job(steps=['check', 'prepare']) declares. "
            "It runs all the same; the card counts by that list."
        ]
        caplog.clear()
        with interrupt_after_step(told_too_little, "more"):
            run = told_too_little.enqueue()
        assert (run.state, run.result(), run.view.attempt) == ("completed", "done", 2)
        assert [message[:52] for message in caplog.messages] == [
            "Step 'prepare' is not one of those that @job(steps=["
        ] * 2
