"""Typed data as JSON text: arguments, cursors, step values and results.

What is read back equals what was written, in value and in type, or it was refused when it was written.
What JSON has is plain JSON; the rest is an object with one key that begins with ``$``:

>>> encode({"day": date(2026, 1, 31), "pair": (1, 2.5)})
'{"day":{"$date":"2026-01-31"},"pair":{"$tuple":[1,2.5]}}'
>>> decode(_)
{'day': datetime.date(2026, 1, 31), 'pair': (1, 2.5)}

Types: None bool int float str bytes date time datetime timedelta Decimal UUID Path tuple list set frozenset
dict, dataclasses and msgspec Structs. NumPy scalars become Python's. Types are compared exactly: a subclass
would come back as something else, so it is refused. Nothing here ever loads a pickle.
"""

from __future__ import annotations

import base64
import hashlib
import math
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from . import records
from .errors import BadData, NotData, TooLarge
from .plain import clean_text, json_safe, preview

__all__ = [
    "ARGS_LIMIT",
    "CURSOR_LIMIT",
    "RESULT_LIMIT",
    "VALUE_LIMIT",
    "clean_text",
    "decode",
    "encode",
    "fingerprint",
    "json_safe",
    "preview",
]

ARGS_LIMIT = 64 * 1024
CURSOR_LIMIT = 8 * 1024
VALUE_LIMIT = 64 * 1024
RESULT_LIMIT = 1024 * 1024

MAX_DEPTH = 100
_SAFE_INT = 2**53
_PATH = type(Path())
_PLAIN_KEYS = (str, int, float, bytes, date, Decimal, UUID, type(None))
_ACCEPTED = (
    "None bool int float str bytes date time datetime timedelta Decimal UUID Path tuple list set dict, "
    "dataclasses and msgspec Structs"
)


def encode(value: object, *, what: str = "value", limit: int | None = None, nan: bool = True) -> str:
    """Return value as JSON text.

    Args:
        value: what to store.
        what: how messages call it; the path of what is refused begins with it.
        limit: the bytes that the text may have.
        nan: False refuses NaN, which no cursor may be: it is equal to nothing, so nothing can go on from it.

    Raises:
        NotData: a value in it could not be read back unchanged; `.path` says which.
        TooLarge: the text has more bytes than `limit`.

    >>> encode([{1, 2}])
    '[{"$set":[1,2]}]'
    """
    text = str(value) if type(value) is int and -_SAFE_INT <= value <= _SAFE_INT else _dumps(_packed(value, what, nan))
    if limit is not None and len(text) * 4 > limit:
        size = len(text.encode())
        if size > limit:
            raise TooLarge(
                f"{what} has {size:,} bytes as JSON, at most {limit:,} are allowed: "
                "store the data in a file or database and pass its name",
                what=what,
                size=size,
                limit=limit,
            )
    return text


def decode(text: str | bytes) -> Any:
    """Return the value that `encode` was given.

    A dataclass or Struct is looked up by its module's name and filled without running its ``__init__``. A module that
    nothing has imported yet is imported only where its source defines such a class.

    Raises:
        BadData: the text is not from `encode`, or names a class that is not there.
    """
    try:
        return _unpack(msgspec.json.decode(text))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadData(
            f"stored text ({len(text):,} long) is not of nbjobs' codec: {type(error).__name__}: {error}"
        ) from None


def fingerprint(value: object) -> str | None:
    """Return 16 hex digits that are equal for equal data, or None where value is not data.

    >>> fingerprint((1, "a")), fingerprint(object())
    ('8ffc69f0bf31a8cc', None)
    """
    try:
        text = encode(value)
    except NotData:
        return None
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


# --- Writing -----------------------------------------------------------------------------------------------


class _Refusal(Exception):
    """Travels up from a refused value and gathers its path, innermost part first."""

    def __init__(self, value: object, why: str) -> None:
        super().__init__(why)
        self.found = type(value).__name__
        self.why = why
        self.parts: list[str] = []


def _packed(value: object, what: str, nan: bool) -> Any:
    try:
        return _Packer(nan).pack(value)
    except _Refusal as refusal:
        parts = refusal.parts[::-1]
        path = what + "".join(parts if len(parts) <= 20 else [*parts[:20], "…"])
        raise NotData(f"{path} {refusal.why}", path=path, found=refusal.found) from None


