"""Cursors: where the next attempt goes on. What one means is the job's business: an index, an id, a date."""

from __future__ import annotations

from datetime import date, timedelta
from operator import index
from typing import Any, NamedTuple, SupportsIndex

import msgspec

from . import codec
from .errors import BadData, CursorError, NotData, TooLarge, UnadvanceableCursorError

COUNT, KEY, ITER_FROM, MAP = "count", "key", "from", "map"
"""Kinds of a loop's cursor: how many items are done; the key of the last one done; what ``iter_from`` gave with it;
below which item all are done.

``key`` and ``from`` stand in a cursor's ``fingerprint``.
"""

_UNCHANGEABLE = (int, str, bool, float, bytes, date, type(None))


class Cursor(NamedTuple):
    """A stored cursor: where to go on, and a fingerprint of the last item done (None: not known)."""

    value: Any
    fingerprint: str | None = None


def pack_cursor(cursor: Cursor) -> str:
    """Return the text that the store keeps of a cursor; an empty text is no cursor.

    Raises:
        CursorError: the value is not data, is NaN, or has more than 8 KiB.

    >>> pack_cursor(Cursor(8000, "9d2f"))
    '{"v":8000,"f":"9d2f"}'
    >>> unpack_cursor('{"v":8000,"f":"9d2f"}')
    Cursor(value=8000, fingerprint='9d2f')
    """
    if cursor.value is None and cursor.fingerprint is None:
        return ""
    value = msgspec.Raw(check_cursor(cursor.value).encode())
    record = {"v": value} if cursor.fingerprint is None else {"v": value, "f": cursor.fingerprint}
    return msgspec.json.encode(record).decode()


def unpack_cursor(text: str) -> Cursor:
    """Return the cursor of :func:`pack_cursor`'s text.

    Raises:
        BadData: the text is none of ours.
    """
    if not text:
        return Cursor(None)
    try:
        record = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        fingerprint = msgspec.json.decode(record["f"], type=str) if "f" in record else None
        return Cursor(codec.decode(bytes(record["v"]).decode()), fingerprint)
    except (msgspec.DecodeError, KeyError, ValueError, RecursionError) as error:
        raise BadData(f"The stored cursor {text[:80]!r} is none that nbjobs wrote: {error}.") from error


def check_cursor(value: Any) -> str:
    """Return a cursor's text, or say at once why it cannot be kept.

    Raises:
        CursorError: as for :func:`pack_cursor`. Raised before anything is marked as done.
    """
    try:
        return codec.encode(value, what="cursor", limit=codec.CURSOR_LIMIT, nan=False)
    except (NotData, TooLarge) as error:
        raise CursorError(str(error)) from error


def as_kept(value: Any) -> Any:
    """Return a cursor as the next attempt will get it: a copy, which the body cannot change any more.

    Raises:
        CursorError: as for :func:`pack_cursor`.
    """
    text = check_cursor(value)
    return value if type(value) in _UNCHANGEABLE else codec.decode(text)


def successor(value: Any) -> Any:
    """Return the value that comes after ``value``: an int plus one, a date plus a day, or its ``__succ__()``.

    Raises:
        UnadvanceableCursorError: there is no such thing for this type.

    >>> successor(41)
    42
    >>> successor(date(2026, 12, 31))
    datetime.date(2027, 1, 1)
    """
    if hasattr(type(value), "__succ__"):
        return value.__succ__()
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):  # also NumPy's ints
        return index(value) + 1
    if isinstance(value, date):
        return value + timedelta(days=1)
    raise UnadvanceableCursorError(
        f"A cursor of type '{type(value).__name__}' has no successor. Ints and dates have one, and any type "
        "with a method __succ__; for others say where to go on: step.current.set(cursor)."
    )
