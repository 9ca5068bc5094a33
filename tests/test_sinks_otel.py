"""Spans of attempts and steps, as the SDK's exporter in memory has them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from nbjobs import events
from nbjobs.events import notify
from nbjobs.jobs import job
from nbjobs.retries import Retry
from nbjobs.settings import NbJobs, configure
from nbjobs.sinks.otel import OtelSink
from nbjobs.stepping import step
from nbjobs.testing import interrupt_during_step

done: list[object] = []


class Spans:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def all(self) -> list[ReadableSpan]:
        """In the order in which they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]


@pytest.fixture
def spans(nbjobs_settings: NbJobs) -> Iterator[Spans]:
    """A sink that is subscribed, and what it makes; attempts run in this process."""
    done.clear()
    configure(adapter="inline")
    found = Spans()
    sink = events.subscribe(OtelSink(found.provider))
    yield found
    events.unsubscribe(sink)


@dataclass
class Login:
    """An event object with a secret."""

    password: str


@job
def load(rows: list[int]) -> None:
    notify("load.began", rows=rows, note=None)
    for row in step.each("process", rows):
        done.append(row)
        with events.tagged(source="crm"):
            notify("load.row", row=row, api_key="x")
    step("finish", notify, Login("x"))


def told(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


def test_an_attempt_is_a_span_and_each_step_one_in_it(spans: Spans) -> None:
    """With who and what as attributes; steps lie inside the attempt and one after the other."""
    run = load.options(tags={"team": "data"}).enqueue([1, 2])
    attempt, process, finish = spans.all
    assert [span.name for span in spans.all] == ["job load", "process", "finish"]
    assert attempt.kind is SpanKind.CONSUMER and attempt.parent is None
    attributes = dict(attempt.attributes or {})
    assert attributes["nbjobs.job"] == "tests.test_sinks_otel.load"
    assert (attributes["nbjobs.run"], attributes["nbjobs.user"], attributes["nbjobs.attempt"]) == (run.id, "ada", 1)
    assert (attributes["nbjobs.event"], attributes["nbjobs.tag.team"]) == ("job.completed", "data")
    for one in (process, finish):
        assert one.parent is not None and one.parent.span_id == attempt.context.span_id
    assert attempt.start_time <= process.start_time <= process.end_time <= finish.start_time <= finish.end_time
    assert finish.end_time <= attempt.end_time
    assert (process.attributes or {})["nbjobs.done"] == (process.attributes or {})["nbjobs.total"] == 2


def test_events_are_on_the_span_that_is_open(spans: Spans) -> None:
    """Of a step, or of the attempt between two; with tags; secrets are hidden, in objects too."""
    load.enqueue([1])
    attempt, process, finish = spans.all
    assert told(attempt) == [("load.began", {"rows": "[1]"})]
    assert told(process) == [("load.row", {"row": 1, "api_key": "[FILTERED]", "nbjobs.tag.source": "crm"})]
    assert told(finish) == [("Login", {"password": "[FILTERED]"})]


def test_an_interrupted_run_has_two_attempts(spans: Spans) -> None:
    """The first says why it ended, the second where it goes on; neither is an error."""
    with interrupt_during_step(load, "process", cursor=1):
        load.enqueue([1, 2])
    first, second = spans.named("job load")
    assert (first.attributes or {})["nbjobs.reason"] == "stopping"
    assert told(second)[0][0] == "job.resume"
    assert [(span.attributes or {})["nbjobs.attempt"] for span in (first, second)] == [1, 2]
    assert [(span.attributes or {})["nbjobs.resumed"] for span in spans.named("process")] == [False, True]
    assert {span.status.status_code for span in spans.all} == {StatusCode.UNSET}


def test_an_error_is_on_its_step_and_its_attempt(spans: Spans) -> None:
    """With type, message and traceback; an attempt that is tried again is an error too."""

    @job(retry_on=[Retry(KeyError, attempts=2, wait=0)])
    def fails() -> None:
        step("break", {}.__getitem__, "colour")

    assert fails.enqueue().state == "failed"
    assert [span.name for span in spans.all] == ["job fails", "break"] * 2
    for span in spans.all:
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "KeyError: 'colour'"
        (name, attributes), *_ = [one for one in told(span) if one[0] == "exception"]
        assert (name, attributes["exception.type"]) == ("exception", "KeyError")
    attempt = spans.named("job fails")[-1]
    assert "job.retry_stopped" in [name for name, _ in told(attempt)]
    assert "test_sinks_otel.py" in told(attempt)[-1][1]["exception.stacktrace"]


def test_spans_of_a_steps_body_are_its_children(spans: Spans) -> None:
    """Also in an async job and in threads of its steps; behind the last step nothing stays current."""
    tracer = spans.provider.get_tracer("mine")

    def query(name: str) -> None:
        tracer.start_span(name).end()

    async def aquery(name: str) -> None:
        query(name)

    @job
    async def asks() -> None:
        await step("one", aquery, "query 1")
        await step("two", query, "query 2")
        for _ in step.each("three", [1]):
            query("query 3")
        query("query 4")

    asks.enqueue()
    by_id = {span.context.span_id: span.name for span in spans.all}
    parents = {
        span.name: by_id[span.parent.span_id] if span.parent else "" for span in spans.all if span.name[:5] == "query"
    }
    assert parents == {"query 1": "one", "query 2": "two", "query 3": "three", "query 4": ""}
    load.enqueue([])
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_an_attempt_belongs_to_the_span_around_it(spans: Spans) -> None:
    """Where the adapter performs it inside one; a run that a body enqueues is an event of its own span."""

    @job
    def parent() -> str:
        return load.enqueue([]).id

    with spans.provider.get_tracer("mine").start_as_current_span("request") as request:
        child = parent.enqueue().result()
    (outer,) = spans.named("job parent")
    assert outer.parent is not None and outer.parent.span_id == request.get_span_context().span_id
    enqueued = dict(told(outer))["job.enqueued"]
    assert (enqueued["job"], enqueued["job_id"]) == (load.name, child)
    assert [name for name, _ in told(outer)] == ["job.enqueued", "job.started"]


def test_what_is_outside_a_run_makes_no_span(spans: Spans) -> None:
    """Neither an own event, nor the framework's of the enqueuer."""
    notify("import.prepared")
    load.enqueue([])
    assert "import.prepared" not in [name for span in spans.all for name, _ in told(span)]


def test_no_attempt_is_kept_in_memory(spans: Spans) -> None:
    """Not even one that never says how it ended."""
    (sink,) = [one.subscriber for one in events.reporter._subscriptions if isinstance(one.subscriber, OtelSink)]
    load.enqueue([1])
    gc.collect()
    assert len(sink._open) == 0