class _Packer:
    """Turns values into what msgspec writes as JSON without changing it."""

    __slots__ = ("depth", "nan")

    def __init__(self, nan: bool) -> None:
        self.nan = nan
        self.depth = 0

    def pack(self, value: Any) -> Any:
        kind = type(value)
        if kind is bool or value is None:
            return value
        packer = _PACKERS.get(kind)
        if packer is not None:
            return packer(self, value)
        return self.other(value)

    def items(self, values: Any) -> list[Any]:
        self.deeper(values)
        packed = []
        try:
            for value in values:
                packed.append(self.pack(value))
        except _Refusal as refusal:
            refusal.parts.append(f"[{len(packed)}]")
            raise
        self.depth -= 1
        return packed

    def members(self, values: Any, tag: str) -> dict[str, Any]:
        self.deeper(values)
        packed = []
        for value in values:
            try:
                packed.append(self.pack(value))
            except _Refusal as refusal:
                refusal.parts.append(f"{{{type(value).__name__}}}")
                raise
        self.depth -= 1
        return {tag: sorted(packed, key=_dumps)}

    def mapping(self, value: dict[Any, Any]) -> dict[str, Any]:
        self.deeper(value)
        pairs = []
        plain = True
        for key, item in list(value.items()):
            try:
                packed_key = self.pack(key)
                plain = plain and type(packed_key) is str
                pairs.append((packed_key, self.pack(item)))
            except _Refusal as refusal:
                # The repr of somebody's class may tell anything.
                shown = preview(key, 40) if isinstance(key, _PLAIN_KEYS) else type(key).__name__
                refusal.parts.append(f"[{shown}]")
                raise
        self.depth -= 1
        if plain and not (len(pairs) == 1 and pairs[0][0].startswith("$")):
            return dict(pairs)
        return {"$dict": pairs}

    def record(self, value: object) -> Any:
        self.deeper(value)
        packed = {}
        for name in records.fields(type(value)):
            try:
                packed[name] = self.pack(getattr(value, name))
            except _Refusal as refusal:
                refusal.parts.append(f".{name}")
                raise
            except AttributeError:
                raise _Refusal(value, f"is a {type(value).__name__} without its field {name!r}") from None
        self.depth -= 1
        return {"$data": [records.name_of(type(value)), packed]}

    def integer(self, value: int) -> Any:
        return value if -_SAFE_INT <= value <= _SAFE_INT else {"$int": hex(value)}

    def real(self, value: float) -> Any:
        if math.isfinite(value):
            return value
        if value != value and not self.nan:
            raise _Refusal(value, "is NaN, which is equal to nothing and so cannot be gone on from")
        return {"$float": repr(value)}

    def decimal(self, value: Decimal) -> Any:
        if value.is_nan() and not self.nan:
            raise _Refusal(value, "is NaN, which is equal to nothing and so cannot be gone on from")
        return {"$decimal": str(value)}

    def deeper(self, value: object) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Refusal(value, f"is nested more than {MAX_DEPTH} levels deep, or contains itself")

    def other(self, value: object) -> Any:
        scalar = _numpy_scalar(value)
        if scalar is not value:
            return self.pack(scalar)
        problem = records.problem(type(value))
        if problem is None:
            return self.record(value)
        raise _Refusal(value, f"is {_described(value)}{problem}, expected data: {_ACCEPTED}{_hint(value)}")


def _described(value: object) -> str:
    kind = type(value)
    module = "" if kind.__module__ in ("builtins", "__main__") else kind.__module__ + "."
    return f"of type {module}{kind.__qualname__}"


def _hint(value: object) -> str:
    kind = type(value)
    if hasattr(kind, "__members__"):
        return "; pass its .value"
    if kind.__name__ in ("DataFrame", "Series", "ndarray"):
        return "; store it in a file and pass the path"
    if issubclass(kind, tuple):
        return "; pass tuple(…) of it or make it a dataclass"
    if hasattr(kind, "__next__") or hasattr(kind, "read"):
        return "; open or create it inside the job"
    for base in (int, str, float, dict, list, set):
        if issubclass(kind, base):
            return f"; pass {base.__name__}(…) of it"
    return ""


