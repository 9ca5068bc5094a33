"""The sink that makes OpenTelemetry spans of runs: one for each attempt, in it one for each step.

Needs the extra ``otel`` (``pip install "nbjobs[otel]"``). Subscribe it in the module of your jobs, where their bodies
run, with the provider that your SDK is set up with::

    from nbjobs import subscribe
    from nbjobs.sinks.otel import OtelSink

    subscribe(OtelSink())

A body's own events become events of the step that is running, or of the attempt between two steps, and so do those
of the framework that are no beginning or end; of progress only what a step came to is told. While a step runs, its
span is the current one: spans that a database or an HTTP client makes are its children.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from .. import context
from ..events import reporter
from ..plain import json_safe, preview

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

    from ..context import Carrier
    from ..events import Event

_TEXT = 1000  # characters of what is no scalar
_HEAD = frozenset(("job", "job_id", "attempt"))
_ENDINGS = frozenset(("job.completed", "job.failed", "job.cancelled", "job.interrupt", "job.retry_scheduled"))


class _Attempt:
    """The spans of one attempt that are open."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.step: Span | None = None
        self.outer: Context | None = None  # what was current before the step


class OtelSink:
    """Makes spans of the attempts whose bodies run in this process.

    Each has the job, the run, its user and the attempt's number as attributes ``nbjobs.*``, and what the attempt or the
    step came to. An attempt that fails or is to be tried again, and a step that raised, have the status *error*, with
    the exception. Parameters that look like secrets are hidden, in objects too. An attempt that lost its run to
    another one reports no end, and so has no span; its steps have.

    Args:
        tracer_provider: who gets the spans; the global one unless given.

    >>> from nbjobs import subscribe, unsubscribe
    >>> sink = subscribe(OtelSink())
    >>> unsubscribe(sink)
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("nbjobs", tracer_provider=tracer_provider)
        self._open: WeakKeyDictionary[Carrier, _Attempt] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """Begin or end a span, or put the event on one."""
        carrier = context.carrier()
        if carrier is None or event.name == "job.progress":
            return
        attempt = self._attempt(carrier, event)
        payload = _payload(event)
        name = event.name if payload.get("job_id") == carrier.run else ""  # a body may enqueue other runs
        if name:
            payload = {key: value for key, value in payload.items() if key not in _HEAD}
        if name == "job.step_started":
            self._begin(attempt, event, payload)
        elif name == "job.step":
            self._end(attempt, event, payload)
        elif name in _ENDINGS:
            with self._lock:
                self._open.pop(carrier, None)
            _close(attempt.span, event, payload)
        else:
            span = attempt.step if attempt.step is not None else attempt.span
            span.add_event(event.name, {**_values(payload), **_tags(event)}, event.timestamp)

    def _attempt(self, carrier: Carrier, event: Event) -> _Attempt:
        with self._lock:
            found = self._open.get(carrier)
            if found is None:
                name = f"job {carrier.job.rpartition('.')[2]}"
                head = {"job": carrier.job, "run": carrier.run, "attempt": carrier.attempt, "user": carrier.user}
                attributes = {**{f"nbjobs.{key}": value for key, value in head.items()}, **_tags(event, carrier.tags)}
                span = self._tracer.start_span(
                    name, kind=SpanKind.CONSUMER, attributes=attributes, start_time=carrier.began
                )
                found = self._open[carrier] = _Attempt(span)
            return found

    def _begin(self, attempt: _Attempt, event: Event, payload: Mapping[str, Any]) -> None:
        attempt.step = self._tracer.start_span(
            str(payload["step"]),
            context=trace.set_span_in_context(attempt.span),
            attributes={"nbjobs.step": str(payload["step"]), "nbjobs.resumed": bool(payload["resumed"])},
            start_time=event.timestamp,
        )
        attempt.outer = otel.get_current()
        otel.attach(trace.set_span_in_context(attempt.step))

    def _end(self, attempt: _Attempt, event: Event, payload: Mapping[str, Any]) -> None:
        span, outer = attempt.step, attempt.outer
        attempt.step = attempt.outer = None
        if outer is not None:
            otel.attach(outer)  # no token: a step may end in another context than it began in
        if span is not None:
            _close(span, event, payload)


def _close(span: Span, event: Event, payload: Mapping[str, Any]) -> None:
    error = payload.get("exception")
    span.set_attribute("nbjobs.event", event.name)
    span.set_attributes({f"nbjobs.{name}": value for name, value in _values(payload).items() if name != "exception"})
    if isinstance(error, Mapping):
        told = {f"exception.{name}": str(value) for name, value in error.items() if name != "traceback"}
        if "traceback" in error:
            told["exception.stacktrace"] = str(error["traceback"])
        span.add_event("exception", told, event.timestamp)
        span.set_status(Status(StatusCode.ERROR, f"{error.get('type')}: {error.get('message')}"))
    span.end(event.timestamp)


def _payload(event: Event) -> Mapping[str, Any]:
    safe = json_safe(event.payload, hides=reporter.hides)
    return safe if isinstance(safe, dict) else {"value": safe}


def _tags(event: Event, tags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {f"nbjobs.tag.{name}": value for name, value in _values(event.tags if tags is None else tags).items()}


def _values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what attributes can be: scalars as they are, the rest as text; what is None is left out."""
    return {
        str(name): value if isinstance(value, (str, int, float, bool)) else preview(value, _TEXT)
        for name, value in values.items()
        if value is not None
    }
