from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import logging
import math
import pickle
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbjobs import events
from nbjobs.events import (
    Event,
    EventReporter,
    check_tags,
    clear_context,
    decode,
    encode,
    get_context,
    isolated_context,
    set_context,
    tagged,
    with_debug,
)

from .test_codec import DATA
from .test_plain import Hostile


@pytest.fixture(autouse=True)
def isolated() -> Iterator[None]:
    """A test sees no context of others."""
    with isolated_context():
        yield


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    @property
    def last(self) -> Event:
        return self.events[-1]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def reporter(recorder: Recorder) -> EventReporter:
    return EventReporter(recorder)


def failing(event: Event) -> None:
    raise KeyError(event.name)


# --- The event ---------------------------------------------------------------------------------------------


def test_an_event_says_what_when_where(reporter: EventReporter, recorder: Recorder) -> None:
    """Name, payload, tags, context, time in ns and the line that notified."""
    set_context(user_id="ada")
    before = time.time_ns()
    with tagged("nightly"):
        reporter.notify("import.prepared", total=3)
    line = sys._getframe().f_lineno - 1
    event = recorder.last
    assert (event.name, event.payload) == ("import.prepared", {"total": 3})
    assert (event.tags, event.context) == ({"nightly": True}, {"user_id": "ada"})
    assert before <= event.timestamp <= time.time_ns()
    assert event.source_location is not None
    assert (event.source_location["filepath"], event.source_location["lineno"]) == (__file__, line)
    assert event.source_location["label"] == "test_an_event_says_what_when_where"
    assert (event.id, event.n) == (None, None)


