"""A run's events become one view, and the view finished words."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

import nbjobs.widgets
from nbjobs.errors import BadData
from nbjobs.face import Face, face, schema
from nbjobs.view import VIEW_LIMIT, RunView, StepView, dump, empty, fold, lost, overlay, parse

from .entries import Story, T, d, midway, told


def facts(view: RunView, now: int | None = None) -> list[str]:
    return [fact.text for fact in face(view, now=now).facts]


def looks(view: RunView) -> tuple[str, str]:
    seen = face(view)
    return seen.icon, seen.headline


# -- folding -------------------------------------------------------------------------------------------


def test_each_state_has_its_icon_and_headline() -> None:
    """Queued, running, in a step, interrupted, resuming, resumed and done look different."""
    story = Story().queued()
    seen = [looks(story.view), looks(story.started().view), looks(story.loading().view)]
    seen += [
        looks(story.progress(8000).killed().view),
        looks(story.started(1).view),
        looks(story.loading(8000).view),
    ]
    seen += [looks(story.loaded().completed().view)]
    assert seen == [
        ("○", "queued"),
        ("◐", "running"),
        ("◐", "Step 1 · load rows"),
        ("○", "queued · Step 1 · load rows"),
        ("◐", "resuming step 1 · load rows"),
        ("◐", "Step 1 · load rows"),
        ("✓", "done"),
    ]


def test_a_resumed_run_shows_what_the_picture_promises() -> None:
    """Step in words, percent, count, rate, time left, and where it was resumed."""
    seen = face(midway().view)
    assert (seen.headline, seen.percent, seen.step, seen.step_no) == (
        "Step 2 · load rows",
        "62 %",
        "load_rows",
        2,
    )
    assert [fact.text for fact in seen.facts] == [
        "12,431 of 20,000", "212/s", "about 35 s left", "resumed once at 8,000",
    ]  # fmt: skip
    assert seen.bar is not None
    assert (round(seen.bar.done or 0, 3), seen.bar.earlier, seen.bar.notch) == (0.622, 0.4, 0.4)
    assert seen.aria == "Step 2, load rows, 62 percent, about 35 seconds left"
    assert seen.marks == ("resumed",)


def test_the_resumption_stays_to_the_end() -> None:
    """A run that is done still says where it was resumed, in words and in the bar."""
    view = midway().loaded().completed(result_preview="20000").view
    seen = face(view)
    assert "resumed once at 8,000" in facts(view)
    assert seen.bar is not None and (seen.bar.done, seen.bar.notch) == (1.0, 0.4)
    assert facts(view)[0] == "20,000 of 20,000"
    assert facts(view)[-1] == "result 20000"


def test_the_count_at_the_resumption_is_the_committed_one() -> None:
    """Progress is told ten times a second at most, so the step's start says how far it really was."""
    story = Story().queued().started().loading().progress(7900).killed().resumed(8000)
    assert face(story.view).facts[-1].text == "resumed once at 8,000"
    assert story.view.earlier == 8000


def test_a_second_resumption_names_the_last_place() -> None:
    """Resumed twice: the count and the last place."""
    story = midway().killed().started(2).loading(12_431)
    assert "resumed twice, last at 12,431" in facts(story.view)


def test_the_rate_is_unknown_right_after_a_resumption() -> None:
    """Until this attempt has samples over a second; the time left goes by the pace of the attempt before."""
    story = Story().queued().started().loading().progress(*range(1000, 9000, 1000)).killed().resumed()
    assert facts(story.view) == ["8,000 of 20,000", "about 6 s left", "resumed once at 8,000"]
    story.progress(8100, every=300)
    assert facts(story.view) == ["8,100 of 20,000", "about 6 s left", "resumed once at 8,000"]


