"""What a job does around each attempt: ``before_perform``, ``after_perform``, ``around_perform``.

They run where the body runs, on every attempt, outside its steps. An error in one of them counts as the body's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Attempted(NamedTuple):
    """The attempt that a callback is called for.

    Attributes:
        run: the run's id.
        user: whose run it is.
        attempt: 1 for the first.
        resumptions: how many attempts began with progress, this one included; 0 where it begins with none.
    """

    run: str
    user: str
    attempt: int
    resumptions: int


Callback = Callable[[Attempted], Any]
Around = Callable[[Attempted], Iterator[Any]]


class Callbacks:
    """The callbacks of one job, in the order in which they were declared."""

    def __init__(self) -> None:
        self.before: list[Callback] = []
        self.after: list[Callback] = []
        self.around: list[Around] = []

    @contextlib.contextmanager
    def performing(self, attempted: Attempted) -> Iterator[None]:
        """Run the ``with`` block as the body: within what is around it, behind what is before it."""
        with contextlib.ExitStack() as stack:
            for around in self.around:
                stack.enter_context(contextlib.contextmanager(around)(attempted))
            for before in self.before:
                before(attempted)
            yield
            for after in self.after:
                after(attempted)