def test_an_event_is_frozen(reporter: EventReporter, recorder: Recorder) -> None:
    """No subscriber can change what the next one gets: fields, tags and context cannot be set."""
    reporter.notify("a.b", x=1)
    event = recorder.last
    assert type(event) is Event
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.name = "c"  # type: ignore[misc]
    with pytest.raises(TypeError):
        event.tags["x"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        event.context["x"] = 1  # type: ignore[index]
    same = Event("a.b", {"x": 1}, {}, {}, event.timestamp, event.source_location)
    assert event == same
    assert dataclasses.replace(event, n=3).n == 3


def test_no_payload_is_an_empty_one(reporter: EventReporter, recorder: Recorder) -> None:
    """An event without parameters has `{}`."""
    reporter.notify("a.b")
    assert recorder.last.payload == {}


def test_a_mapping_is_a_payload_and_is_copied(reporter: EventReporter, recorder: Recorder) -> None:
    """A mapping in place of keywords may have any keys, and stays the caller's."""
    given = {"stacklevel": 1, "name": 2, 3: 4}
    reporter.notify("a.b", given)
    given["later"] = 5
    assert recorder.last.payload == {"stacklevel": 1, "name": 2, "3": 4}


def test_name_and_payload_are_free_as_keywords(reporter: EventReporter, recorder: Recorder) -> None:
    """Only `stacklevel` is reserved."""
    reporter.notify("a.b", name=1, payload={"x": 2}, self=3)
    assert recorder.last.payload == {"name": 1, "payload": {"x": 2}, "self": 3}


def test_stacklevel_points_at_the_caller_of_a_helper(reporter: EventReporter, recorder: Recorder) -> None:
    """As in `logging`: 1 is the line of `notify`, 2 that of the function around it; too deep is none."""

    def helper(level: int) -> None:
        reporter.notify("a.b", stacklevel=level)

    labels = []
    for level in (1, 2, 10_000):
        helper(level)
        labels.append((recorder.last.source_location or {}).get("label"))
    assert labels[0] in ("helper", f"{labels[1]}.<locals>.helper")
    assert labels[1:] == ["test_stacklevel_points_at_the_caller_of_a_helper", None]


def test_an_object_can_be_the_event(reporter: EventReporter, recorder: Recorder) -> None:
    """An object in place of a name is the payload, untouched; its class is the name."""

    @dataclasses.dataclass
    class Signup:
        password: str

    signup = Signup("x")
    reporter.notify(signup)
    assert recorder.last.name == "Signup"
    assert recorder.last.payload is signup


def test_a_member_of_an_enumeration_of_names_is_a_name(reporter: EventReporter, recorder: Recorder) -> None:
    """A subclass of str is a name, not an object."""

    class Names(str, enum.Enum):
        PREPARED = "import.prepared"

    reporter.notify(Names.PREPARED, total=3)
    reporter.notify(Names.PREPARED, {"total": 4})
    assert recorder.names == ["import.prepared"] * 2
    assert [type(event.name) for event in recorder.events] == [str, str]
    assert [event.payload for event in recorder.events] == [{"total": 3}, {"total": 4}]


@pytest.mark.parametrize(("given", "name"), [(None, "NoneType"), (7, "int"), (Event, "type"), ([1], "list")])
def test_any_object_is_named_by_its_class(reporter: EventReporter, recorder: Recorder, given: Any, name: str) -> None:
    """Also None and a class itself; `notify` returns None."""
    notified: object = reporter.notify(given)  # type: ignore[func-returns-value]
    assert notified is None
    assert (recorder.last.name, recorder.last.payload) == (name, given)


def test_only_the_top_level_of_a_payload_is_copied(reporter: EventReporter, recorder: Recorder) -> None:
    """What is nested is the caller's own object, with its keys as they are."""
    rows = {1: "a"}
    reporter.notify("a.b", {2: rows})
    assert recorder.last.payload["2"] is rows


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_name_that_cannot_be_is_refused_where_it_is_used(name: str) -> None:
    """The caller learns of it, also when nobody listens."""
    with pytest.raises(ValueError, match="expected 1 to 200"):
        EventReporter().notify(name)


# --- Wrong arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "keywords", "payload"),
    [
        (("a.b", {"x": 1}), {"y": 2}, {"y": 2}),
        (("a.b", {}), {"y": 2}, {"y": 2}),
        (("a.b", "text"), {}, {}),
        (("a.b", [1]), {"y": 2}, {"y": 2}),
        ((7, {"x": 1}), {}, 7),
        ((7,), {"y": 1}, 7),
    ],
)
def test_a_payload_is_given_in_one_way(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, args: Any, keywords: Any, payload: Any
) -> None:
    """Two payloads are a TypeError with raise_on_error; else a warning, and keywords (or the object) win."""
    with pytest.raises(TypeError, match="pass one of them"):
        EventReporter(recorder, raise_on_error=True).notify(*args, **keywords)
    assert recorder.events == []
    EventReporter(recorder).notify(*args, **keywords)
    assert recorder.last.payload == payload
    assert "pass one of them" in caplog.text


def test_arguments_are_not_looked_at_where_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    """Neither raised nor logged: an event that nobody wants costs nothing."""
    EventReporter(raise_on_error=True).notify("a.b", {"x": 1}, y=2)
    EventReporter().notify("a.b", {"x": 1}, y=2)
    assert caplog.records == []


# --- Subscribers -------------------------------------------------------------------------------------------


def test_subscribers_get_events_in_their_order() -> None:
    """First subscribed, first served; subscribed twice, served twice."""
    seen: list[str] = []

    def second(event: Event) -> None:
        seen.append("second")

    reporter = EventReporter(lambda event: seen.append("first"))
    reporter.subscribe(second)
    reporter.subscribe(second)
    reporter.notify("a.b")
    assert seen == ["first", "second", "second"]


def test_subscribe_decorates_a_function(reporter: EventReporter) -> None:
    """`subscribe` returns the subscriber."""

    @reporter.subscribe
    def mine(event: Event) -> None:
        pass

    assert mine.__name__ == "mine"
    assert reporter.listens("a.b")


