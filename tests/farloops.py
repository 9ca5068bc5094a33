"""Loops in functions of another module than the body's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nbjobs.stepping import step


def work_through(name: str, rows: Iterable[Any], work: Callable[[Any], Any]) -> None:
    """Loop to the end."""
    for row in step.each(name, rows):
        work(row)


def first(name: str, rows: Iterable[Any]) -> Any:
    """Leave the loop by return."""
    for row in step.each(name, rows):
        return row
    return None


def handing_on(name: str, rows: Iterable[Any]) -> Iterator[Any]:
    """A generator around the loop."""
    yield from step.each(name, rows)


def held(name: str, rows: Iterable[Any], keep: list[Any]) -> Any:
    """Leave a loop whose iterator somebody keeps."""
    iterator = iter(step.each(name, rows))
    keep.append(iterator)
    for row in iterator:
        return row
    return None


def in_steps(done: list[str]) -> str:
    """Steps of a body that stands elsewhere."""
    step("far one", done.append, "one")
    return step("far two", "".join, done)
