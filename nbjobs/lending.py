"""A body that waits for another run lends its place.

Two places and two bodies, each of them waiting for a run that it enqueued: without lending, nobody would
ever run those. So a child tells its worker before a body waits, and the worker starts one more child.
Where no child is involved (plain Python, the inline adapter) lending does nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Lender = Callable[[bool], None]
"""Called with True before the wait and with False after it, in the context of the waiting body."""

_lender: Lender | None = None


def set_lender(lender: Lender | None) -> None:
    """Names who is told when a body of this process waits; a child does this at its birth."""
    global _lender
    _lender = lender


@contextlib.contextmanager
def lent_place() -> Iterator[None]:
    """Lends this body's place while it waits for another run.

    Raises:
        RuntimeError: as many bodies wait already as places may be lent.
    """
    lender = _lender
    if lender is None:
        yield
        return
    lender(True)
    try:
        yield
    finally:
        lender(False)
