"""Steps and their cursors.

A :class:`Step` is the piece of a job that is running now: its name and its *cursor*, the place where the
next attempt begins if this one ends early. What a cursor means is the job's business: an index, an id, a date.

The rule of the whole module is that a cursor says **where to start next time**, not what was done last, and
that setting it costs almost nothing: the value is kept here, and is written to Redis by the attempt that holds the
run, several times a second. A loop therefore only writes a number and compares it with another, :attr:`Step.due`; it
reads the clock there, about once in a millisecond, as tqdm's ``miniters`` does. (`Step.set` reads it each time.) A
thread looks as well and raises a flag, which makes the loop due at once. Alone it would come too late: a body whose
system calls are short and less than 5 ms apart keeps the interpreter from all its other threads, for seconds, since
CPython begins their wait for its lock anew at each call. (``make bench`` prints the cadence, beside tqdm's cost.)

Cursors and ``advance!(from:)`` come from Rails' ``ActiveJob::Continuation::Step``.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol

from . import shown
from .cursors import COUNT, ITER_FROM, KEY, MAP, Cursor, as_kept, check_cursor, pack_cursor, successor, unpack_cursor
from .errors import ContinuationError

__all__ = [
    "COUNT",
    "ITER_FROM",
    "KEY",
    "MAP",
    "Cursor",
    "Inner",
    "Item",
    "Nowhere",
    "Owner",
    "Place",
    "Step",
    "as_kept",
    "check_cursor",
    "in_item",
    "pack_cursor",
    "plain",
    "successor",
    "unpack_cursor",
]

_AT_ONCE, _NEVER = 1 - (1 << 30), (1 << 30) - 1  # below and above what is counted: Python is fast with such ints
_LOOK = 0.001  # seconds between two looks at the clock, about
_STRIDE = 1000  # items between them, at most: those that follow may be much slower


class Owner(Protocol):
    """What a step knows of the run it belongs to."""

    run_id: str
    fence: int

    def reach(self, step: Step) -> None:
        """Make what ``step`` has done durable, and raise ``Interrupt`` where the attempt is to stop."""

    def is_time(self, now: float) -> bool:
        """Answer whether what was done last has become durable long enough before the monotonic time ``now``."""


class Place(Protocol):
    """How a loop's place among its items is computed at a commit, so that no item pays for it."""

    def standing(self, done: int) -> tuple[Cursor, int]:
        """Return a cursor and the count of items done that belong together; ``done`` is the count just read.

        Called by other threads too, while the loop goes on.
        """


class Inner:
    """How far an inner loop is. The step knows the innermost; each knows the one around it."""

    __slots__ = ("done", "name", "outer", "total")

    def __init__(self, name: str, total: int | None, outer: Inner | None) -> None:
        self.name = name
        self.total = total
        self.outer = outer
        self.done = 0

    def standing(self) -> tuple[str, int, int | None]:
        """Return name, count and total, as they are shown."""
        return self.name, self.done, self.total


