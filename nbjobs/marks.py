"""Items with what a loop has to know of each: its mark, and how many it counts for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, NamedTuple

from . import resuming
from .errors import ContinuationError
from .inputs import has_async_form, is_resumable
from .places import marking
from .resuming import Judge
from .steps import COUNT, ITER_FROM, KEY, Step

MarkedItem = tuple[Any, int, Any]
"""Mark, number of items, and the item: or the list of items of a batch, with the mark of its last one."""


class Loop(NamedTuple):
    """What ``step.each`` was asked for."""

    name: str
    items: Any
    total: int | None = None
    every: int | None = None
    key: Callable[[Any], Any] | None = None
    batch: int | None = None

    @property
    def kind(self) -> str:
        """Of its cursor."""
        if is_resumable(self.items):
            return ITER_FROM
        return KEY if self.key is not None else COUNT

    @property
    def is_plain(self) -> bool:
        """Whether its items are handed on one by one and counted."""
        return self.kind == COUNT and self.batch is None

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a number below 1; a key beside cursors of its own.
            TypeError: a key that is no function.
        """
        for what, number in (("every", self.every), ("batch", self.batch)):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise ValueError(f"step.each({self.name!r}, {what}={number!r}): expected a whole number from 1 on")
        if self.key is None:
            return
        if not callable(self.key):
            raise TypeError(
                f"step.each({self.name!r}, key={self.key!r}): expected a function that gives an item's key, such as "
                "`lambda row: row.id`"
            )
        if is_resumable(self.items):
            raise ValueError(
                f"step.each({self.name!r}) was given both key= and a {type(self.items).__name__}, whose iter_from "
                "gives cursors of its own. Leave key= out: the cursor that comes with an item is its mark."
            )


def marked(loop: Loop, run: Judge, step: Step) -> Iterator[MarkedItem]:
    """Yield the items that are left to do."""
    name = loop.name
    if loop.kind == ITER_FROM:
        found = _with_cursors(loop.items.iter_from(step.stored.value), name)
    elif loop.key is not None:
        found = _with_keys(resuming.behind_key(run, loop.items, step, loop.key), loop.key, name)
    else:
        found = ((item, 1, item) for item in resuming.left(run, loop.items, step))
    return found if loop.batch is None else _batches(found, loop.batch)


def _with_cursors(pairs: Iterable[Any], name: str) -> Iterator[MarkedItem]:
    for pair in pairs:
        cursor, item = _checked(pair, name)
        yield cursor, 1, item


def _with_keys(items: Iterable[Any], key: Callable[[Any], Any], name: str) -> Iterator[MarkedItem]:
    for item in items:
        mark = key(item)
        yield mark if type(mark) is int else marking(mark, name, "key="), 1, item


def _batches(found: Iterable[MarkedItem], size: int) -> Iterator[MarkedItem]:
    batch: list[Any] = []
    mark = None
    for mark, _, item in found:
        batch.append(item)
        if len(batch) == size:
            yield mark, size, batch
            batch = []
    if batch:
        yield mark, len(batch), batch


def _checked(pair: Any, name: str) -> tuple[Any, Any]:
    try:
        cursor, item = pair
    except (TypeError, ValueError):
        raise ContinuationError(
            f"iter_from of step.each({name!r}) gave a {type(pair).__name__}, expected pairs: the cursor behind the "
            "item, and the item."
        ) from None
    return (cursor if type(cursor) is int else marking(cursor, name, "iter_from")), item


async def amarked(loop: Loop, run: Judge, step: Step) -> AsyncIterator[MarkedItem]:
    """Yield the items that are left to do, also of an asynchronous source."""
    if not has_async_form(loop.items):
        for one in marked(loop, run, step):
            yield one
        return
    batch: list[Any] = []
    mark = None
    async for mark, item in _apairs(loop, run, step):
        if loop.batch is None:
            yield mark, 1, item
            continue
        batch.append(item)
        if len(batch) == loop.batch:
            yield mark, loop.batch, batch
            batch = []
    if batch:
        yield mark, len(batch), batch


async def _apairs(loop: Loop, run: Judge, step: Step) -> AsyncIterator[tuple[Any, Any]]:
    if loop.kind == ITER_FROM:
        async for pair in loop.items.aiter_from(step.stored.value):
            yield _checked(pair, loop.name)
        return
    source = loop.items.__aiter__()
    if loop.key is None:
        await resuming.askipped(run, source, step)
    elif step.stored.value is not None:
        source = await _abehind_key(loop, run, step, source)
    async for item in source:
        yield (marking(loop.key(item), loop.name, "key=") if loop.key else item), item


async def _abehind_key(loop: Loop, run: Judge, step: Step, source: AsyncIterator[Any]) -> AsyncIterator[Any]:
    assert loop.key is not None
    async for item in source:
        if loop.key(item) == step.stored.value:
            return source
    again: AsyncIterator[Any] = loop.items.__aiter__()
    resuming.check_key(run, step, again=again is not source)
    return again
