"""What an opened card tells: the times, each attempt, the facts, the error, in finished words."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from msgspec.structs import replace

from nbjobs.details import Details, Segment, details
from nbjobs.view import MAX_ATTEMPTS, RunView, dump, empty, fold, parse

from .entries import Story, T, d, midway


def attempts(view: RunView) -> list[tuple[str, str]]:
    return [(one.text, one.duration) for one in details(view).attempts]


def facts(view: RunView) -> dict[str, str]:
    return {row.label: row.text for row in details(view).facts}


# -- the attempts in a view --------------------------------------------------------------------------------------


def test_a_view_keeps_each_attempt() -> None:
    """When it began, where it went on, and how it ended."""
    first, second = midway().view.attempts
    assert (first.no, first.began, first.first, first.ended) == (1, T + 100, T + 200, T + 1500)
    assert (first.reason, first.signal, first.step, first.done) == ("child_died", "SIGKILL", "", None)
    assert (second.no, second.step, second.done, second.cursor, second.ended) == (2, "load_rows", 8000, "8000", 0)


def test_an_attempt_goes_on_where_its_step_says() -> None:
    """Progress is told ten times a second at most; the step's beginning knows better."""
    story = Story().queued().started().loading().progress(7900).killed().resumed(8000)
    assert story.view.attempts[1].done == 8000


@pytest.mark.parametrize(
    ("event", "state", "payload", "reason"),
    [
        ("job.completed", "completed", {}, "completed"),
        ("job.failed", "failed", {"reason": "exception", "exception": {"type": "ValueError"}}, "exception"),
        ("job.cancelled", "cancelled", {}, "cancelled"),
        ("job.retry_scheduled", "retrying", {"exception": {"type": "IOError"}}, "error"),
        ("job.interrupt", "paused", {"reason": "paused"}, "paused"),
        ("job.interrupt", "queued", {"reason": "stopping"}, "stopping"),
    ],
)
def test_an_attempt_ends_when_its_run_is_held_no_longer(event: str, state: str, payload: dict, reason: str) -> None:
    """In whatever way."""
    story = Story().queued().started().loading().progress(5).state(event, state, **payload)
    (attempt,) = story.view.attempts
    assert (attempt.ended, attempt.reason) == (story.ms, reason)


def test_the_last_attempts_are_kept() -> None:
    """Twenty, and they know their numbers."""
    story = Story().queued()
    for _ in range(25):
        story.started().state("job.interrupt", "queued", reason="stopping")
    kept = story.view.attempts
    assert len(kept) == MAX_ATTEMPTS
    assert [one.no for one in kept] == list(range(6, 26))
    assert parse(dump(story.view)) == story.view


def test_attempts_are_cleaned_and_cut() -> None:
    """Whoever stored them."""
    story = Story().queued().state("job.started", "running", worker="w" * 500)
    (attempt,) = story.view.attempts
    assert len(attempt.worker) == 60
    nasty = replace(story.view, attempts=(replace(attempt, worker="\x1b[31m" + "x" * 500, signal="\u202eevil"),))
    (found,) = parse(dump(nasty)).attempts
    assert found.worker.startswith("[31mxxx") and len(found.worker) == 60 and found.signal == "evil"


# -- the time line -----------------------------------------------------------------------------------------------


def test_the_time_line_has_what_the_run_waited_for() -> None:
    """Waiting, on the way to a step, running, the gap with its reason; the last part goes on."""
    view = midway().view
    told = [(part.kind, part.text) for part in details(view).timeline]
    assert told == [
        ("waiting", "waiting for a worker"),
        ("starting", "attempt 1, before its first step"),
        ("running", "attempt 1"),
        ("gap", "interrupted: its process died (SIGKILL)"),
        ("starting", "attempt 2, before its first step"),
        ("running", "attempt 2"),
    ]


def test_its_parts_follow_each_other() -> None:
    """Each begins where the one before it ends; only the last one has no end, and that of a run that ended has."""
    for view in (Story().queued().view, midway().view, midway().killed().view, midway().failed().view):
        parts = details(view).timeline
        for part, following in itertools.pairwise(parts):
            assert part.until == following.since
        assert bool(parts[-1].until) == (view.state == "failed")


def test_a_pause_is_a_gap_that_says_so() -> None:
    """It goes on until somebody ends it."""
    view = midway().state("job.interrupt", "paused", reason="paused").view
    assert details(view).timeline[-1] == Segment("gap", "paused", view.updated)


def test_what_is_no_longer_known_is_not_called_waiting() -> None:
    """Where the first attempts were dropped from the list."""
    story = Story().queued()
    for _ in range(22):
        story.started().state("job.interrupt", "queued", reason="stopping")
    first = details(story.view).timeline[0]
    assert (first.kind, first.text) == ("gap", "earlier attempts, no longer known one by one")
    assert "Queued for" not in facts(replace(story.view, started=0))


