"""Which attempt's body this is, for what is called from inside it."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .events import Event


class Carrier(Protocol):
    """What carries an attempt: it takes the body's own events along with the next commit."""

    @property
    def job(self) -> str:
        """The job's full name."""

    @property
    def run(self) -> str:
        """The run's id."""

    @property
    def attempt(self) -> int:
        """Which attempt it is: 1 for the first."""

    @property
    def began(self) -> int:
        """When it began: nanoseconds since 1970, as Redis has them."""

    @property
    def user(self) -> str:
        """Whose run it is."""

    @property
    def tags(self) -> Mapping[str, Any]:
        """The run's tags."""

    def note(self, event: Event) -> None:
        """Take an event of the body along."""


_carrier: ContextVar[Carrier | None] = ContextVar("nbjobs_carrier", default=None)

_live: list[Carrier] = []  # of all threads and tasks


def carrier() -> Carrier | None:
    """Return what carries the attempt whose body this is, or None outside a run."""
    return _carrier.get()


def any_live() -> bool:
    """Return whether the body of any attempt runs in this process now."""
    return bool(_live)


@contextlib.contextmanager
def carried_by(it: Carrier) -> Iterator[None]:
    """Make ``it`` the carrier inside the ``with`` block."""
    token = _carrier.set(it)
    _live.append(it)
    try:
        yield
    finally:
        _live.remove(it)
        _carrier.reset(token)
