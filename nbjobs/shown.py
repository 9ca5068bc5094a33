"""What people are shown of values and errors: one safe line, or a few, without what can be told to be a secret.

Names are judged as those of parameters are, by `EventReporter.filter_parameters` of the default reporter.
"""

from __future__ import annotations

from typing import Any

from . import events, plain

MESSAGE_LIMIT = 4096


def value(found: Any, width: int = 200) -> str:
    """Return one line that shows a value.

    >>> print(value({"rows": 3, "password": "hunter2"}))
    {'password': [FILTERED], 'rows': 3}
    """
    return masked(plain.preview(found, width))


def message(error: BaseException) -> str:
    """Return the text of an error.

    >>> message(ConnectionError("no answer of postgres://ada:hunter2@db/shop"))
    'no answer of postgres://ada:[FILTERED]@db/shop'
    """
    try:
        text = str(error)
    except Exception as failure:  # of the user's class: it may fail in any way
        text = f"(its text raised {type(failure).__name__})"
    return masked(text[:MESSAGE_LIMIT])


def masked(text: str) -> str:
    """Return a text of somebody else's, without its secrets."""
    return plain.masked(text, events.reporter.hides)
