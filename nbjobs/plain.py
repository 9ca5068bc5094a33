"""Safe text and JSON of any value, for showing: nothing here ever raises because of what it is given.

Where `codec` keeps a value exactly or refuses it, this module takes everything and keeps what can be shown.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
import sys
from collections.abc import Callable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import msgspec

MASK = "[FILTERED]"
_SAFE_INT = 2**53
_NODES = 8192
_TEXT = 16384
_SEQUENCES: tuple[Any, ...] = (list, tuple, set, frozenset)
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_SURROGATES = re.compile("[\ud800-\udfff]")
_UNWANTED = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff{_BIDI}]")
_ADDRESS = re.compile(r"localhost|[\w.-]+:\d{1,5}(/\d*)?", re.ASCII)
_SECRET = re.compile("passw|secret|token|key|pwd|user")
_NAMED = re.compile(r"""(['"]?)(?<![\w.-])(?P<name>[\w.-]+)\1\s*[=:]\s*""")  # from a word's beginning only: linear
_QUOTED = r"""[bruf]{0,2}(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?)"""
_LITERAL = re.compile(rf"""(?!['"]?\[FILTERED){_QUOTED}""")
_VALUE = re.compile(rf"""(?!['"]?\[FILTERED)(?:{_QUOTED}|[^\s,;&)\]}}'"]+)""")
_URL_PASSWORD = re.compile(r"""(?<=://)([^/\s:@'"]*):[^/\s'"]*@(?=[^/\s@])""")
_BREAKS = re.compile("\r\n?|[\u2028\u2029]")


def clean_text(text: str) -> str:
    r"""Return text without what could disturb a display: control and bidi characters, lone surrogates.

    Line ends become ``\n``; tabs stay.

    >>> clean_text("a\x1b[31mred\u202eevil")
    'a[31mredevil'
    """
    if text.isprintable():
        return text
    return _UNWANTED.sub("", _BREAKS.sub("\n", _SURROGATES.sub("\ufffd", text)))


def preview(value: object, width: int = 200) -> str:
    """Return one safe line of at most width characters that shows value.

    >>> preview({"a": [1, 2]}), preview("x" * 50, 10)
    ("{'a': [1, 2]}", "'xxxxxxxx…")
    """
    return _one_line(_repr(value, width), width)


def safe_repr(value: object, width: int = 1000) -> str:
    """Return ``repr(value)`` on one line, cut to width, or a stand-in where the object's repr fails."""
    try:
        text = repr(value)
    except Exception as error:  # a repr of foreign code may fail in any way
        text = f"<{type(value).__name__}, its repr raised {type(error).__name__}>"
    return _one_line(text, width)


def _one_line(text: str, width: int) -> str:
    text = " ".join(clean_text(text[: 4 * width]).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _repr(value: object, width: int) -> str:
    limited = reprlib.Repr()
    limited.maxlevel = 6
    limited.maxlist = limited.maxtuple = limited.maxdict = limited.maxset = limited.maxfrozenset = 20
    limited.maxstring = limited.maxlong = limited.maxother = 2 * width + 10
    try:
        return limited.repr(value)
    except Exception:  # a repr of foreign code may fail in any way
        return safe_repr(value)


Hides = Callable[[str], bool]


def json_safe(
    value: object,
    *,
    depth: int = 32,
    keys: int = 256,
    hides: Hides | None = None,
    notes: dict[str, str] | None = None,
) -> Any:
    """Return value as what every JSON parser takes, whatever it is.

    NaN and infinities become None, integers beyond 2**53 and bytes become text, objects their safe repr.
    What is cut leaves a mark where it was.

    Args:
        value: anything.
        depth: levels of nesting kept.
        keys: keys of a dict and four times as many items of a list that are kept.
        hides: for a key, whether its value is replaced by ``[FILTERED]``.
        notes: filled with path → word for each number that JSON cannot hold.

    >>> json_safe({"loss": float("nan"), "big": 2**60, "at": date(2026, 1, 31)})
    {'loss': None, 'big': '1152921504606846976', 'at': '2026-01-31'}
    """
    return _Plain(depth, keys, hides, notes).take(value, "", 0)


class _Plain:
    __slots__ = ("depth", "hides", "keys", "nodes", "notes", "open", "text")

    def __init__(self, depth: int, keys: int, hides: Hides | None, notes: dict[str, str] | None) -> None:
        self.depth = depth
        self.keys = keys
        self.hides = hides
        self.notes = notes
        self.nodes = _NODES
        self.text = 64 * _TEXT
        self.open: set[int] = set()

    def take(self, value: Any, path: str, level: int) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return self.string(value)
        if kind is int and -_SAFE_INT <= value <= _SAFE_INT:
            return value
        if kind is float and math.isfinite(value):
            return value
        try:
            return self.slow(value, path, level)
        except Exception:  # properties, iterators and reprs of foreign code may fail in any way
            return safe_repr(value)

    def slow(self, value: Any, path: str, level: int) -> Any:
        if isinstance(value, Enum):
            return self.take(value.value, path, level)
        if isinstance(value, (str, int, float)):
            return self.base(value, path)
        if isinstance(value, dict):
            return self.nested(value, path, level, self.mapping)
        if isinstance(value, _SEQUENCES):
            return self.nested(value, path, level, self.sequence)
        if isinstance(value, (date, time, timedelta, Decimal, UUID, PurePath)):
            return self.string(value.isoformat() if isinstance(value, (date, time)) else str(value))
        return self.object(value, path, level)

    def base(self, value: Any, path: str) -> Any:
        """Values of str, int and float and of their subclasses, whose own methods are not trusted."""
        if isinstance(value, str):
            return self.string(str.__str__(value))
        if isinstance(value, int):
            number = int.__index__(value)
            return number if -_SAFE_INT <= number <= _SAFE_INT else _big(number)
        real = float.__float__(value)
        if math.isfinite(real):
            return real
        if self.notes is not None and len(self.notes) < 64:
            self.notes[path.lstrip(".")[:200]] = repr(real)
        return None

    def string(self, text: str) -> str:
        room = min(_TEXT, max(self.text, 64))
        self.text -= len(text)
        if not text.isascii():
            text = _SURROGATES.sub("\ufffd", text)
        return text if len(text) <= room else f"{text[:room]}…(+{len(text) - room:,} characters)"

    def nested(self, value: Any, path: str, level: int, inner: Callable[[Any, str, int], Any]) -> Any:
        if id(value) in self.open:
            return f"<{type(value).__name__} that contains itself>"
        if level >= self.depth:
            return f"<{type(value).__name__} nested too deep to show>"
        self.open.add(id(value))
        try:
            return inner(value, path, level + 1)
        finally:
            self.open.discard(id(value))

    def mapping(self, value: Any, path: str, level: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        pairs = list(dict.items(value))
        for key, item in pairs[: self.keys]:
            if self.nodes <= 0:
                break
            self.nodes -= 1
            name = key if type(key) is str and key.isascii() else self.key(key)
            hidden = self.hides is not None and self.hides(name)
            kept[name] = MASK if hidden else self.take(item, f"{path}.{name}", level)
        if len(pairs) > len(kept):
            kept["…"] = f"+{len(pairs) - len(kept):,} keys"
        return kept

    def key(self, key: Any) -> str:
        if isinstance(key, (tuple, frozenset)) or dataclasses.is_dataclass(key):
            return preview(key)
        plain = self.take(key, "", self.depth)
        return plain if isinstance(plain, str) else preview(plain)

    def sequence(self, value: Any, path: str, level: int) -> list[Any]:
        base = next(kind for kind in _SEQUENCES if isinstance(value, kind))
        items = list(base.__iter__(value))  # an __iter__ of a subclass may never end
        kept: list[Any] = []
        for index, item in enumerate(items[: 4 * self.keys]):
            if self.nodes <= 0:
                break
            self.nodes -= 1
            kept.append(self.take(item, f"{path}.{index}", level))
        if len(items) > len(kept):
            kept.append(f"…(+{len(items) - len(kept):,} items)")
        return kept

    def object(self, value: Any, path: str, level: int) -> Any:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.generic):
            item = value.item()
            if isinstance(value, (numpy.datetime64, numpy.timedelta64)) and isinstance(item, int):
                return self.string(str(value))  # finer than Python's: a bare number of nanoseconds
            return safe_repr(value) if type(item) is type(value) else self.take(item, path, level)
        if isinstance(value, msgspec.Struct):
            names = value.__struct_fields__
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = tuple(field.name for field in dataclasses.fields(value))
        else:
            text = safe_repr(value)
            return self.string(text if self.hides is None else masked(text, self.hides))
        shown = {name: getattr(value, name, None) for name in names}
        return self.nested(value, path, level, lambda _, p, n: self.mapping(shown, p, n))


def _big(number: int) -> str:
    """An integer as text; beyond what Python prints, as hex."""
    try:
        return str(number)
    except ValueError:
        text = hex(number)
        return text if len(text) <= 200 else f"{text[:200]}…(+{len(text) - 200:,} digits)"


def masked(text: str, hides: Hides) -> str:
    """Return a text for people without the secrets that can be told from it: values of names, passwords of URLs.

    In what looks like a line of source code only literals are hidden.

    Args:
        text: of an error, or an object's repr.
        hides: for a name, whether its value is hidden.

    >>> masked("no postgres://ada:hunter2@db/shop (password=x, port=1)", lambda name: name == "password")
    'no postgres://ada:[FILTERED]@db/shop (password=[FILTERED], port=1)'
    """
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    if "=" not in text and ":" not in text:
        return text
    lines = text.split("\n")
    return "\n".join(_masked_line(line, hides, _LITERAL if line.startswith("    ") else _VALUE) for line in lines)


def _masked_line(line: str, hides: Hides, value: re.Pattern[str]) -> str:
    parts, at = [], 0
    for named in _NAMED.finditer(line):
        if named.start() >= at and hides(named["name"]) and (found := value.match(line, named.end())):
            parts += [line[at : named.end()], MASK]
            at = found.end()
    return "".join(parts) + line[at:]


def masked_url(url: str) -> str:
    """Return a Redis URL without its secrets, for messages.

    >>> masked_url("redis://ada:hunter2@db:6379/1?password=x&db=1")
    'redis://ada:***@db:6379/1?password=***&db=1'
    >>> masked_url("localhost:6379")
    'localhost:6379'
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url if _ADDRESS.fullmatch(url) else "***"
    rest, question, query = rest.partition("?")
    userinfo, at, host = rest.rpartition("@")
    if "@" in query:  # a password with a question mark in it, or one in the query: cannot be told apart
        return clean_text(f"{scheme}://***")
    if at:
        user, colon, _ = userinfo.partition(":")
        rest = f"{user}:***@{host}" if colon else f"***@{host}"
    pairs = [_masked_pair(pair) for pair in query.split("&")] if question else []
    return clean_text(f"{scheme}://{rest}{question}{'&'.join(pairs)}")


def _masked_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}=***" if equals and _SECRET.search(name.lower()) else pair