def test_a_class_can_be_a_subscriber() -> None:
    """One with an `emit` of its own; it is unsubscribed as itself."""
    names: list[str] = []

    class Sink:
        @classmethod
        def emit(cls, event: Event) -> None:
            names.append(event.name)

    reporter = EventReporter(Sink)
    reporter.notify("a")
    reporter.unsubscribe(Sink)
    reporter.notify("b")
    assert names == ["a"]


def test_all_subscribers_get_the_same_event_in_the_callers_thread(recorder: Recorder) -> None:
    """One object with one time; what the first changes in the payload, the second sees."""
    threads = []

    def change(event: Event) -> None:
        threads.append(threading.get_ident())
        event.payload["x"] += 1

    other = Recorder()
    EventReporter(change, recorder, other).notify("a.b", x=1)
    assert recorder.last is other.last
    assert recorder.last.payload == {"x": 2}
    assert threads == [threading.get_ident()]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("*", ["job.step", "job.x.y", "import.prepared", "jobs"]),
        ("job.*", ["job.step", "job.x.y"]),
        ("job.step", ["job.step"]),
        (["*.step", "jobs"], ["job.step", "jobs"]),
        ([], []),
        ("JOB.*", []),
    ],
)
def test_names_choose_events(recorder: Recorder, names: Any, wanted: list[str]) -> None:
    """A star stands for any characters; several names may be given."""
    reporter = EventReporter()
    reporter.subscribe(recorder, names=names)
    for name in ("job.step", "job.x.y", "import.prepared", "jobs"):
        reporter.notify(name)
        assert reporter.listens(name) == (name in wanted)
    assert recorder.names == wanted


def test_a_filter_sees_the_full_event(recorder: Recorder) -> None:
    """The filter gets what the subscriber would get; any true answer lets it through."""
    reporter = EventReporter()
    reporter.subscribe(recorder, filter=lambda event: event.payload["x"] and event.source_location)
    reporter.notify("a.b", x=0)
    reporter.notify("a.b", x=1)
    assert [event.payload["x"] for event in recorder.events] == [1]


def test_unsubscribe_finds_objects_methods_and_classes() -> None:
    """An instance, an equal bound method, or a class for all its instances; an unknown one is no error."""
    one, two = Recorder(), Recorder()
    reporter = EventReporter(one, two, one.events.append)
    reporter.unsubscribe(one.events.append)
    reporter.unsubscribe(print)
    reporter.unsubscribe(one)
    reporter.notify("a.b")
    assert (len(one.events), len(two.events)) == (0, 1)
    reporter.subscribe(one)
    reporter.unsubscribe(Recorder)
    assert not reporter.listens("a.b")


def test_a_subscription_counts_for_names_already_used(recorder: Recorder) -> None:
    """Who subscribes after a name was notified gets the next event of it; who unsubscribes none."""
    reporter = EventReporter()
    reporter.notify("a.b")
    reporter.subscribe(recorder)
    reporter.notify("a.b")
    reporter.unsubscribe(recorder)
    reporter.notify("a.b")
    assert len(recorder.events) == 1


def test_what_cannot_take_events_is_no_subscriber() -> None:
    """The mistake is found when subscribing."""
    with pytest.raises(TypeError, match="of type int, expected a callable or an object with emit"):
        EventReporter().subscribe(7)  # type: ignore[type-var]


def test_many_names_do_not_fill_memory(reporter: EventReporter, recorder: Recorder) -> None:
    """Names made up on the way are forgotten again, and all delivered."""
    for k in range(3000):
        reporter.notify(f"made.up.{k}")
    assert len(recorder.events) == 3000
    assert len(reporter._routes) <= 1024


