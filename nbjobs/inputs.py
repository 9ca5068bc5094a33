"""What a loop can be given: sequences, other iterables, and objects that go on from a cursor of their own."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, MappingView, Sequence, Set, Sized
from typing import Any, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)

INDEXED = (list, tuple, range, str, bytes)


class Resumable(Protocol[T_co]):
    """A source that goes on from a cursor of its own, such as a table that is read in the order of an id.

    >>> class Pages:
    ...     def iter_from(self, cursor):
    ...         for page in range(cursor or 0, 3):
    ...             yield page + 1, f"page {page}"
    >>> from nbjobs import step
    >>> list(step.each("read", Pages()))
    ['page 0', 'page 1', 'page 2']
    """

    def iter_from(self, cursor: Any) -> Iterator[tuple[Any, T_co]]:
        """Yield each item that is left with the cursor behind it; ``cursor`` is None at the very first."""


class AsyncResumable(Protocol[T_co]):
    """The same for an ``async for``."""

    def aiter_from(self, cursor: Any) -> AsyncIterator[tuple[Any, T_co]]:
        """Yield each item that is left with the cursor behind it; ``cursor`` is None at the very first."""


def refuse(items: Any, what: str) -> None:
    """Refuse what gives no items, or not those that are meant, or not in the same order in another process.

    Args:
        items: what was given.
        what: to whom, for the message: ``step.each('load')``.

    Raises:
        TypeError: with the way out.
    """
    if is_resumable(items):
        return
    if isinstance(items, Set) and not isinstance(items, (Sequence, MappingView)):
        raise TypeError(
            f"{what} was given a {type(items).__name__}, which has no stable order, so a cursor into it "
            "means nothing in another process. Give it a sorted list: sorted(items)."
        )
    if hasattr(items, "itertuples") and hasattr(items, "iloc") and hasattr(items, "columns"):
        raise TypeError(
            f"{what} was given a DataFrame, whose iteration gives column names. "
            "Loop over its rows: frame.itertuples(), total=len(frame)."
        )
    if not isinstance(items, (Iterable, AsyncIterable)) and not is_array(items):
        raise TypeError(f"{what} was given a {type(items).__name__}, expected something to iterate over.")


def is_resumable(items: Any) -> bool:
    """Whether it goes on from cursors of its own."""
    return hasattr(items, "iter_from") or hasattr(items, "aiter_from")


def is_asynchronous(items: Any) -> bool:
    """Whether only an ``async for`` gets at the items."""
    if is_resumable(items):
        return not hasattr(items, "iter_from")
    return isinstance(items, AsyncIterable) and not isinstance(items, Iterable)


def has_async_form(items: Any) -> bool:
    """Whether an ``async for`` awaits the items."""
    return hasattr(items, "aiter_from") if is_resumable(items) else isinstance(items, AsyncIterable)


def is_array(items: Any) -> bool:
    """Whether it is a sequence in all but name, such as a NumPy array or a data set of torch."""
    labelled = isinstance(items, Mapping) or hasattr(items, "iloc")
    return hasattr(items, "__getitem__") and hasattr(items, "__len__") and not labelled


def length(items: Any) -> int | None:
    """How many items there are, where that is known."""
    return len(items) if isinstance(items, Sized) else None


def iterated(items: Any) -> Iterable[Any]:
    """Return the items of a sequence or of anything else, from the first on."""
    if isinstance(items, Iterable):
        return items
    return (items[index] for index in range(len(items)))
