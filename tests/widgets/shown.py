"""Which texts of a view its surfaces show, by the marks in its schema, and views in which all of them are one text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec.structs import asdict, fields, replace

from nbjobs.intake import text
from nbjobs.runview import AttemptView, RunView, Shown, StepView

from .faces import views, with_past

PAST = ("failed", "completed", "resumed", "retrying")  # between them they show all there is
REASONS = ("after", "reason")  # words of our own as a rule: unknown ones are shown in few states
_NESTED = (StepView, AttemptView)


def marked(kind: type[msgspec.Struct]) -> Iterator[str]:
    """The places of texts that are marked as shown: ``job``, ``steps.name``, …"""
    return _places(kind, lambda found: found == Shown or Shown in getattr(found, "__args__", ()))


def texts(kind: type[msgspec.Struct]) -> Iterator[str]:
    """The places of all texts, marked or not."""
    return _places(kind, lambda found: "Annotated[str" in str(found) or found in (str, tuple[str, ...]))


def _places(kind: type[msgspec.Struct], wanted: Callable[[Any], bool], prefix: str = "") -> Iterator[str]:
    for field in fields(kind):
        for nested in _NESTED:
            if nested.__name__ in str(field.type):
                yield from _places(nested, wanted, f"{field.name}.")
        if wanted(field.type):
            yield prefix + field.name


def filled(view: RunView, places: set[str], given: str) -> RunView:
    """The view with one text, cleaned and cut as every text is on its way in, in each of the places."""
    clean = text(given)
    changes: dict[str, Any] = {}
    for name, value in asdict(view).items():
        if name in places:
            changes[name] = (clean,) * 3 if isinstance(value, tuple) else clean
        elif isinstance(value, tuple) and value and isinstance(value[0], _NESTED):
            inner = {place.partition(".")[2] for place in places if place.startswith(f"{name}.")}
            changes[name] = tuple(replace(one, **dict.fromkeys(inner, clean)) for one in value)
    return replace(view, **changes)


def bases() -> dict[str, RunView]:
    """Views of every state, some with a past, and those that show what they do not."""
    found = {**views(int(time.time() * 1000)), **{f"{name}, opened": with_past(name) for name in PAST}}
    resumed = found["resumed, opened"]
    by_cursor = tuple(replace(one, done=None, cursor="2024-02") for one in resumed.attempts)
    found["by cursor"] = replace(resumed, inner="epoch", inner_done=3, inner_total=9, attempts=by_cursor)
    found["failed, without an error"] = replace(found["failed"], error_type="", error_message="", after="bad data")
    return found
