"""What a test can say of events, and what it is told where they did not come."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from nbjobs import EventReporter, notify, tagged
from nbjobs.assertions import (
    Expected,
    assert_event_reported,
    assert_events_reported,
    assert_no_event_reported,
    capture_events,
)


@dataclass
class SignedUp:
    """An event object."""

    user: int


def report_all() -> None:
    with tagged("nightly", source="crm"):
        notify("import.prepared", total=3, rows={"bad": 1, "good": 2}, note=None)
    notify("import.failed", reason="no number in line 7")
    notify(SignedUp(7))
    notify("import.empty")


def failed(name: Any, payload: Any = None, tags: Any = None) -> bool:
    """Whether the assertion fails on what `report_all` reports."""
    try:
        with assert_event_reported(name, payload, tags):
            report_all()
    except AssertionError:
        return True
    return False


def test_a_block_is_captured_in_its_order() -> None:
    """Each event that is reported in it, and none before or after."""
    notify("before")
    with capture_events() as reported:
        report_all()
    notify("after")
    assert [event.name for event in reported] == ["import.prepared", "import.failed", "SignedUp", "import.empty"]


def test_nested_blocks_both_see_what_is_inside() -> None:
    """The outer one also what comes behind the inner one."""
    with capture_events() as outer:
        with capture_events() as inner:
            notify("a")
        notify("b")
    assert [event.name for event in inner] == ["a"]
    assert [event.name for event in outer] == ["a", "b"]


def test_other_threads_are_not_captured_and_tasks_are() -> None:
    """Neither a thread that runs anyway nor one that the block starts; tasks begin with a copy of the context."""

    async def task() -> None:
        notify("task")

    async def tasks() -> None:
        await asyncio.gather(task(), asyncio.to_thread(notify, "to_thread"))

    with capture_events() as reported:
        thread = threading.Thread(target=notify, args=("thread",))
        thread.start()
        thread.join()
        asyncio.run(tasks())
    assert sorted(event.name for event in reported) == ["task", "to_thread"]


def test_another_reporter_can_be_listened_to() -> None:
    """The default one is not, then."""
    mine = EventReporter()
    with capture_events(reporter=mine) as reported:
        notify("a")
        mine.notify("b")
    assert [event.name for event in reported] == ["b"]
    assert not mine.listens("b")


@pytest.mark.parametrize(
    ("payload", "fits"),
    [
        (None, True),
        ({}, True),
        ({"total": 3}, True),
        ({"total": 4}, False),
        ({"rows": {"bad": 1, "good": 2}}, True),
        ({"rows": {"bad": 1}}, False),
        ({"note": None}, True),
        ({"nowhere": None}, True),
        ({"nowhere": 1}, False),
        ({"total": re.compile("3")}, True),
        ({"total": re.compile("^4")}, False),
        ({"note": re.compile("^$")}, True),
        ({"nowhere": re.compile("^$")}, True),
        ({"total": int}, False),
        ({3: 3}, False),
        (7, False),
    ],
)
def test_a_payload_is_matched_at_its_top_level(payload: Any, fits: bool) -> None:
    """A part of its parameters; patterns are searched for, None is also what is not there, the rest is equal."""
    assert failed("import.prepared", payload) is not fits


@pytest.mark.parametrize(
    ("tags", "fits"),
    [(None, True), ({"source": "crm"}, True), ({"source": re.compile("^c")}, True), ({"nightly": False}, False)],
)
def test_tags_are_matched_in_the_same_way(tags: Any, fits: bool) -> None:
    """Some of them are enough."""
    assert failed("import.prepared", None, tags) is not fits


def test_an_event_object_is_matched_by_class_and_value() -> None:
    """A mapping is no part of an object, and that is no error."""
    assert not failed(SignedUp)
    assert not failed("SignedUp", SignedUp(7))
    assert failed(SignedUp, SignedUp(8))
    assert failed(SignedUp, {"user": 7})


def test_the_first_match_is_kept() -> None:
    """For what else is to be said of it."""
    with assert_event_reported("row") as found:
        notify("row", n=1)
        notify("row", n=2)
    assert found.event.payload == {"n": 1}


def test_a_missing_event_is_told_with_what_came() -> None:
    """Each event has its line, with payload and tags."""
    with (
        pytest.raises(AssertionError) as caught,
        assert_event_reported("import.prepared", {"total": 4}, {"source": "crm"}),
    ):
        report_all()
    told = str(caught.value)
    assert "import.prepared, payload {'total': 4}, tags {'source': 'crm'}" in told
    assert "none of these 4 matches" in told
    assert "  import.failed, payload {'reason': 'no number in line 7'}\n" in told
    assert "tags {'nightly': True, 'source': 'crm'}" in told


def test_no_event_at_all_is_told() -> None:
    """Of one and of several that were expected."""
    with pytest.raises(AssertionError, match="none was reported: a"), assert_event_reported("a"):
        pass
    with pytest.raises(AssertionError, match="none was reported: a"), assert_events_reported(["a", "b"]):
        pass


def test_what_must_not_come_is_told() -> None:
    """With its lines; others may come."""
    with assert_no_event_reported("import.prepared", {"total": 4}), assert_no_event_reported(tags={"x": 1}):
        pass
    with assert_no_event_reported("import.prepared", {"total": 4}):
        report_all()
    with pytest.raises(AssertionError) as caught, assert_no_event_reported("import.prepared", {"total": 3}):
        report_all()
    assert "no import.prepared, payload {'total': 3} was expected, found 1:\n  import.prepared" in str(caught.value)


def test_without_a_name_nothing_may_come() -> None:
    """Whatever payload and tags are given."""
    with (
        pytest.raises(AssertionError, match="no event was expected, found 1:\n  a"),
        assert_no_event_reported(None, {"x": 1}),
    ):
        notify("a")


def test_several_events_come_in_any_order_with_others_between() -> None:
    """Each expectation takes one; none is always met."""
    with assert_events_reported([]), assert_events_reported(["b", ("a", {"x": 1}), Expected("a")]):
        for name in ("a", "other", "b"):
            notify(name, x=1)
        notify("a", x=2)
    with assert_events_reported([]):
        pass


def test_an_event_is_taken_once() -> None:
    """By the first expectation that it fits, so a broad one before a narrow one may take it away."""
    with pytest.raises(AssertionError, match="another expectation has taken it"), assert_events_reported(["a", "a"]):
        notify("a")
    with pytest.raises(AssertionError), assert_events_reported(["a", ("a", {"x": 1})]):
        notify("a", x=1)
        notify("a", x=2)


@pytest.mark.parametrize(
    "assertion", [assert_event_reported("a"), assert_no_event_reported(), assert_events_reported(["a"])]
)
def test_an_error_in_the_block_comes_out_as_it_is(assertion: Any) -> None:
    """It is more than an event that did not come."""
    with pytest.raises(KeyError), assertion:
        notify("b")
        raise KeyError
