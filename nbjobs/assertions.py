"""Which events something reports: assertions for tests, as `nbjobs.testing` offers them.

Only events of the ``with`` block's own thread or task count, and of tasks that it starts: other threads begin without
its context.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from . import events
from .plain import preview

if TYPE_CHECKING:
    from .events import Event, EventReporter

_SHOWN = 400  # characters of a payload in a message
_recorders: ContextVar[tuple[list[Event], ...]] = ContextVar("nbjobs_recorders", default=())


class Expected(NamedTuple):
    """An event that is expected.

    Attributes:
        name: its name, or the class of an event object.
        payload: parameters that it has, among others. A compiled pattern is searched for in the parameter's text,
            anything else has to be equal, and None is also met by a parameter that is not there. Anything but a
            mapping is compared with the whole payload.
        tags: tags that it has, among others, compared in the same way.
    """

    name: str | type
    payload: Any = None
    tags: Mapping[str, Any] | None = None

    def matches(self, event: Event) -> bool:
        """Return whether an event is one of these."""
        name = self.name if isinstance(self.name, str) else self.name.__name__
        return event.name == name and _matches(self.payload, event.payload) and _matches(self.tags, event.tags)

    def __str__(self) -> str:
        name = self.name if isinstance(self.name, str) else self.name.__name__
        return _line(name, self.payload, self.tags)


class Reported:
    """What `assert_event_reported` found: ``event``, the first that matched, once the block has ended."""

    event: Event


@contextlib.contextmanager
def capture_events(*, reporter: EventReporter | None = None) -> Iterator[list[Event]]:
    """Collect what is reported in a ``with`` block.

    Args:
        reporter: whose events; the default reporter's unless given.

    >>> from nbjobs import notify
    >>> with capture_events() as reported:
    ...     notify("import.prepared", total=3)
    >>> [(event.name, event.payload) for event in reported]
    [('import.prepared', {'total': 3})]
    """
    found: list[Event] = []

    def take(event: Event) -> None:
        if any(mine is found for mine in _recorders.get()):
            found.append(event)

    source = reporter or events.reporter
    source.subscribe(take)
    outer = _recorders.get()
    _recorders.set((*outer, found))
    try:
        yield found
    finally:
        _recorders.set(outer)
        source.unsubscribe(take)


@contextlib.contextmanager
def assert_event_reported(
    name: str | type,
    payload: Any = None,
    tags: Mapping[str, Any] | None = None,
    *,
    reporter: EventReporter | None = None,
) -> Iterator[Reported]:
    """Fail unless a ``with`` block reports an event that matches; see `Expected`.

    >>> import re
    >>> from nbjobs import notify, tagged
    >>> with assert_event_reported("import.failed", {"reason": re.compile("line [0-9]+")}, {"source": "crm"}) as found:
    ...     with tagged("nightly", source="crm"):
    ...         notify("import.failed", reason="no number in line 7")
    >>> found.event.payload
    {'reason': 'no number in line 7'}
    """
    expected, found = Expected(name, payload, tags), Reported()
    with capture_events(reporter=reporter) as reported:
        yield found
    matching = [event for event in reported if expected.matches(event)]
    if not matching:
        raise AssertionError(_missing(expected, reported))
    found.event = matching[0]


@contextlib.contextmanager
def assert_no_event_reported(
    name: str | type | None = None,
    payload: Any = None,
    tags: Mapping[str, Any] | None = None,
    *,
    reporter: EventReporter | None = None,
) -> Iterator[None]:
    """Fail if a ``with`` block reports an event that matches; without a name, if it reports any at all.

    >>> with assert_no_event_reported("import.failed"):
    ...     pass
    """
    with capture_events(reporter=reporter) as reported:
        yield
    if name is None:
        unwanted, what = reported, "no event"
    else:
        expected = Expected(name, payload, tags)
        unwanted, what = [event for event in reported if expected.matches(event)], f"no {expected}"
    if unwanted:
        raise AssertionError(f"{what} was expected, found {len(unwanted)}:\n{_listed(unwanted)}")


@contextlib.contextmanager
def assert_events_reported(
    expected: Iterable[str | type | tuple[Any, ...]], *, reporter: EventReporter | None = None
) -> Iterator[None]:
    """Fail unless a ``with`` block reports each of several events, in any order; others may come between.

    Args:
        expected: names, or tuples of name, payload and tags as in `Expected`. Each in turn takes the first event that
            matches and that none before it has taken: put the narrow ones first.
        reporter: whose events; the default reporter's unless given.

    >>> from nbjobs import notify
    >>> with assert_events_reported([("import.row", {"row": 2}), "import.row"]):
    ...     notify("import.row", row=1)
    ...     notify("import.row", row=2)
    """
    wanted = [Expected(*one) if isinstance(one, tuple) else Expected(one) for one in expected]
    with capture_events(reporter=reporter) as reported:
        yield
    left = list(reported)
    for one in wanted:
        taken = next((place for place, event in enumerate(left) if one.matches(event)), None)
        if taken is None:
            raise AssertionError(_missing(one, reported))
        del left[taken]


def _matches(expected: Any, found: Any) -> bool:
    if expected is None:
        return True
    if not isinstance(expected, Mapping):
        return bool(expected == found)
    if not isinstance(found, Mapping):
        return False
    return all(_is(value, found.get(key)) for key, value in expected.items())


def _is(expected: Any, found: Any) -> bool:
    if isinstance(expected, re.Pattern):
        return expected.search("" if found is None else str(found)) is not None
    return bool(expected == found)


def _missing(expected: Expected, reported: list[Event]) -> str:
    if not reported:
        return f"an event was expected and none was reported: {expected}"
    return (
        f"an event was expected and not reported: {expected}\nnone of these {len(reported)} matches, or another "
        f"expectation has taken it:\n{_listed(reported)}"
    )


def _listed(reported: Iterable[Event]) -> str:
    return "\n".join(f"  {_line(event.name, event.payload, event.tags)}" for event in reported)


def _line(name: str, payload: Any, tags: Mapping[str, Any] | None) -> str:
    parts = [name]
    if payload is not None:
        parts.append(f"payload {preview(payload, _SHOWN)}")
    if tags:
        parts.append(f"tags {preview(dict(tags), _SHOWN)}")
    return ", ".join(parts)
