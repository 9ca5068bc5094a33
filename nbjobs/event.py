"""One event: the record that subscribers get, and its JSON in Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .plain import Hides, clean_text, json_safe, preview

EVENT_LIMIT = 16 * 1024
"""Bytes that an event's JSON may have; the scripts refuse more."""

_FLAT_KEYS = 64
_SAFE_INT = 2**53
_Check = Callable[[object, Hides | None], bool]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        name: dotted, for instance ``import.prepared`` or ``job.step``.
        payload: the parameters, or the object that was given to `notify` in place of a name.
        tags: what `tagged` put around it.
        context: what `set_context` had set; in a run ``user_id`` and ``job_id`` are there by themselves.
        timestamp: nanoseconds since 1970.
        source_location: ``filepath``, ``lineno`` and ``label`` of the line that notified, where known.
        id: its id in the stream it was read from.
        n: its number among the state events of its run; None for progress and own events.
    """

    name: str
    payload: Any
    tags: Mapping[str, Any]
    context: Mapping[str, Any]
    timestamp: int
    source_location: Mapping[str, Any] | None = None
    id: str | None = None
    n: int | None = None


@dataclass(slots=True)
class _Draft:
    """`Event` before it is frozen, with the same slots."""

    name: str
    payload: Any
    tags: Mapping[str, Any]
    context: Mapping[str, Any]
    timestamp: int
    source_location: Mapping[str, Any] | None = None
    id: str | None = None
    n: int | None = None


def new(
    name: str,
    payload: Any,
    tags: Mapping[str, Any],
    context: Mapping[str, Any],
    timestamp: int,
    source_location: Mapping[str, Any] | None,
) -> Event:
    """Return an `Event`, three times as fast as its constructor, which freezes field by field."""
    draft: Any = _Draft(name, payload, tags, context, timestamp, source_location)
    draft.__class__ = Event
    event: Event = draft
    return event


def encode(event: Event, limit: int = EVENT_LIMIT, hides: Hides | None = None) -> str:
    """Return the event's JSON without its name, at most limit bytes, whatever the payload holds.

    Keys: ``p`` payload, ``t`` tags, ``x`` context, ``ts`` timestamp, ``src`` source location, ``notes``
    on numbers that JSON cannot hold; what is empty is left out. Where it is too large, long texts and lists
    are cut, and the payload has ``truncated``.

    >>> encode(Event("a", {"loss": float("inf")}, {}, {}, 7))
    '{"p":{"loss":null},"ts":7,"notes":{"loss":"inf"}}'
    """
    notes: dict[str, str] = {}
    try:
        body = _body(event, hides, notes, _as_it_is)
        text = msgspec.json.encode(body)
    except UnicodeEncodeError:  # a lone surrogate somewhere
        body = _body(event, hides, notes, _always_safe)
        text = msgspec.json.encode(body)
    return (text if len(text) <= limit else _cut(body, limit)).decode()


def _body(event: Event, hides: Hides | None, notes: dict[str, str], check: _Check) -> dict[str, Any]:
    body: dict[str, Any] = {}
    payload = event.payload
    if payload is not None and payload != {}:
        shown = payload if check(payload, hides) else json_safe(payload, hides=hides, notes=notes)
        body["p"] = shown if isinstance(shown, dict) else {"value": shown}
    for key, values in (("t", event.tags), ("x", event.context)):
        if values:
            plain = dict(values)
            body[key] = plain if check(plain, hides) else json_safe(plain, hides=hides)
    body["ts"] = event.timestamp
    location = event.source_location
    if location:
        body["src"] = location if check(location, None) else json_safe(dict(location))
    if notes:
        body["notes"] = notes
    return body


def _as_it_is(values: object, hides: Hides | None) -> bool:
    """Whether a payload is flat and plain, as most are, so that it can be written without a copy."""
    if type(values) is not dict or len(values) > _FLAT_KEYS:
        return False
    for key, value in values.items():
        kind = type(value)
        if kind is int:
            plain = -_SAFE_INT <= value <= _SAFE_INT
        elif kind is float:
            plain = value - value == 0.0  # neither NaN nor infinite
        else:
            plain = kind is str or value is None or kind is bool
        if not plain or type(key) is not str or (hides is not None and hides(key)):
            return False
    return True


def _always_safe(values: object, hides: Hides | None) -> bool:
    return False


def decode(name: str, d: str, *, id: str | None = None, n: int | None = None) -> Event:
    """Return the event that an entry of a stream holds; text that cannot be read makes no error.

    >>> decode("a", '{"p":{"x":1},"ts":7}', id="5-0").payload
    {'x': 1}
    """
    try:
        body = msgspec.json.decode(d) if d else {}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        body = None
    if not isinstance(body, dict):
        body = {"p": {"unreadable": preview(d)}}
    timestamp = body.get("ts")
    return Event(
        name=name if name.isprintable() else clean_text(name),
        payload=_mapping(body.get("p")),
        tags=_mapping(body.get("t")),
        context=_mapping(body.get("x")),
        timestamp=timestamp if isinstance(timestamp, int) else _time_of(id),
        source_location=_mapping(body.get("src")) or None,
        id=id,
        n=n,
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _time_of(id: str | None) -> int:
    """The time in a stream's id, for an entry that was written without one."""
    ms = (id or "").partition("-")[0]
    return int(ms) * 1_000_000 if ms.isascii() and ms.isdigit() and len(ms) < 16 else 0


def _cut(body: dict[str, Any], limit: int) -> bytes:
    """Cut texts and lists shorter and shorter until it fits; what is not nested is kept longest."""
    for text, items in ((2048, 128), (512, 32), (128, 12), (32, 6)):
        short = {key: _shrunk(value, text, items, top=True) for key, value in body.items()}
        short.setdefault("p", {})["truncated"] = True
        encoded = msgspec.json.encode(short)
        if len(encoded) <= limit:
            return encoded
    flat = {key: value for key, value in short["p"].items() if not isinstance(value, (dict, list))}
    encoded = msgspec.json.encode({"p": flat, "ts": body["ts"]})
    return encoded if len(encoded) <= limit else b'{"p":{"truncated":true}}'


def _shrunk(value: Any, text: int, items: int, top: bool = False) -> Any:
    if isinstance(value, str) and len(value) > text:
        return f"{value[:text]}…(+{len(value[text:].encode()):,} bytes)"
    if isinstance(value, list):
        kept = [_shrunk(item, text, items) for item in value[:items]]
        return kept if len(kept) == len(value) else [*kept, f"…(+{len(value) - len(kept):,} items)"]
    if isinstance(value, dict):
        room = 40 if top else items
        shown = {key[:64]: _shrunk(item, text, items) for key, item in list(value.items())[:room]}
        return shown if len(value) <= room else {**shown, "…": f"+{len(value) - room:,} keys"}
    return value
