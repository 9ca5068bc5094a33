"""What holds for every view that events can lead to."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nbjobs.details import Details, details
from nbjobs.face import Face, face
from nbjobs.view import ENDED, STATES, VIEW_LIMIT, dump, empty, fold, overlay, parse

from .entries import Entry, T, told

NAMES = [
    "job.enqueued",
    "job.enqueued_at",
    "job.started",
    "job.resume",
    "job.step_started",
    "job.progress",
    "job.step",
    "job.step_skipped",
    "job.interrupt",
    "job.retry_scheduled",
    "job.retry_stopped",
    "job.discarded",
    "job.pausing",
    "job.cancelling",
    "job.paused",
    "job.unpaused",
    "job.reopened",
    "job.completed",
    "job.failed",
    "job.cancelled",
    "job.dead",
    "import.prepared",
]

anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("x" * 5000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
count = st.one_of(st.integers(0, 30_000), st.none(), anything)
exception = st.fixed_dictionaries({}, optional={"type": anything, "message": anything, "traceback": anything})
payloads = st.fixed_dictionaries(
    {},
    optional={
        "job": st.text(max_size=30) | anything,
        "queue": anything,
        "worker": anything,
        "step": st.sampled_from(["a", "load_rows", ""]) | anything,
        "done": count,
        "total": count,
        "cursor": anything,
        "resumed": st.booleans() | anything,
        "resumptions": st.integers(0, 5) | anything,
        "duration": st.floats(0, 1e6) | anything,
        "interrupted": st.booleans(),
        "exception": st.none() | exception | anything,
        "reason": st.sampled_from(["stopping", "child_died", "changed"]) | anything,
        "signal": anything,
        "after": anything,
        "failures": anything,
        "kept": st.booleans(),
        "note": anything,
        "dropped": anything,
        "newer": anything,
        "op": st.sampled_from(["restart", "accept", "unpause"]),
        "ordinal": st.integers(-2, 5) | anything,
        "cpu_seconds": anything,
        "peak_memory": anything,
        "result_preview": anything,
    },
)
times = st.integers(T, T + 10**7).map(lambda ms: ms * 10**6) | anything
ds = st.builds(lambda p, ts: json.dumps({"p": p, "ts": ts}), payloads, times) | st.just("") | st.text(max_size=10)
entries = st.builds(
    lambda e, d, own: {"e": e, "id": "r1", "d": d, **own},
    st.sampled_from(NAMES),
    ds,
    st.fixed_dictionaries(
        {"a": st.integers(0, 9).map(str)},
        optional={
            "s": st.sampled_from(sorted(STATES)),
            "at": st.integers(0, T + 10**7).map(str),
            "k": st.integers(0, 5).map(str),
        },
    ),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Entry]:
    """Entries in any order; the numbered ones have rising numbers, some with holes."""
    found, n = draw(st.lists(entries, max_size=25)), 0
    for entry in found:
        if "s" in entry:
            n += draw(st.sampled_from([1, 1, 1, 1, 3]))
            entry["n"] = str(n)
    return found


UNKNOWN = re.compile(r"\b(None|nan|inf|null)\b")


@given(histories(), st.integers(0, T + 10**7) | st.none())
@settings(max_examples=100, deadline=None)
def test_a_face_never_fails_and_never_shows_what_is_not_known(history: list[Entry], now: int | None) -> None:
    """Whatever events came: five facts at most, a bar from 0 to 1, and no stand-in for a missing number."""
    seen = face(told(history), now=now)
    words = [
        seen.headline,
        seen.percent,
        seen.aria,
        *(fact.text for fact in seen.facts if fact.kind != "note"),
    ]
    own = json.dumps(history)
    for text in words:
        assert not UNKNOWN.search(text) or UNKNOWN.search(own)
    assert len(seen.facts) <= 5
    if seen.bar is not None and seen.bar.done is not None:
        assert 0 <= seen.bar.earlier <= seen.bar.done <= 1 or seen.state == "completed"
    assert msgspec.json.decode(msgspec.json.encode(seen), type=Face) == seen


@given(histories())
@example(
    [
        {"e": "job.started", "id": "r1", "d": "", "a": "1", "n": "1", "s": "running"},
        {"e": "job.enqueued", "id": "r1", "d": '{"ts": 1790000000000000000}', "a": "1", "n": "2", "s": "cancelled"},
    ]
)
@settings(max_examples=50, deadline=None)
def test_details_never_fail_and_their_times_run_forwards(history: list[Entry]) -> None:
    """Whatever events came: parts of the time line follow each other, only the last one is open."""
    view = told(history)
    made = details(view)
    for part, following in itertools.pairwise(made.timeline):
        assert part.since <= part.until <= following.since
    own = json.dumps(history)
    for text in (made.told, *(one.text for one in made.attempts), *(row.text for row in made.facts)):
        assert not UNKNOWN.search(text) or UNKNOWN.search(own)
    assert msgspec.json.decode(msgspec.json.encode(made), type=Details) == made


@given(histories())
@settings(max_examples=50, deadline=None)
def test_folding_is_deterministic_and_stands_repetition(history: list[Entry]) -> None:
    """Twice the same gives the same, and numbered entries may come again."""
    view = told(history)
    assert told(history) == view
    assert told([entry for entry in history if "n" in entry and int(entry["n"]) <= view.n], view) == view


@given(histories(), histories())
@settings(max_examples=50, deadline=None)
def test_an_end_absorbs(before: list[Entry], after: list[Entry]) -> None:
    """Behind an end no event but `job.reopened` changes the state."""
    view = told(before)
    if view.state in ENDED:
        assert told([entry for entry in after if entry["e"] != "job.reopened"], view).state == view.state


@given(histories())
@settings(max_examples=50, deadline=None)
def test_numbers_never_fall(history: list[Entry]) -> None:
    """`n` and the time of the last news only rise."""
    view = empty("r1")
    for entry in history:
        following = fold(view, entry)
        assert following.n >= view.n and following.updated >= view.updated
        view = following


@given(histories())
@settings(max_examples=50, deadline=None)
def test_a_stored_view_is_read_back_equal(history: list[Entry]) -> None:
    """Within 16 KiB, and folding goes on from it as if it had never been stored."""
    view = told(history)
    text = dump(view)
    assert len(text.encode()) <= VIEW_LIMIT
    if len(view.steps) < 4:
        assert parse(text) == view


fields = st.dictionaries(
    st.sampled_from(
        ["state", "n", "attempt", "at", "step", "done", "total", "steps", "cursor", "job", "error", "queue"]
    ),
    st.none() | st.text(max_size=10) | st.integers(0, 10**6).map(str) | st.sampled_from(sorted(STATES)),
)


@given(histories(), fields)
@settings(max_examples=50, deadline=None)
def test_laying_the_fields_over_twice_is_once(history: list[Entry], given_fields: dict[str, str | None]) -> None:
    """And whatever the hash holds, there is a face."""
    view = overlay(told(history), given_fields)
    assert overlay(view, given_fields) == view
    face(view)