def test_the_time_left_is_calm_after_a_resumption() -> None:
    """The pace of before gives way to that of now over ten seconds, and does not leap."""
    story = Story().queued().started().loading().progress(*range(100, 2001, 100)).killed().resumed(2000)
    told = []
    for _ in range(20):
        story.progress(story.view.done + 50)
        told.append(next(fact.text for fact in face(story.view).facts if fact.kind == "remaining"))
    seconds = [float(text.split()[1]) * (60 if "min" in text else 1) for text in told]
    assert (seconds[0], seconds[-1]) == (90, 180)  # 200 items a second before, 100 now
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("story", [Story().queued().started().loading().progress(*range(100, 2001, 100))])
def test_another_step_has_another_pace(story: Story) -> None:
    """Nothing of the step before is taken over to one that begins anew."""
    story.loaded().started().state("job.step_started", "running", step="other", total=10, resumed=False)
    assert story.view.pace is None
    assert "left" not in " ".join(facts(story.view))


def test_the_rate_is_smoothed() -> None:
    """One slow second among many hardly moves the rate."""
    story = Story().queued().started().loading().progress(*range(100, 2001, 100))
    before = face(story.view).facts[1].text
    story.progress(2010)
    assert (before, face(story.view).facts[1].text) == ("200/s", "191/s")


def test_an_unknown_total_gives_neither_percent_nor_time_left() -> None:
    """Count, rate and the running clock are left; the bar is indeterminate."""
    story = Story().queued().started().loading(total=None).progress(*range(100, 1000, 100), total=None)
    seen = face(story.view)
    assert seen.percent == "" and seen.bar is not None and seen.bar.done is None
    assert [fact.kind for fact in seen.facts] == ["count", "rate"]
    assert seen.clock is not None and seen.clock.prefix == "running for "


def test_a_total_that_was_overtaken_is_no_total() -> None:
    """Never a percent above 100."""
    story = Story().queued().started().loading(total=10).progress(11, total=10)
    assert face(story.view).percent == "" and facts(story.view)[0] == "11"


def test_percent_is_not_100_before_the_end() -> None:
    """It is rounded down."""
    assert face(Story().queued().started().loading().progress(19_999).view).percent == "99 %"


def test_a_repeated_state_event_changes_nothing() -> None:
    """Row 31: a numbered entry that was folded is ignored."""
    story = midway()
    assert told([entry for entry in story.entries if "n" in entry], story.view) == story.view


def test_an_end_state_is_left_by_reopening_only() -> None:
    """What comes behind an end is ignored, `job.reopened` apart."""
    story = midway().loaded().completed()
    ended = story.view
    assert story.started().view == ended
    reopened = told(
        [
            {
                "e": "job.reopened",
                "id": "r1",
                "a": "2",
                "d": d({}),
                "n": "99",
                "s": "queued",
                "at": "0",
                "k": "0",
            }
        ],
        ended,
    )
    assert reopened.state == "queued" and reopened.ended == 0


def test_the_closing_event_behind_a_lapse_is_folded() -> None:
    """`lapse` writes the interrupt with the end state already; the event that follows still counts."""
    story = Story().queued().started().state("job.interrupt", "dead", k=4, reason="child_died", signal="SIGSEGV")
    view = story.bare("job.dead", "dead", k=4).view
    assert (view.state, view.n) == ("dead", 4)
    assert face(view).error == "crashed 4 times without progress"
    assert facts(view)[-1] == "after: its process died (SIGSEGV)"


def test_an_entry_without_payload_suffices() -> None:
    """State, number, time of the next attempt and crashes stand in the entry itself."""
    story = Story().queued().started().loading().progress(5).killed()
    view = story.bare("job.retry_scheduled", "retrying", at=T + 60_000, k=2).view
    assert (view.state, view.at, view.crashes, view.updated) == ("retrying", T + 60_000, 2, T + 800)
    assert face(view).clock == msgspec.convert(
        {"since": T + 60_000, "prefix": "next attempt in "}, type(face(view).clock)
    )


def test_a_body_cannot_pass_its_events_for_states() -> None:
    """Only the scripts number entries; an own event named like the framework's changes nothing shown."""
    story = Story().queued().started().loading().progress(5)
    before = face(story.view)
    assert face(story.own("job.completed", result_preview="all fine", dropped=9).view) == before


def test_a_failure_shows_the_last_line_of_its_exception() -> None:
    """Type and message, the step it happened in, and no clock."""
    view = Story().queued().started().prepared().loading().progress(8000).failed().view
    seen = face(view)
    assert (seen.error, seen.headline) == ("ValueError: row 7: no date", "failed in step 2 · load rows")
    assert seen.clock is None and seen.ended
    assert view.traceback.splitlines()[-1] == "ValueError: row 7: no date"
    assert [step.state for step in seen.steps] == ["done", "failed"]


