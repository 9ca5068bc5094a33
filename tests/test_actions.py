"""What can be done with a run is said with its consequence, and only where it can be done."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nbjobs.actions import actions
from nbjobs.view import RunView

from .entries import Story, midway
from .widgets.faces import views

NOW = 1_795_000_000_000
VIEWS = views(NOW)


def labels(view: RunView) -> list[str]:
    return [action.label for action in actions(view)]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("scheduled", ["Pause", "Cancel"]),
        ("queued", ["Pause", "Cancel"]),
        ("requeued", ["Pause", "Cancel (keeps progress)"]),
        ("starting", ["Pause at the next step", "Cancel (keeps progress)", "Kill now"]),
        ("plain step", ["Pause after this step", "Cancel (keeps progress)", "Kill now"]),
        ("running", ["Pause after this item", "Cancel (keeps progress)", "Kill now"]),
        ("pausing", ["Do not pause", "Cancel (keeps progress)", "Kill now"]),
        ("paused", ["Resume from 12,431", "Restart from step 1", "Cancel (keeps progress)"]),
        (
            "changed",
            ["Accept the change and resume from 12,431", "Restart from step 1", "Cancel (keeps progress)"],
        ),
        ("cancelling", ["Kill now"]),
        ("cancelled", ["Retry from 12,431", "Restart from step 2", "Restart from step 1"]),
        ("failed", ["Retry from 12,431", "Restart from step 2", "Restart from step 1"]),
        ("dead", ["Retry from 12,431", "Restart from step 2", "Restart from step 1"]),
        ("completed", []),
        ("lost", []),
    ],
)
def test_each_state_has_its_actions(state: str, said: list[str]) -> None:
    """The likeliest first, each with what it means; none where nothing can be done."""
    assert labels(VIEWS[state]) == said


def test_only_what_loses_work_asks_and_it_says_what_is_lost() -> None:
    """A kill and a restart; a cancel, a pause and a retry keep everything."""
    asking = {action.label: action.asks for view in VIEWS.values() for action in actions(view) if action.asks}
    assert asking == {
        "Kill now": "Kill now: what is not committed is done again",
        "Restart from step 1": "Restart from step 1: forgets 1 step and 12,431 items",
        "Restart from step 2": "Restart from step 2: forgets 12,431 items",
    }


def test_a_restart_names_its_step() -> None:
    """The first one by the name that is kept, the present one by its own."""
    found = {action.label: action.from_step for action in actions(VIEWS["failed"])}
    assert found == {"Retry from 12,431": "", "Restart from step 2": "load_rows", "Restart from step 1": "prepare"}


def test_a_first_step_that_is_not_kept_is_not_offered() -> None:
    """A view keeps the last 50 steps only."""
    view = replace(VIEWS["failed"], ended_steps=60)
    assert labels(view) == ["Retry from 12,431", "Restart from step 61"]


def test_a_run_without_progress_has_nothing_to_restart() -> None:
    """Neither a place to go on from."""
    view = Story().queued().started().state("job.failed", "failed", reason="exception").view
    assert labels(view) == ["Retry"]


def test_where_there_is_only_a_step_it_is_named() -> None:
    """Without a count the step says where it goes on."""
    story = Story().queued().started().prepared().state("job.interrupt", "paused", reason="paused")
    assert labels(story.view)[0] == "Resume from step 2"


def test_the_numbers_are_those_of_the_declared_steps() -> None:
    """As in the headline."""
    view = replace(midway().failed().view, declared=("fetch", "prepare", "load_rows"))
    assert labels(view)[1] == "Restart from step 3"


def test_a_command_does_the_same_in_a_terminal() -> None:
    """What a step is called is quoted: somebody may paste it into a shell."""
    view = replace(VIEWS["failed"], step="load; rm -rf ~")
    assert actions(view)[1].command == "nbjobs retry --from-step 'load; rm -rf ~' r-failed"
    assert [action.command for action in actions(VIEWS["running"])] == [
        "nbjobs pause r-running", "nbjobs cancel r-running", "nbjobs cancel --now r-running",
    ]  # fmt: skip
