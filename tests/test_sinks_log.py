from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given

from nbjobs.events import Event, EventReporter
from nbjobs.sinks.log import LogSink, line

from .test_codec import DATA
from .test_plain import Hostile


def event_of(name: str, payload: Any = None, **more: Any) -> Event:
    return Event(name, {} if payload is None else payload, more.get("tags", {}), more.get("context", {}), 0)


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("job.failed", "ERROR"),
        ("job.dead", "ERROR"),
        ("job.interrupt", "WARNING"),
        ("job.retry_scheduled", "WARNING"),
        ("job.retry_stopped", "WARNING"),
        ("job.discarded", "WARNING"),
        ("job.progress", "DEBUG"),
        ("job.step", "INFO"),
        ("job.completed", "INFO"),
        ("import.prepared", "INFO"),
        ("import.failed", "INFO"),
    ],
)
def test_the_level_fits_the_event(caplog: pytest.LogCaptureFixture, name: str, level: str) -> None:
    """Failed and dead are errors, interrupts and retries warnings, progress is for debugging."""
    with caplog.at_level(logging.DEBUG, "nbjobs.jobs"):
        LogSink().emit(event_of(name))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("nbjobs.jobs", level)


def test_levels_can_be_given(caplog: pytest.LogCaptureFixture) -> None:
    """By name or pattern, the first that fits; what none fits keeps its own."""
    sink = LogSink(levels={"import.row": logging.DEBUG, "import.*": logging.WARNING, "job.progress": 0})
    with caplog.at_level(logging.DEBUG, "nbjobs.jobs"):
        for name in ("import.row", "import.prepared", "job.failed", "job.progress"):
            sink.emit(event_of(name))
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING", "ERROR"]


def test_a_record_points_at_the_line_that_notified(caplog: pytest.LogCaptureFixture) -> None:
    """File, line and function of the record are the event's, and the event is its attribute."""
    with caplog.at_level(logging.INFO, "nbjobs.jobs"):
        EventReporter(LogSink()).notify("import.prepared", total=3)
    (record,) = caplog.records
    assert record.pathname == __file__
    assert record.funcName == "test_a_record_points_at_the_line_that_notified"
    assert record.__dict__["event"].payload == {"total": 3}
    assert record.getMessage() == "import.prepared total=3"


def test_nothing_is_written_below_the_loggers_level(caplog: pytest.LogCaptureFixture) -> None:
    """A logger that wants errors only costs no line; another logger can be given."""
    logger = logging.getLogger("tests.sink")
    with caplog.at_level(logging.ERROR, "tests.sink"):
        LogSink(logger).emit(event_of("job.step"))
        LogSink(logger).emit(event_of("job.dead"))
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("tests.sink", "job.dead")]


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            event_of("job.step", {"job": "shop.imports.load", "job_id": "r1", "attempt": 2, "step": "read rows"}),
            "job.step load run=r1 attempt=2 step='read rows'",
        ),
        (event_of("import.x", {"n": 3}, context={"job_id": "r1"}), "import.x run=r1 n=3"),
        (event_of("a.b", {"x": None, "ok": True, "no": False, "t": 1.23456789}), "a.b ok no=False t=1.23457"),
        (event_of("a.b", tags={"nightly": True, "source": "crm"}), "a.b [nightly source=crm]"),
        (
            event_of("job.failed", {"exception": {"type": "KeyError", "message": "'x'", "traceback": "long"}}),
            "job.failed exception=\"KeyError: 'x'\"",
        ),
        (event_of("a.b", {"text": "one\ntwo\x1b[31m\u202e"}), r"a.b text='one\ntwo\x1b[31m\u202e'"),
        (event_of("a.b\nforged", {"k\ney": 1}), "a.b forged k ey=1"),
        (event_of("a.b", 7), "a.b payload=7"),
        (event_of("a.b", {"args": {"password": "hunter2"}}), "a.b args={'password': '[FILTERED]'}"),
    ],
)
def test_a_line_reads_well(event: Event, text: str) -> None:
    """Name, job, run, payload, tags; nothing unknown, no second line, no secret."""
    assert line(event) == text


@given(DATA)
def test_any_event_is_one_line(value: Any) -> None:
    """No payload makes an error or a second line."""
    text = line(Event("a.b", {"x": value}, {"t": value}, {"job_id": value}, 0))
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) <= 1000
    text.encode("utf-8")


def test_objects_that_cannot_be_shown_are_named() -> None:
    """A hostile object does not fail the sink."""
    assert "Hostile" in line(event_of("a.b", {"x": Hostile()}))
    assert "Hostile" in line(event_of("a.b", Hostile()))
