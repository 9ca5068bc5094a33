"""What people are shown of values and errors: one safe line, or a few, without what can be told to be a secret.

Names are judged as those of parameters are, by `EventReporter.filter_parameters` of the default reporter. A text is
cleaned and cut here, at the door, by its bytes in JSON: so Redis never refuses what is written of it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import msgspec

from . import events, plain

MESSAGE_LIMIT = 4096
KIND_LIMIT = 200

_json = msgspec.json.Encoder().encode
_name_of_class = type.__dict__["__name__"].__get__  # a metaclass may have a `__name__` of its own


def value(found: Any, width: int = 200) -> str:
    """Return one line that shows a value.

    >>> print(value({"rows": 3, "password": "hunter2"}))
    {'password': [FILTERED], 'rows': 3}
    """
    return masked(plain.preview(found, width))


def kind(error: BaseException) -> str:
    """Return the name of an error's class."""
    return cut(_name_of_class(type(error)), KIND_LIMIT)


def message(error: BaseException) -> str:
    """Return the text of an error; this never raises.

    >>> message(ConnectionError("no answer of postgres://ada:hunter2@db/shop"))
    'no answer of postgres://ada:[FILTERED]@db/shop'
    """
    try:
        return told(str.__str__(str(error)), MESSAGE_LIMIT)
    except BaseException as failure:  # of the user's class: it may fail in any way, also by SystemExit
        return f"(its text raised {kind(failure)})"


def told(text: str, limit: int) -> str:
    """Return the beginning of a text of somebody else's, without its secrets, at most ``limit`` bytes of it as JSON."""
    return cut(masked(cut(text, 2 * limit)), limit)  # a secret at the limit must not lose what it is known by


def cut(text: str, limit: int, *, end: bool = False) -> str:
    r"""Return a text cleaned and cut to ``limit`` bytes as JSON writes it.

    Args:
        text: of somebody else's, however long.
        limit: bytes between the quotation marks: a line break takes two of them.
        end: keep its end in place of its beginning.

    >>> cut("caf\udce9 noir", 6), cut("one\ntwo", 5, end=True)
    ('caf�', '\ntwo')
    """
    part = plain.clean_text(text[-limit:] if end else text[:limit])
    if len(_json(part)) - 2 <= limit:
        return part
    least = len(part)

    def size(length: int) -> int:
        return len(_json(part[least - length :] if end else part[:length])) - 2

    length = bisect_right(range(least + 1), limit, key=size) - 1
    return part[least - length :] if end else part[:length]


def masked(text: str) -> str:
    """Return a text of somebody else's, without its secrets."""
    return plain.masked(text, events.reporter.hides)
