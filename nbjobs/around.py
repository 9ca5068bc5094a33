"""What is true around an event: tags for a block, context until it is cleared.

Kept in context variables, never changed in place: who goes on with a copy (a task, a thread started with it)
does not see later changes, and its own stay with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from .plain import safe_repr

TAGS_LIMIT = 16
TAG_LIMIT = 64

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_tags: ContextVar[Mapping[str, Any]] = ContextVar("nbjobs_tags", default=_NOTHING)
_context: ContextVar[Mapping[str, Any]] = ContextVar("nbjobs_context", default=_NOTHING)
_debugging: ContextVar[bool] = ContextVar("nbjobs_debugging", default=False)

tags = _tags.get
debugging = _debugging.get


def tagged(*tags: object, **values: Any) -> contextlib.AbstractContextManager[None]:
    """Tag all events in a ``with`` block, or in a function that this decorates; inner tags win.

    Args:
        *tags: a str is a tag that is True, a mapping gives its pairs, another object stands under the name of
            its class.
        **values: more tags; they win.

    Raises:
        ValueError: more than 16 tags, or one longer than 64 bytes.
    """
    resolved: dict[str, Any] = {}
    for tag in tags:
        if isinstance(tag, str):
            resolved[tag] = True
        elif isinstance(tag, Mapping):
            resolved.update({str(key): value for key, value in tag.items()})
        else:
            resolved[type(tag).__name__] = tag
    resolved.update(values)
    check_tags({**_tags.get(), **resolved})
    return _tagging(resolved)


@contextlib.contextmanager
def _tagging(more: Mapping[str, Any]) -> Iterator[None]:
    with _with(_tags, MappingProxyType(check_tags({**_tags.get(), **more}))):  # merged where the block begins
        yield


def check_tags(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Return tags as a dict, or raise ValueError where there are too many or one is too long."""
    if len(tags) > TAGS_LIMIT:
        raise ValueError(f"found {len(tags)} tags, at most {TAGS_LIMIT} are allowed: use the payload for more")
    for name, value in tags.items():
        for text in (name, value):
            size = len(text.encode("utf-8", "replace")) if isinstance(text, str) else 0
            if size > TAG_LIMIT:
                raise ValueError(
                    f"tag {safe_repr(name, TAG_LIMIT)} has {size} bytes, at most {TAG_LIMIT} are allowed: "
                    "use the payload for long texts"
                )
    return dict(tags)


def set_context(values: Mapping[str, Any] | None = None, /, **more: Any) -> Mapping[str, Any]:
    """Add to the context of all later events, until `clear_context`, and return the new context.

    Raises:
        TypeError: a key is no str.
    """
    given = {**(values or {}), **more}
    for key in given:
        if not isinstance(key, str):
            raise TypeError(f"key {safe_repr(key, 50)} of a context is of type {type(key).__name__}, expected a str")
    context = MappingProxyType({**_context.get(), **given})
    _context.set(context)
    return context


def clear_context() -> None:
    """Empty the context."""
    _context.set(_NOTHING)


def get_context() -> Mapping[str, Any]:
    """Return the context as it is now; it cannot be changed through what is returned."""
    return _context.get()


def with_debug() -> contextlib.AbstractContextManager[None]:
    """Turn `debug` on in a ``with`` block, for all reporters."""
    return _with(_debugging, True)


@contextlib.contextmanager
def isolated_context() -> Iterator[None]:
    """Begin a ``with`` block without tags and context, and restore both after it."""
    with _with(_tags, _NOTHING), _with(_context, _NOTHING):
        yield


@contextlib.contextmanager
def _with(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    previous = variable.get()
    variable.set(value)
    try:
        yield
    finally:
        variable.set(previous)  # no token: a generator may be ended in another context than it began in