def _numpy_scalar(value: Any) -> Any:
    """Return the Python value of a NumPy scalar, and anything else, or what would lose by it, unchanged."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        return value
    item = value.item()
    is_time = isinstance(value, (numpy.datetime64, numpy.timedelta64))
    if is_time and not isinstance(item, (date, timedelta)):
        return value
    return item if type(item) in _PACKERS or type(item) is bool else value


def _str(packer: _Packer, value: str) -> Any:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"$str": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}
    return value


def _zone(zone: tzinfo, packer: _Packer, value: Any) -> Any:
    """Return what names the zone: nothing, an IANA key, or an offset with its name."""
    if type(zone) is ZoneInfo and zone.key:
        return zone.key
    offset = value.utcoffset()
    if offset is None:
        raise _Refusal(value, f"has a time zone of type {type(zone).__name__}, use zoneinfo.ZoneInfo")
    name = zone.tzname(None) if type(zone) is timezone else None
    plain = name is None or name == timezone(offset).tzname(None)
    seconds = [offset.days * 86400 + offset.seconds, offset.microseconds]
    return seconds if plain else [*seconds, _str(packer, name or "")]


def _moment(tag: str) -> Callable[[_Packer, Any], Any]:
    def pack(packer: _Packer, value: Any) -> Any:
        text = value.replace(tzinfo=None).isoformat()
        if value.tzinfo is None and not value.fold:
            return {tag: text}
        zone = None if value.tzinfo is None else _zone(value.tzinfo, packer, value)
        return {tag: [text, zone, value.fold]}

    return pack


_PACKERS: dict[type, Callable[[_Packer, Any], Any]] = {
    int: _Packer.integer,
    float: _Packer.real,
    str: _str,
    bytes: lambda _, value: {"$bytes": base64.b64encode(value).decode()},
    date: lambda _, value: {"$date": value.isoformat()},
    time: _moment("$time"),
    datetime: _moment("$datetime"),
    timedelta: lambda _, value: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    Decimal: _Packer.decimal,
    UUID: lambda _, value: {"$uuid": str(value)},
    _PATH: lambda packer, value: {"$path": _str(packer, str(value))},
    list: _Packer.items,
    tuple: lambda packer, value: {"$tuple": packer.items(value)},
    set: lambda packer, value: packer.members(value, "$set"),
    frozenset: lambda packer, value: packer.members(value, "$frozenset"),
    dict: _Packer.mapping,
}


def _dumps(packed: Any) -> str:
    return msgspec.json.encode(packed).decode()


# --- Reading -----------------------------------------------------------------------------------------------


def _unpack(packed: Any) -> Any:
    kind = type(packed)
    if kind is list:
        return [_unpack(value) for value in packed]
    if kind is not dict:
        return packed
    if len(packed) == 1:
        (tag,) = packed
        if tag.startswith("$"):
            return _untagged(tag, packed[tag])
    return {key: _unpack(value) for key, value in packed.items()}


def _untagged(tag: str, packed: Any) -> Any:
    unpacker = _UNPACKERS.get(tag)
    if unpacker is None:
        raise BadData(f"stored text holds {preview(tag, 40)}, which this version of nbjobs does not know")
    try:
        return unpacker(packed)
    except BadData:
        raise
    except Exception as error:  # whatever the constructors make of foreign text
        raise BadData(f"stored text holds a {tag} that is none: {type(error).__name__}: {error}") from None


def _read_zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return ZoneInfo(zone)
    seconds, micro, *name = zone
    offset = timedelta(seconds=seconds, microseconds=micro)
    return timezone(offset, _unpack(name[0])) if name else timezone(offset)


def _read_moment(kind: Any) -> Callable[[Any], Any]:
    def unpack(packed: Any) -> Any:
        if isinstance(packed, str):
            return kind.fromisoformat(packed)
        text, zone, fold = packed
        return kind.fromisoformat(text).replace(tzinfo=_read_zone(zone), fold=fold)

    return unpack


def _many(packed: Any) -> list[Any]:
    if type(packed) is not list:
        raise TypeError(f"expected an array, found {type(packed).__name__}")
    return [_unpack(value) for value in packed]


def _read_record(packed: Any) -> Any:
    name, values = packed
    return records.build(name, {key: _unpack(value) for key, value in values.items()})


_UNPACKERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda text: int(text, 16),
    "$float": float,
    "$str": lambda text: base64.b64decode(text, validate=True).decode("utf-8", "surrogatepass"),
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$date": date.fromisoformat,
    "$time": _read_moment(time),
    "$datetime": _read_moment(datetime),
    "$timedelta": lambda parts: timedelta(parts[0], parts[1], parts[2]),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$path": lambda text: Path(_unpack(text)),
    "$tuple": lambda values: tuple(_many(values)),
    "$set": lambda values: set(_many(values)),
    "$frozenset": lambda values: frozenset(_many(values)),
    "$dict": lambda pairs: dict(_many(pairs)),
    "$data": _read_record,
}
