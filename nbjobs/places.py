"""The place of a loop among its items: what is stored of it, and how it is found again.

A loop writes down what it needs for that, item by item. The cursor is made of it at a commit, by whoever commits.
Code of the user's is never called there: that may be another thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import codec
from .errors import CursorError
from .steps import Cursor, as_kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .steps import Step

_SHORT = 1000  # characters of a str that is a cursor without further looks


class Counted:
    """Outside a run: the count of items."""

    def standing(self, done: int) -> tuple[Cursor, int]:
        """See :class:`~nbjobs.steps.Place`."""
        return Cursor(done), done


class Indexed:
    """In a sequence of Python's own: an index, with the fingerprint of the item before it."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def standing(self, done: int) -> tuple[Cursor, int]:
        """See :class:`~nbjobs.steps.Place`."""
        if not 0 < done <= len(self._items):
            return Cursor(done or None), done
        return Cursor(done, fingerprint(self._items[done - 1])), done


class Passed:
    """In any other iterable: how many items to skip, with the fingerprint of the last one done.

    The loop writes ``step.done``, then ``last``, then ``at``, in this order.
    """

    __slots__ = ("_step", "at", "last")

    def __init__(self, step: Step) -> None:
        self._step = step
        #: The last item done, and how many were done with it.
        self.last: Any = None
        self.at = -1

    def standing(self, done: int) -> tuple[Cursor, int]:
        """See :class:`~nbjobs.steps.Place`."""
        if done == self._step.first:
            return self._step.stored, done
        at = self.at
        last = self.last  # behind `at`, as the loop writes it before
        if at != done or self._step.done != done:  # the loop went on meanwhile: which item that was is not sure
            return Cursor(done), done
        return Cursor(done, fingerprint(last)), done


class Marked:
    """Among items that are known by more than their number: the mark of the last one done, with its count."""

    __slots__ = ("_kind", "_step", "hand")

    def __init__(self, step: Step, kind: str) -> None:
        self._step = step
        self._kind = kind
        #: How many items are done, and the mark of the last of them; one object, as another thread reads it.
        self.hand: tuple[int, Any] | None = None

    def standing(self, done: int) -> tuple[Cursor, int]:
        """See :class:`~nbjobs.steps.Place`."""
        hand = self.hand
        if hand is None:
            return self._step.stored, self._step.first
        return Cursor(hand[1], self._kind), hand[0]


def fingerprint(item: Any) -> str | None:
    """Return an item's fingerprint. None for what has a dict or a list in it too: the body may have changed it."""
    try:
        hash(item)
    except TypeError:
        return None
    return codec.fingerprint(item)


def marking(value: Any, name: str, what: str) -> Any:
    """Return a key or a cursor behind an item as it can be stored.

    Raises:
        CursorError: it is None, no data, or has more than 8 KiB.
    """
    if type(value) is int or (type(value) is str and len(value) < _SHORT):
        return value
    if value is None:
        raise CursorError(f"{what} of step.each({name!r}) gave None, which means that nothing is done yet.")
    return as_kept(value)