def test_the_time_line_is_told_in_words() -> None:
    """For who does not see it."""
    story = Story().queued().started().loading().progress(5).killed()
    assert details(story.view).told == (
        "waiting for a worker 100 ms, attempt 1, before its first step 100 ms, attempt 1 600 ms, "
        "interrupted: its process died (SIGKILL), under way"
    )


# -- attempts and facts ------------------------------------------------------------------------------------------


def test_an_attempt_says_where_it_resumed_and_after_what() -> None:
    """As the issue of a resumption is read: where, and why."""
    (first, took), (second, running) = attempts(midway().view)
    assert (first, took) == ("Attempt 1, worker w-1", "1.4 s")
    assert (second, running) == (
        "Attempt 2, resumed at load rows, cursor 8,000, worker w-1, after: its process died (SIGKILL)", "",
    )  # fmt: skip
    assert details(midway().view).attempts[1].since == T + 1600


def test_the_last_attempt_says_why_it_ended() -> None:
    """Where nothing has come after it."""
    assert attempts(midway().killed().view)[1][0].endswith("ended: its process died (SIGKILL)")


def test_what_the_owner_asked_for_is_no_interruption() -> None:
    """A pause, and a cancel behind which the run was opened again, are told as such."""
    story = midway().state("job.interrupt", "paused", reason="pause").state("job.unpaused", "queued")
    view = story.started(2).loading(12_431).view
    assert attempts(view)[2][0] == "Attempt 3, resumed at load rows, cursor 12,431, worker w-1, after: it was paused"
    assert [part.text for part in details(view).timeline if part.kind == "gap"][1] == "paused"


def test_facts_are_times_costs_and_place() -> None:
    """Those that are known, and no others."""
    story = Story().queued().started().loading().progress(5).loaded()
    assert facts(story.view) == {"Queued for": "100 ms", "Running for": "", "Queue": "default", "Worker": "w-1"}
    done = story.completed(cpu_seconds=12.25, peak_memory=123_456_789, result_preview="20000")
    assert facts(done.view) == {
        "Queued for": "100 ms", "Ran for": "1.3 s", "CPU time": "12 s", "Peak memory": "118 MB", "Queue": "default",
    }  # fmt: skip
    assert details(done.view).result == "20000"


def test_running_counts_all_attempts() -> None:
    """Those that are over, and the present one since it began."""
    (row,) = (row for row in details(midway().view).facts if row.label == "Running for")
    assert (row.before, row.since) == (1400, T + 1600)


def test_a_cursor_that_is_no_count_is_a_fact() -> None:
    """One that is the count is told by the count."""
    assert "Cursor" not in facts(midway().view)
    entry = {"e": "job.progress", "d": d({"step": "load_rows", "cursor": "2026-11-24", "done": 12_500}), "id": "r1"}
    assert facts(fold(midway().view, entry))["Cursor"] == '"2026-11-24"'


# -- errors ------------------------------------------------------------------------------------------------------

TRACEBACK = """Traceback (most recent call last):
  File "/home/ada/orders.py", line 12, in load
    check(row)
  File "/tmp/ipykernel_4711/1234.py", line 7, in check
    return parse(row)
           ^^^^^^^^^^
  File "/usr/lib/python3.11/csv.py", line 99, in parse
    raise ValueError("no date")
ValueError: no date
"""


def failed(traceback: str) -> RunView:
    error = {"type": "ValueError", "message": "no date", "traceback": traceback}
    return Story().queued().started().state("job.failed", "failed", reason="exception", exception=error).view


def test_an_error_shows_the_users_own_frame_first() -> None:
    """The last one that is neither a library's nor Python's; the whole traceback is there to copy."""
    error = details(failed(TRACEBACK)).error
    assert error is not None
    assert (error.text, error.place, error.code) == (
        "ValueError: no date", "check, line 7 of a cell", "return parse(row)",
    )  # fmt: skip
    assert error.traceback == TRACEBACK.rstrip()


@pytest.mark.parametrize("traceback", ["", "no traceback at all", 'File "x", line 1, in', "\n" * 3000])
def test_an_error_without_a_frame_has_its_message(traceback: str) -> None:
    """Whatever came as a traceback."""
    error = details(failed(traceback)).error
    assert error is not None
    assert (error.text, error.place, error.code) == ("ValueError: no date", "", "")


def test_a_run_that_waits_for_its_next_attempt_shows_the_last_error() -> None:
    """And one that went on shows none."""
    told = {"exception": {"type": "IOError", "message": "no answer", "traceback": TRACEBACK}}
    story = midway().state("job.retry_scheduled", "retrying", at=T + 10**6, **told)
    error = details(story.view).error
    assert error is not None and error.text == "IOError: no answer"
    assert details(story.started(2).view).error is None


def test_details_of_nothing_are_empty() -> None:
    """And whatever they are, they can be sent."""
    nothing = details(empty("r1"))
    assert (nothing.timeline, nothing.attempts, nothing.facts, nothing.error) == ((), (), (), None)
    for view in (midway().view, midway().failed().view):
        assert msgspec.convert(msgspec.to_builtins(details(view)), Details) == details(view)