def test_a_new_attempt_has_no_error_yet() -> None:
    """The error of the last attempt goes with it."""
    error = {"type": "IOError", "message": "away"}
    story = (
        Story().queued().started().state("job.retry_scheduled", "retrying", at=T + 9000, failures=1, exception=error)
    )
    assert face(story.view).error == "IOError: away"
    assert face(story.started().view).error == ""
    assert "attempt 2" in facts(story.view)


def test_a_changed_job_pauses_with_a_mark() -> None:
    """Code or data that no longer fit are a mark, until somebody accepts or restarts."""
    story = midway().state("job.interrupt", "paused", reason="changed", description="steps differ")
    assert "changed" in face(story.view).marks
    assert "code or data changed: accept or restart" in facts(story.view)
    restarted = story.state("job.unpaused", "queued", op="restart").view
    assert restarted.marks == () and restarted.done is None and restarted.ended_steps == 0


def test_reopening_from_a_step_forgets_the_later_ones() -> None:
    """The steps before it stay."""
    story = Story().queued().started().prepared().loading().progress(5).failed()
    story.state("job.reopened", "queued", from_step="load_rows", ordinal=2)
    assert [step.name for step in story.view.steps] == ["prepare"]
    assert (story.view.ended_steps, story.view.step) == (1, "")


def test_a_value_that_was_not_kept_is_said() -> None:
    """The run shall not surprise at a resumption."""
    story = Story().queued().started().state("job.step_started", "running", step="a")
    view = story.state("job.step", "running", step="a", kept=False, note="90 KB, 64 at most").view
    assert face(view).marks == ("not-kept",) and face(view).steps[0].note == "90 KB, 64 at most"


def test_a_step_left_early_says_how_far_it_came() -> None:
    """It is done, with less than its total."""
    story = Story().queued().started().loading(total=10).progress(4, total=10)
    view = story.state("job.step", "running", step="load_rows", done=4, total=10, duration=2500.4).view
    assert (face(view).steps[0].note, face(view).steps[0].duration) == ("4 of 10", "2.5 s")


def test_pausing_and_cancelling_are_states_of_their_own() -> None:
    """They show until the body has stopped."""
    story = midway().state("job.pausing", "pausing", by="ada", op="pause")
    assert looks(story.view) == ("‖", "pausing… · Step 2 · load rows")
    assert looks(story.state("job.unpaused", "running", op="unpause").view) == ("◐", "Step 2 · load rows")
    assert looks(story.state("job.cancelling", "cancelling").view) == (
        "⊘",
        "cancelling… · Step 2 · load rows",
    )
    assert looks(story.bare("job.cancelled", "cancelled").view) == ("⊘", "cancelled · Step 2 · load rows")


@pytest.mark.weather("A5")
def test_a_cancel_says_when_it_is_carried_out_at_the_latest() -> None:
    """Its worker gives the body so much time to reach a checkpoint; a cancel at once, or an old worker, none."""

    def told(view: RunView, after: int) -> list[str]:
        return [fact.text for fact in face(view, now=view.since + after).facts if fact.kind == "wait"]

    def cancelled(op: str, **started: object) -> RunView:
        story = Story().queued().state("job.started", "running", worker="w-1", **started).loading()
        return story.state("job.cancelling", "cancelling", op=op).view

    assert told(cancelled("cancel", grace=25_000), 1000) == ["at the latest in 24 s"]
    assert told(cancelled("cancel", grace=25_000), 30_000) == []
    assert told(cancelled("now", grace=25_000), 1000) == ["for 1 s"]
    assert told(cancelled("cancel"), 1000) == ["for 1 s"]


@pytest.mark.weather("H4")
def test_a_run_that_gets_no_further_says_why_it_is_paused() -> None:
    """In words; when it goes on, the reason is over."""
    story = Story().queued().started().loading().state("job.interrupt", "paused", reason="stopping")
    story.state("job.paused", "paused", reason="no_progress")
    assert looks(story.view)[0] == "‖"
    assert "after: 10 attempts in a row ended without progress" in facts(story.view)
    assert "after" not in " ".join(facts(story.state("job.unpaused", "queued", op="unpause").view))