def test_subscribing_from_threads_loses_nobody(recorder: Recorder) -> None:
    """While others notify, subscriptions and their ends are all kept."""
    reporter = EventReporter()
    stop = threading.Event()

    def notify() -> None:
        while not stop.is_set():
            reporter.notify("a.b")

    def come_and_go() -> None:
        for _ in range(200):
            mine = Recorder()
            reporter.subscribe(mine)
            reporter.notify("a.b")
            assert mine.events
            reporter.unsubscribe(mine)

    speaker = threading.Thread(target=notify)
    speaker.start()
    crowd = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    stop.set()
    speaker.join()
    assert not reporter.listens("a.b")


# --- Errors ------------------------------------------------------------------------------------------------


def test_a_failing_subscriber_harms_nobody(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged with traceback to nbjobs.events, and the next subscriber gets the event."""
    reporter = EventReporter(failing, recorder)
    with caplog.at_level(logging.WARNING, "nbjobs.events"):
        reporter.notify("a.b")
    assert recorder.names == ["a.b"]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("nbjobs.events", "WARNING")
    assert record.exc_info
    assert "failing" in record.getMessage()


def test_a_failing_filter_is_a_failing_subscriber(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Its event is not delivered to it, and to the next one is."""
    reporter = EventReporter()
    reporter.subscribe(Recorder(), filter=lambda event: 1 / 0)
    reporter.subscribe(recorder)
    reporter.notify("a.b")
    assert recorder.names == ["a.b"]
    assert "ZeroDivisionError" in caplog.text


def test_errors_can_be_let_through(recorder: Recorder) -> None:
    """With raise_on_error the caller of `notify` gets the error, later subscribers nothing."""
    reporter = EventReporter(failing, recorder, raise_on_error=True)
    with pytest.raises(KeyError):
        reporter.notify("a.b")
    assert recorder.events == []
    reporter.raise_on_error = False
    reporter.notify("a.b")
    assert recorder.names == ["a.b"]


def test_events_of_the_framework_never_fail(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """`emit` hands on a ready event; no subscriber's error comes back, even with raise_on_error."""
    reporter = EventReporter(failing, recorder, raise_on_error=True)
    event = Event("job.step", {}, {}, {}, 7, n=3)
    reporter.emit(event)
    assert recorder.last is event
    reporter.emit(dataclasses.replace(event, name=""))


def test_an_interrupt_in_a_subscriber_is_let_through() -> None:
    """Only `Exception` is held back."""

    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EventReporter(interrupt).notify("a.b")


def test_a_subscriber_with_a_hostile_repr_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Reporting the error does not fail itself."""

    class Bad(Hostile):
        def emit(self, event: Event) -> None:
            raise ValueError("no")

    EventReporter(Bad()).notify("a.b")
    assert "its repr raised" in caplog.text


# --- Tags and context --------------------------------------------------------------------------------------


def test_tags_hold_for_a_block(reporter: EventReporter, recorder: Recorder) -> None:
    """Inner tags win, and the outer ones are back afterwards, also after an error."""
    with tagged("import", source="crm"):
        with pytest.raises(KeyError), tagged({"source": "file", "n": None}, 5):
            reporter.notify("inner")
            raise KeyError
        reporter.notify("outer")
    reporter.notify("none")
    assert [dict(event.tags) for event in recorder.events] == [
        {"import": True, "source": "file", "n": None, "int": 5},
        {"import": True, "source": "crm"},
        {},
    ]


def test_keywords_beat_positional_tags() -> None:
    """The same tag twice: the keyword counts."""
    recorder = Recorder()
    with tagged("x", {"y": 1}, x=2):
        EventReporter(recorder).notify("a.b")
    assert recorder.last.tags == {"x": 2, "y": 1}


def test_tagged_without_tags_changes_nothing(reporter: EventReporter, recorder: Recorder) -> None:
    """It is a plain block; None is a tag like any other object."""
    with tagged("x"), tagged():
        reporter.notify("a.b")
    with tagged(None):
        reporter.notify("a.b")
    assert [dict(event.tags) for event in recorder.events] == [{"x": True}, {"NoneType": None}]


def test_tags_are_laid_over_those_of_where_the_block_begins(reporter: EventReporter, recorder: Recorder) -> None:
    """Also where `tagged` was called elsewhere, as it is for a function that it decorates."""

    @tagged("inner", x=2)
    def work() -> None:
        reporter.notify("a.b")

    with tagged("outer", x=1):
        work()
        work()
    assert [dict(event.tags) for event in recorder.events] == [{"outer": True, "x": 2, "inner": True}] * 2


@pytest.mark.parametrize("tags", [{str(k): 1 for k in range(17)}, {"x" * 65: 1}, {"x": "ä" * 33}])
def test_too_many_or_too_long_tags_are_refused(tags: dict[str, Any]) -> None:
    """16 tags of 64 bytes each, refused where they are given."""
    with pytest.raises(ValueError, match="at most"):
        tagged(tags)
    with pytest.raises(ValueError, match="at most"):
        check_tags(tags)


def test_context_stays_until_it_is_cleared(reporter: EventReporter, recorder: Recorder) -> None:
    """Later values win, None is a value, and clearing empties it all."""
    assert set_context({"a": 1}, b=2) == {"a": 1, "b": 2}
    assert set_context({"a": None}) == {"a": None, "b": 2} == get_context()
    reporter.notify("a.b")
    clear_context()
    assert get_context() == {}
    assert recorder.last.context == {"a": None, "b": 2}


def test_keys_of_a_context_are_text() -> None:
    """Another key is a TypeError, and nothing is set."""
    with pytest.raises(TypeError, match="expected a str"):
        set_context({1: 2})  # type: ignore[dict-item]
    assert get_context() == {}


def test_tasks_begin_with_a_copy_and_threads_with_nothing() -> None:
    """What a task sets stays in it; a thread has the context only if it is run in a copy."""
    seen: dict[str, Any] = {}

    async def task(name: str) -> None:
        set_context(task=name)
        await asyncio.sleep(0)
        seen[name] = dict(get_context())

    async def both() -> None:
        await asyncio.gather(task("a"), task("b"))

    set_context(base=1)
    asyncio.run(both())
    copy = copy_context()
    for name, target in (("bare", get_context), ("copied", lambda: copy.run(get_context))):
        thread = threading.Thread(target=lambda n=name, t=target: seen.update({n: dict(t())}))
        thread.start()
        thread.join()
    assert seen == {
        "a": {"base": 1, "task": "a"},
        "b": {"base": 1, "task": "b"},
        "bare": {},
        "copied": {"base": 1},
    }
    assert get_context() == {"base": 1}


def test_an_isolated_block_sees_and_leaves_nothing(reporter: EventReporter, recorder: Recorder) -> None:
    """A run begins without the caller's tags and context, and its own end with it, also after an error."""
    set_context(a=1)
    with tagged("outer"):
        with pytest.raises(KeyError), isolated_context():
            assert get_context() == {}
            set_context(b=2)
            reporter.notify("inner")
            raise KeyError
        reporter.notify("outer")
    assert [(dict(e.tags), dict(e.context)) for e in recorder.events] == [({}, {"b": 2}), ({"outer": True}, {"a": 1})]


def test_all_reporters_share_tags_and_context(recorder: Recorder) -> None:
    """Set through one reporter, seen by the events of another."""
    EventReporter().set_context(a=1)
    with EventReporter().tagged("x"):
        EventReporter(recorder).notify("a.b")
    assert (recorder.last.tags, recorder.last.context) == ({"x": True}, {"a": 1})
    assert EventReporter().get_context() == {"a": 1}
    EventReporter().clear_context()
    assert get_context() == {}


# --- Debug -------------------------------------------------------------------------------------------------


def test_debug_reports_only_where_it_is_on(reporter: EventReporter, recorder: Recorder) -> None:
    """Off: nothing happens, the function is not called. On: an event like any other."""
    calls: list[int] = []

    def costly() -> dict[str, int]:
        calls.append(1)
        return {"x": 2}

    reporter.debug("a.b", costly)
    assert (calls, recorder.events) == ([], [])
    with with_debug():
        reporter.debug("a.b", costly, x=1, y=1)
        reporter.debug("a.c", {"z": 3})
        reporter.debug("a.d", z=4)
    reporter.debug("a.e")
    reporter.debug_mode = True
    reporter.debug("a.f")
    assert [event.payload for event in recorder.events] == [{"x": 2, "y": 1}, {"z": 3}, {"z": 4}, {}]
    assert (recorder.last.source_location or {})["label"] == "test_debug_reports_only_where_it_is_on"


def test_with_debug_nests_and_counts_for_all_reporters(reporter: EventReporter, recorder: Recorder) -> None:
    """Also in tasks that begin in it; it is as before afterwards, also after an error."""

    async def task() -> None:
        reporter.debug("in a task")

    with pytest.raises(KeyError), EventReporter().with_debug():
        with with_debug():
            reporter.debug("inner")
        asyncio.run(task())
        raise KeyError
    reporter.debug("after")
    assert recorder.names == ["inner", "in a task"]


def test_an_object_and_a_debug_function_are_two_payloads(recorder: Recorder) -> None:
    """As with `notify`; a function that answers nothing is none."""
    reporter = EventReporter(recorder, raise_on_error=True)
    with with_debug():
        with pytest.raises(TypeError, match="pass one of them"):
            reporter.debug(7, lambda: {"x": 1})
        reporter.debug("a.b", dict)
    assert recorder.last.payload == {}


# --- Secrets -----------------------------------------------------------------------------------------------


def test_parameters_that_look_like_secrets_are_hidden(reporter: EventReporter, recorder: Recorder) -> None:
    """At any depth, in any case, whole values; what the caller holds is not changed."""
    card = {"CVV": 123, "rows": [{"api_key": "x", "n": 1}, ({"userPassword": ["y"]},)]}
    reporter.notify("a.b", card=card, access_token={"x": 1})
    assert recorder.last.payload == {
        "card": {"CVV": "[FILTERED]", "rows": [{"api_key": "[FILTERED]", "n": 1}, ({"userPassword": "[FILTERED]"},)]},
        "access_token": "[FILTERED]",
    }
    assert card["CVV"] == 123


def test_the_list_begins_as_that_of_rails() -> None:
    """Twelve words; each reporter has a list of its own."""
    reporter = EventReporter()
    words = ["passw", "email", "secret", "token", "_key", "crypt", "salt", "certificate", "otp", "ssn", "cvv", "cvc"]
    assert sorted(reporter.filter_parameters) == sorted(words)
    reporter.filter_parameters.clear()
    assert EventReporter().filter_parameters


def test_tags_context_and_ready_events_are_filtered_on_their_way_to_redis_only(
    reporter: EventReporter, recorder: Recorder
) -> None:
    """In the process they are as they were given, so that a name is never taken for a secret by its key."""
    set_context(api_key="x")
    with tagged(token="y"):
        reporter.notify("a.b")
    reporter.emit(dataclasses.replace(recorder.last, payload={"jobs": {"EmailJob": 2}}))
    assert recorder.last.payload == {"jobs": {"EmailJob": 2}}
    assert (recorder.last.tags, recorder.last.context) == ({"token": "y"}, {"api_key": "x"})
    stored = decode("a.b", encode(recorder.last))
    assert (stored.tags, stored.context) == ({"token": "[FILTERED]"}, {"api_key": "[FILTERED]"})


def test_the_list_of_parameters_is_live(reporter: EventReporter, recorder: Recorder) -> None:
    """Text, dotted paths, patterns and functions, added and removed at any time."""
    reporter.filter_parameters.append("colour")
    reporter.notify("a.b", Colours=1, password=2)
    reporter.filter_parameters[:] = [
        "card.number",
        re.compile("^x[0-9]$"),
        lambda key, value: value[:2] + "…" if key == "email" else value,
    ]
    reporter.notify("a.b", password=2, card={"number": 3, "kind": 4}, x1=5, xy=6, email="ada@example")
    reporter.filter_parameters.clear()
    reporter.notify("a.b", password=2)
    assert [event.payload for event in recorder.events] == [
        {"Colours": "[FILTERED]", "password": "[FILTERED]"},
        {
            "password": 2,
            "card": {"number": "[FILTERED]", "kind": 4},
            "x1": "[FILTERED]",
            "xy": 6,
            "email": "ad…",
        },
        {"password": 2},
    ]


def test_what_a_filter_function_cannot_judge_stays_hidden(reporter: EventReporter, recorder: Recorder) -> None:
    """A function that raises hides the value and fails nobody."""
    reporter.filter_parameters.append(lambda key, value: value.upper())
    reporter.notify("a.b", text="x", number=1)
    assert recorder.last.payload == {"text": "X", "number": "[FILTERED]"}


def test_cycles_and_depth_do_not_break_the_filter(reporter: EventReporter, recorder: Recorder) -> None:
    """Payloads that contain themselves, nest 2,000 deep or multiply are delivered."""
    cycle: dict[str, Any] = {"secret": 1}
    cycle["again"] = cycle
    deep: Any = {"secret": 1}
    for _ in range(2000):
        deep = {"x": deep}
    bomb: Any = ["x"] * 50
    for _ in range(20):
        bomb = [bomb] * 50
    reporter.notify("a.b", cycle=cycle, deep=deep, bomb=bomb)
    payload = recorder.last.payload
    assert payload["cycle"] == {"secret": "[FILTERED]", "again": "[FILTERED]"}
    assert "1" not in str(payload["deep"])
    assert payload["bomb"] is bomb
    assert reporter.filtered({"a": {"token": 1}}) == {"a": {"token": "[FILTERED]"}}
    assert reporter.hides("my_secret")


# --- JSON in streams ---------------------------------------------------------------------------------------


def event_of(payload: Any, **more: Any) -> Event:
    return Event("a.b", payload, more.pop("tags", {}), more.pop("context", {}), 7, **more)


def test_an_event_survives_the_stream() -> None:
    """What JSON can hold comes back as it was, with the stream's id and the number."""
    event = event_of(
        {"total": 3, "rows": [1, {"x": None}]},
        tags={"nightly": True},
        context={"user_id": "ada"},
        source_location={"filepath": "x.py", "lineno": 3, "label": "f"},
    )
    assert decode("a.b", encode(event), id="5-0", n=2) == dataclasses.replace(event, id="5-0", n=2)


def test_what_is_empty_is_left_out() -> None:
    """An event without anything is its time."""
    assert encode(event_of({})) == '{"ts":7}'
    assert encode(event_of(None)) == '{"ts":7}'
    assert decode("a.b", '{"ts":7}') == event_of({})


def test_an_entry_without_a_time_has_that_of_its_id() -> None:
    """Scripts may write an empty text; the stream's id has the milliseconds."""
    assert decode("a.b", "", id="1700000000123-4").timestamp == 1_700_000_000_123_000_000
    assert decode("a.b", "", id="x").timestamp == 0
    assert decode("a.b", "").payload == {}


@given(DATA, DATA)
@pytest.mark.fault(36)
def test_any_payload_becomes_valid_json_below_the_limit(one: Any, other: Any) -> None:
    """No payload makes an error, invalid UTF-8, a NaN, or more bytes than the limit."""
    text = encode(event_of({"one": one, "other": [other]}, tags={"t": one}, context={"c": other}))
    assert len(text.encode("utf-8")) <= 16384
    body = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert body["ts"] == 7
    assert decode("a.b", text).timestamp == 7


@pytest.mark.parametrize(
    "payload",
    [
        {"x": math.nan},
        {"x": "\ud800"},
        {"\ud800": "x"},
        {"x": "\0\u202e"},
        {"x": 2**70},
        {"x": {1: {2: 3}}},
        {"x": Hostile()},
        Hostile(),
        [1, 2],
        7,
        {"x": "y" * 1_000_000},
        {"x" * 1_000_000: 1},
        {f"key{k}": "y" * 100 for k in range(1000)},
        {"x": [["y" * 10] * 100] * 100},
        {"x": "🙂" * 5000},
    ],
    ids=range(15),
)
@pytest.mark.fault(36)
def test_hostile_payloads_are_cut_and_never_raise(payload: Any) -> None:
    """Bad, foreign and huge values become JSON of at most the limit."""
    for limit in (16384, 2000, 100):
        text = encode(event_of(payload), limit)
        assert len(text.encode("utf-8")) <= limit
        json.loads(text)


def test_what_is_cut_says_so_and_keeps_the_rest() -> None:
    """A long text is cut with the number of bytes; short parameters beside it stay."""
    body = json.loads(encode(event_of({"job": "x.y", "text": "ä" * 20000, "attempt": 3})))["p"]
    assert (body["job"], body["attempt"], body["truncated"]) == ("x.y", 3, True)
    assert body["text"].endswith("bytes)")
    assert "(+" in body["text"]


def test_numbers_that_json_has_not_are_noted() -> None:
    """NaN is null in the payload and named beside it."""
    assert json.loads(encode(event_of({"loss": math.nan}))) == {"p": {"loss": None}, "ts": 7, "notes": {"loss": "nan"}}


def test_secrets_do_not_reach_a_stream() -> None:
    """Also events that were not notified, and objects, are filtered when they are written."""

    @dataclasses.dataclass
    class Login:
        password: str

    event = event_of({"args": [Login("hunter2")], "token": "hunter2"}, context={"secret": "hunter2"})
    assert "hunter2" not in encode(event)


@given(
    st.text()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda i: st.lists(i) | st.dictionaries(st.sampled_from(["p", "t", "x", "ts", "src"]), i),
    ).map(json.dumps)
)
def test_any_text_can_be_read(d: str) -> None:
    """A stream's entry makes an event, whatever is in it."""
    event = decode("a.b", d)
    assert isinstance(event.payload, dict)
    assert isinstance(event.timestamp, int)


def test_text_that_is_no_json_is_shown() -> None:
    """The payload says what was there."""
    assert decode("a.b", "\x80oops").payload == {"unreadable": r"'\x80oops'"}


# --- The default reporter ----------------------------------------------------------------------------------


def test_the_modules_functions_speak_to_the_default_reporter(recorder: Recorder) -> None:
    """`notify` and its sisters are those of `events.reporter`."""
    events.subscribe(recorder, names="test.*")
    try:
        events.notify("test.one")
        events.reporter.notify("test.two")
        with events.with_debug():
            events.debug("test.three")
        events.emit(Event("test.four", {}, {}, {}, 0))
        events.notify("other.one")
    finally:
        events.unsubscribe(recorder)
    events.notify("test.five")
    assert recorder.names == ["test.one", "test.two", "test.three", "test.four"]
    assert (recorder.events[0].source_location or {})["filepath"] == __file__


def test_the_default_reporter_is_pickled_by_reference(reporter: EventReporter) -> None:
    """Code by value that refers to `notify` finds the reporter of the process it runs in; no other travels."""
    assert pickle.loads(pickle.dumps(events.reporter)) is events.reporter
    assert pickle.loads(pickle.dumps(events.notify)) == events.notify
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(reporter)


def test_a_reporter_can_have_another_clock(reporter: EventReporter, recorder: Recorder) -> None:
    """The time of events can come from elsewhere, as from Redis in a run."""
    reporter.clock = lambda: 42
    reporter.notify("a.b")
    assert recorder.last.timestamp == 42
