"""From what others wrote to what is kept: texts cleaned and cut, numbers checked, nothing trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from . import shown
from .plain import clean_text

LARGEST = 2**62
NAME, MESSAGE, TRACEBACK = 200, 500, 2000  # characters
NAMES = 50  # in a list


class Payload(msgspec.Struct, frozen=True):
    """The payload fields that matter here; any type may stand in any of them."""

    job: Any = None
    attempt: Any = None
    queue: Any = None
    worker: Any = None
    resumptions: Any = None
    description: Any = None
    after: Any = None
    reason: Any = None
    signal: Any = None
    memory: Any = None
    step: Any = None
    steps: Any = None
    cursor: Any = None
    resumed: Any = None
    done: Any = None
    total: Any = None
    inner: Any = None
    duration: Any = None
    interrupted: Any = None
    exception: Any = None
    kept: Any = None
    note: Any = None
    failures: Any = None
    op: Any = None
    from_step: Any = None
    ordinal: Any = None
    cpu_seconds: Any = None
    peak_memory: Any = None
    printed: Any = None
    last_lines: Any = None
    result_preview: Any = None
    dropped: Any = None
    newer: Any = None
    grace: Any = None


NOTHING = Payload()


class Wire(msgspec.Struct, frozen=True):
    """The JSON of an entry's `d`, as far as a reader needs it."""

    p: Payload = NOTHING
    ts: Any = 0


_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
_EMPTY = Wire()
_write = msgspec.json.Encoder().encode
_packed = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_mapping = msgspec.json.Decoder(dict[str, Any]).decode
_read = msgspec.json.Decoder(Wire).decode


def decode(data: str) -> Wire:
    """Payload and time of an entry's `d`; nothing at all where it is empty or not readable."""
    if not data:
        return _EMPTY
    try:
        return _read(data)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return _EMPTY


def text(value: object, limit: int = NAME) -> str:
    """One printable line of at most `limit` characters; a number as its digits, anything else as nothing."""
    if type(value) is not str:
        return str(value) if type(value) is int and -LARGEST < value < LARGEST else ""
    if len(value) <= limit and value.isascii() and value.isprintable():
        return value
    line = " ".join(clean_text(" ".join(value[: 4 * limit].split())).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def lines(value: object, limit: int = TRACEBACK) -> str:
    """The last lines of a text of several, each cleaned."""
    if not isinstance(value, str):
        return ""
    return "\n".join(clean_text(line.rstrip()) for line in value[-limit:].splitlines())[-limit:]


def names(value: object) -> tuple[str, ...]:
    """The names in a list, each cleaned; those of more than 50 are left out."""
    return tuple(filter(None, map(text, value[:NAMES]))) if isinstance(value, (list, tuple)) else ()


def whole(value: object) -> int | None:
    """A count, or None for what is none: digits count, bools, fractions and negative numbers do not."""
    if type(value) is str:
        if not (0 < len(value) < 20 and value.isascii() and value.isdigit()):
            return None
        value = int(value)
    return value if type(value) is int and 0 <= value <= LARGEST else None


def real(value: object) -> float | None:
    """A finite number that is not negative, or None."""
    if type(value) not in (int, float) or not 0 <= value <= LARGEST:  # type: ignore[operator]
        return None
    return float(value)  # type: ignore[arg-type]


def millis(value: object) -> int | None:
    """A duration in whole milliseconds, or None."""
    number = real(value)
    return None if number is None else round(number)


def moment(nanoseconds: object) -> int:
    """An event's timestamp in ms; 0 where it has none."""
    number = whole(nanoseconds)
    return 0 if number is None else number // 1_000_000


def short(value: object) -> str:
    """An event's cursor as it is shown: its JSON text, cut."""
    return "" if value is None else shown.masked(text(_write(value).decode(errors="replace")))


def packed(stored: str | None) -> str:
    """The run's stored cursor as it is shown: the JSON text of its value, without reading that as data."""
    try:
        return shown.masked(text(bytes(_packed(stored)["v"]).decode(errors="replace"))) if stored else ""
    except (ValueError, KeyError, RecursionError, msgspec.MsgspecError):
        return ""


def stream_id(stored: str | None) -> str:
    """The id of an entry, as Redis takes it; that of the stream's begin for what is none."""
    return stored if stored and _ID.fullmatch(stored) else "0-0"


def tags(stored: str | None) -> dict[str, Any]:
    """A run's tags; what is stored and no mapping counts as none."""
    try:
        return _mapping(stored) if stored else {}
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return {}


def error_fields(value: object) -> dict[str, Any]:
    """Type, message and last lines of an exception: an event's mapping, or the run's `error` field."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            return {"error_type": "", "error_message": text(value, MESSAGE), "traceback": ""}
    if not isinstance(value, Mapping):
        return {}
    return {
        "error_type": text(value.get("type")),
        "error_message": text(value.get("message"), MESSAGE),
        "traceback": lines(value.get("traceback")),
    }