class Step:
    """The step that is running: ``nbjobs.step.current``.

    Attributes:
        name: its name, unique in the run.
        done: how many items of a ``step.each`` are finished, over all attempts.
        total: how many there will be, or None where that is not known. May be set by the body.
        resumed: whether this attempt found the step half done.
    """

    __slots__ = (
        "_count",
        "_looked",
        "_number",
        "_other",
        "_owner",
        "_raised",
        "_start",
        "done",
        "due",
        "first",
        "inner",
        "item",
        "name",
        "place",
        "resumed",
        "stored",
        "total",
    )

    def __init__(
        self, name: str, owner: Owner, *, start: Cursor, done: int = 0, total: int | None = None, resumed: bool = False
    ) -> None:
        self.name = name
        self.done = done
        self.total = total
        self.resumed = resumed
        #: From this count of items on a loop looks whether to commit.
        self.due = _AT_ONCE
        self._raised = False
        self._number, self._other = _NEVER, start.value
        self._count, self._looked = done, time.monotonic()  # at the last look
        self._put(start.value)
        #: Of a loop.
        self.place: Place | None = None
        #: What names the item in hand, in a loop that knows its items by more than their number.
        self.item: Any = None
        #: The innermost loop of `step.track` that is under way.
        self.inner: Inner | None = None
        self._owner = owner
        self._start = (done, start.value)
        #: How many items were done when this attempt began.
        self.first = done
        #: The cursor that this attempt began with.
        self.stored = start

    def recount(self, done: int) -> None:
        """Begin this attempt with another count than was stored."""
        self.done = self.first = done
        self._start = (done, self._start[1])

    def _put(self, value: Any) -> None:
        if type(value) is int and _AT_ONCE < value < _NEVER:
            self._number = value
        else:
            self._other = value  # before the number says that it counts: other threads read it
            self._number = _NEVER

    @property
    def value(self) -> Any:
        """What the cursor was set to; the same object until it moves."""
        number = self._number
        return self._other if number is _NEVER else number

    def _counted(self) -> int:
        """How far it is, for `is_due`; a cursor that is no number is taken for the next item."""
        return self._count + 1 if self._number is _NEVER else self._number

    @property
    def flag(self) -> bool:
        """Whether the next finished item is committed at once. Raised by any thread; stays up after the end."""
        return self._raised

    @flag.setter
    def flag(self, raised: bool) -> None:
        if raised:
            self._raised = True
            self.due = _AT_ONCE  # the latter, see `is_due`
        else:
            self.due = self._count
            self._raised = False

    def is_due(self, count: int) -> bool:
        """Answer whether to commit now, for a loop that has come to `due`; where not, that moves on.

        Args:
            count: how many items are done.
        """
        now = time.monotonic()
        items, passed = count - self._count, now - self._looked
        self._count, self._looked = count, now
        if self._raised or self._owner.is_time(now):
            return True
        stride = int(items * _LOOK / passed) if passed > 0 else _STRIDE
        self.due = count + max(0, min(stride, _STRIDE))
        if self._raised:  # meanwhile, by another thread
            self.due = _AT_ONCE
        return False

    @property
    def cursor(self) -> Any:
        """Where the next attempt would go on; None before anything was set."""
        return self.value if self.place is None else self.place.standing(self.done)[0].value

    def reading(self) -> tuple[int, Any]:
        """Return its count and its cursor as they are now: all that a commit says is made of one reading."""
        return self.done, self.value

    @property
    def advanced(self) -> bool:
        """Whether the cursor has moved in this attempt."""
        return self.has_moved_to(self.reading())

    def has_moved_to(self, reading: tuple[int, Any]) -> bool:
        """Whether the cursor had moved in this attempt when that was read."""
        return bool(reading != self._start)

    @property
    def key(self) -> str:
        """A name for the item in hand that is the same on every attempt.

        Give it to an outside service as its idempotency key: an item that is done again after a crash is then
        recognised there.
        """
        item = self.value if self.place is None else self.done if self.item is None else self.item
        text = item if isinstance(item, (int, str)) else check_cursor(item)
        return f"{self._owner.run_id}:{self.name}:{text}"

    @property
    def fence(self) -> int:
        """A number that rises with every attempt.

        A store that compares it refuses what a worker that was taken for dead still writes.
        """
        return self._owner.fence

    def set(self, cursor: Any) -> None:
        """Go on at ``cursor`` next time.

        Raises:
            CursorError: it is not data, or has more than 8 KiB; the old cursor stays.
        """
        self._put(as_kept(cursor))
        if self.is_due(self._counted()):
            self._owner.reach(self)

    def advance(self, from_: Any = None) -> None:
        """Go on after ``from_`` next time: the cursor becomes its successor.

        Args:
            from_: the item that is done; without it the cursor itself moves on by one.

        Raises:
            UnadvanceableCursorError: the value has no successor; the old cursor stays.

        >>> from nbjobs import step
        >>> def load():
        ...     for row in range(100, 103):
        ...         step.current.advance(row)
        ...     return step.current.cursor
        >>> step("load", load)
        103
        """
        number = self._number
        if from_ is None and number < self.due:  # a loop's case, and its speed
            self._number = number + 1
            return
        from_ = self.value if from_ is None else from_
        self._put(from_ + 1 if type(from_) is int else as_kept(successor(from_)))
        if self._number >= self.due and self.is_due(self._counted()):
            self._owner.reach(self)

    def checkpoint(self) -> None:
        """Commit now what was done: it is durable when this returns. May end the attempt (a deploy, a cancel)."""
        self._owner.reach(self)

    def standing(self, reading: tuple[int, Any] | None = None) -> tuple[Cursor, int | None]:
        """Return the cursor and the count of items done that belong together, for a commit."""
        done, value = reading or self.reading()
        if self.place is not None:
            return self.place.standing(done)
        if done and value is self.stored.value:  # a loop that goes on, and has not yet found its place
            return self.stored, done
        counted = type(value) is int and self.total is not None
        return Cursor(value), value if counted else None

    def __repr__(self) -> str:
        return f"<Step {self.name!r} cursor={self.cursor!r} resumed={self.resumed}>"

    @property
    def description(self) -> str:
        """Where it stands, in words.

        >>> Step("load", None, start=Cursor(5)).description
        "at 'load', cursor 5"
        """
        return f"at {self.name!r}, cursor {shown.value(self.cursor, 60)}"


class Nowhere:
    """The owner of a step outside a run: nothing is kept, nothing stops."""

    run_id = "no-run"
    fence = 0
    accepted = True

    def reach(self, step: Step) -> None:
        """Do nothing."""

    def is_time(self, now: float) -> bool:
        """Never."""
        return False

    def changed(self, message: str, *, stored: str, found: str) -> NoReturn:
        """Never called: nothing is stored that could have changed."""
        raise AssertionError(message)


#: The step that is running outside a run, where a job or a step is called as the function that it is.
plain: ContextVar[Step | None] = ContextVar("nbjobs_plain_step", default=None)


class Item(Step):
    """An item of a `step.map`, as the function that works on it sees the step.

    Attributes:
        children: how many runs it has enqueued.
    """

    __slots__ = ("children",)

    def __init__(self, name: str, owner: Owner, index: int, total: int | None = None) -> None:
        super().__init__(name, owner, start=Cursor(index), total=total)
        self.children = 0

    def set(self, cursor: Any) -> None:
        """Refuse: an item is done or it is not.

        Raises:
            ContinuationError: always.
        """
        raise ContinuationError(
            f"An item of step.map({self.name!r}) has no cursor that could be moved: it is done when the function "
            "returns. For items that go on where they were left, loop over step.each."
        )

    def advance(self, from_: Any = None) -> None:
        """Refuse as :meth:`set` does."""
        self.set(from_)


#: The item of a `step.map` in hand, in the thread or process that works on it.
in_item: ContextVar[Item | None] = ContextVar("nbjobs_item", default=None)
