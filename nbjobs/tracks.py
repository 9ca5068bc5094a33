"""Inner loops that are shown and have no cursor: ``step.track``."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from .inputs import length
from .steps import Inner, Step

T = TypeVar("T")


class Track(Generic[T]):
    """The items of an inner loop, in a ``for`` or an ``async for``; see ``step.track``."""

    def __init__(self, items: Any, step: Step | None, *, total: int | None, name: str) -> None:
        self._items = items
        self._step = step
        self._total = total if total is not None else length(items)
        self._name = name

    def __iter__(self) -> Iterator[T]:
        step, items = self._step, self._items
        if not isinstance(items, Iterable):
            raise TypeError(f"step.track was given a {type(items).__name__}, expected something to iterate over.")
        if step is None:
            return iter(items)
        return self._iterate(step, items)

    def _iterate(self, step: Step, items: Iterable[T]) -> Iterator[T]:
        step.inner = inner = Inner(self._name, self._total, step.inner)
        done = 0
        try:
            for item in items:
                yield item
                done += 1
                inner.done = done
        finally:
            step.inner = inner.outer

    async def __aiter__(self) -> AsyncIterator[T]:
        step, items = self._step, self._items
        inner = Inner(self._name, self._total, step.inner if step is not None else None)
        if step is not None:
            step.inner = inner
        try:
            if isinstance(items, AsyncIterable):
                async for item in items:
                    yield item
                    inner.done += 1
            else:
                for item in items:
                    yield item
                    inner.done += 1
        finally:
            if step is not None:
                step.inner = inner.outer