def test_waiting_runs_show_all_they_have_as_earlier() -> None:
    """Between two attempts the whole progress is of earlier ones, and the notch is where it goes on."""
    bar = face(Story().queued().started().loading().progress(5000).killed().view).bar
    assert bar is not None and (bar.done, bar.earlier, bar.notch) == (0.25, 0.25, 0.25)


# -- time ----------------------------------------------------------------------------------------------


def test_stuck_is_three_usual_gaps_of_silence_and_ten_seconds_at_least() -> None:
    """Told in advance as a threshold; not before five commits are known."""
    story = Story().queued().started().loading().progress(1, 2, 3, 4)
    assert face(story.view).thresholds == ()
    story.progress(5)
    assert [(t.mark, t.at - story.ms) for t in face(story.view).thresholds] == [
        ("stale", 3000),
        ("stuck", 10_000),
    ]
    story.progress(*range(6, 30), every=8000)
    assert [(t.mark, t.at - story.ms) for t in face(story.view).thresholds] == [("stuck", 24_000)]


def test_a_surface_without_a_clock_gets_time_applied() -> None:
    """With `now`, thresholds and clock are in the words already."""
    story = Story().queued().started().loading().progress(1, 2, 3, 4, 5)
    seen = face(story.view, now=story.ms + 12_000)
    assert seen.headline == "stuck? Step 1 · load rows" and "stuck" in seen.marks
    assert [fact.text for fact in seen.facts][:2] == ["5 of 20,000", "no progress for 12 s"]
    assert (seen.clock, seen.thresholds) == (None, ())
    assert facts(Story().queued().view, now=T + 42_900) == ["queued for 42 s"]


def test_a_scheduled_run_counts_down_and_is_queued_when_its_time_has_come() -> None:
    """Nothing is written when the time comes; the words are ready."""
    story = Story().state("job.enqueued_at", "scheduled", at=T + 90_000, wait=0)
    assert facts(story.view, now=T + 500) == ["starts in 1 min 30 s"]
    late = face(story.view, now=T + 90_000)
    assert (late.icon, late.headline, late.facts) == ("○", "queued", ())


def test_data_that_is_old_says_so_before_it_is_called_stuck() -> None:
    """After three usual intervals the age ticks; rate and time left, which may be untrue, are gone."""
    story = Story().queued().started().loading().progress(*range(100, 2001, 100))
    seen = face(story.view, now=story.ms + 4000)
    assert (seen.headline, seen.marks) == ("Step 1 · load rows", ("stale",))
    assert [fact.text for fact in seen.facts] == ["2,000 of 20,000", "no news for 4 s"]


def test_a_redis_out_of_reach_is_said() -> None:
    """What was known is shown as such: without what ticks, and never as stuck. It is a reader's own word."""
    story = Story().queued().started().loading().progress(*range(100, 2001, 100))
    view = msgspec.structs.replace(story.view, away=T)
    seen = face(view)
    since = f"{datetime.fromtimestamp(T / 1000):%H:%M}"
    assert [fact.text for fact in seen.facts] == [
        f"Redis out of reach: shown as of {since}", "2,000 of 20,000",
    ]  # fmt: skip
    assert (seen.clock, seen.thresholds, seen.marks) == (None, (), ("away",))
    assert parse(dump(view)).away == 0


def test_a_missing_worker_is_said() -> None:
    """Only a reader knows it, so it is a field of the view."""
    view = msgspec.structs.replace(Story().queued().view, no_worker=True, queue="gpu")
    seen = face(view)
    assert seen.headline == "waiting for a worker: none alive on queue gpu" and seen.marks == ("no-worker",)
    assert told(Story().queued().started().entries, view).no_worker is False
    assert parse(dump(view)).no_worker is False


# -- the hash over the view ----------------------------------------------------------------------------


FIELDS = {
    "state": "running", "control": "", "n": "9", "attempt": "2", "at": "0", "crashes": "1", "failures": "0",
    "resumptions": "1", "steps": "1", "step": "load_rows", "cursor": '{"v":9000,"f":"ab"}', "done": "9000",
    "total": "20000", "job": "shop.import_orders", "queue": "default",
}  # fmt: skip


