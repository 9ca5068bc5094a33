"""What is known of a run's steps, between a continuation and whatever makes it durable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from .steps import Cursor, Step


class World(Protocol):
    """What a continuation asks of whatever carries it."""

    def checkpoint(self) -> str | None:
        """Make all that has happened durable; answer why the attempt is to stop, or None."""

    def is_time(self, now: float) -> bool:
        """Answer whether a loop's checkpoint is overdue at the monotonic time ``now``, and nobody else sees to it."""

    def is_due(self, now: float, share: float) -> bool:
        """Answer whether the next one is due at ``now``, if checkpoints may take ``share`` (0..1) of the time."""

    def happened(self, name: str, payload: dict[str, Any]) -> None:
        """Take note of an event; it becomes durable with the next checkpoint."""

    def kept(self, ordinal: int) -> Mapping[str, str]:
        """Return what is stored of the ``ordinal``-th step, a `step.map`: index → the codec's text; its ``name``."""


class Saved(NamedTuple):
    """A step that ended: its name, and the codec's text of its value, or None where it was not kept."""

    name: str
    value: str | None


class Ended(NamedTuple):
    """A step that ended in this attempt, on its way to the store."""

    name: str
    value: str | None
    done: int | None
    total: int | None
    duration: float


class Progress(NamedTuple):
    """What an attempt begins with: the steps that ended, and the one that was under way ('' for none)."""

    ended: tuple[Saved, ...] = ()
    step: str = ""
    cursor: Cursor = Cursor(None)
    done: int = 0
    total: int | None = None


class Running:
    """One step as its caller sees it, between begin and end. ``value`` is what the step is worth."""

    def __init__(self, step: Step | None, value: Any = None) -> None:
        self.step = step
        self.value = value