def test_the_fields_of_the_hash_are_the_truth() -> None:
    """They win over what was folded, and what they have not stays."""
    view = overlay(midway().view, FIELDS)
    assert (view.done, view.cursor, view.n, view.resumed_at) == (9000, "9000", 9, 8000)


def test_the_fields_alone_make_a_view() -> None:
    """A run whose events are all trimmed is shown all the same."""
    seen = face(overlay(empty("r1"), FIELDS))
    assert (seen.name, seen.headline, seen.percent) == ("import_orders", "Step 2 · load rows", "45 %")


def test_fields_that_are_missing_or_broken_change_nothing() -> None:
    """A hash of another version, or one that somebody wrote into."""
    view = midway().view
    assert overlay(view, {"n": "x", "state": "flying", "done": None, "attempt": "-1"}) == view
    assert overlay(view, {**FIELDS, "cursor": '["v"]'}).cursor == ""


def test_a_lost_run_says_so() -> None:
    """The state that readers give what Redis no longer has."""
    seen = face(lost(midway().view))
    assert (seen.state, seen.ended, seen.icon) == ("lost", True, "?")


# -- stored and shown ----------------------------------------------------------------------------------


def test_a_dump_is_read_back_equal() -> None:
    """Also as small as the commit wants it."""
    view = midway().view
    assert parse(dump(view)) == view and len(dump(view)) < 1500


def test_a_dump_has_16_kib_at_most() -> None:
    """However long the names are; the oldest steps give way."""
    name = "\N{GRINNING FACE}" * 200
    steps = tuple(StepView(name=name, note=name, done=i) for i in range(50))
    fat = RunView(
        run="r1",
        job=name,
        step=name,
        cursor=name,
        steps=steps,
        error_message=name,
        traceback=name * 10,
        result='"' * 200,
    )
    text = dump(fat)
    assert len(text.encode()) <= VIEW_LIMIT and parse(text).steps[-1].done == 49


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"run": 1}',
        '{"run": "r", "n": -1}',
        '{"run": "r", "state": "x"}',
        "[" * 100_000,
        '{"run":"r","cpu":1e999}',
    ],
)
def test_a_text_that_is_no_view_is_bad_data(text: str) -> None:
    """Its reader goes on without it."""
    with pytest.raises(BadData):
        parse(text)


def test_hostile_text_is_cleaned_on_the_way_in() -> None:
    """Control and bidi characters never reach a surface, long text is cut."""
    nasty = "a\x1b[31m\u202eb\nc\ud800" + "x" * 1000
    story = Story().state("job.enqueued", "queued", job=nasty, queue=nasty).started()
    story.state("job.step_started", "running", step=nasty, total=3)
    view = story.state("job.failed", "failed", exception={"type": nasty, "message": nasty, "traceback": nasty}).view
    stored = parse(dump(msgspec.structs.replace(view, job=nasty.replace("\ud800", ""))))
    for seen in (face(view), face(stored)):
        shown = msgspec.json.encode(seen).decode()
        assert "\\u001b" not in shown and "\u202e" not in shown and len(shown) < 6000


@pytest.mark.parametrize(
    "broken",
    [
        "x",
        "[1]",
        '{"p": 3}',
        '{"p": {"done": 1e400}}',
        "[" * 50_000,
        '{"p": {"step": {"a": 1}}, "ts": "now"}',
    ],
)
def test_a_payload_that_cannot_be_read_is_none(broken: str) -> None:
    """The entry's own fields still count."""
    view = fold(
        empty("r1"),
        {"e": "job.step_started", "d": broken, "n": "1", "s": "running", "a": "1", "at": "0", "k": "0"},
    )
    assert (view.state, view.n, view.attempt) == ("running", 1, 1)


def test_the_checked_in_schema_is_that_of_the_face() -> None:
    """The browser's side is written against that file."""
    path = Path(nbjobs.widgets.__file__).with_name("face.schema.json")
    assert json.loads(path.read_text()) == schema()
    msgspec.convert(msgspec.to_builtins(face(midway().view)), Face)
