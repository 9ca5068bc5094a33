"""``Runs``: several runs that were enqueued together."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Sequence
from typing import Any, overload

from . import stream
from .lending import lent_place
from .run import ENDED, Run, shown_by
from .view import RunView


class Runs(Sequence[Run]):
    """Runs in the order in which they were enqueued: what ``job.enqueue_all`` returns.

    As the last line of a cell they are shown as one live card.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = tuple(runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def as_completed(self, timeout: float | None = None) -> Iterator[Run]:
        """Yield the runs as they end, in any way.

        Args:
            timeout: seconds for all of them together; None waits as long as it takes.

        Raises:
            TimeoutError: not all have ended by then. They go on.
        """
        until = None if timeout is None else time.monotonic() + timeout
        ended: queue.SimpleQueue[str] = queue.SimpleQueue()

        def see(view: RunView) -> None:
            if view.state in ENDED:
                ended.put(view.run)

        waiting = {run.id: run for run in self._runs}
        watches = [stream.follower(run.user).watch(run.id, see) for run in self._runs]
        try:
            while waiting:
                left = None if until is None else max(0.0, until - time.monotonic())
                with lent_place():
                    found = _next(ended, left)
                if found is None:
                    raise TimeoutError(
                        f"{len(waiting)} of {len(self)} runs have not ended within {timeout} s; they go on."
                    )
                run = waiting.pop(found, None)  # a run that was opened again ends twice
                if run is not None:
                    yield run
        finally:
            for watch in watches:
                watch.close()

    def wait(self, timeout: float | None = None) -> Runs:
        """Wait until all have ended, in any way; raises as :meth:`as_completed`."""
        for _ in self.as_completed(timeout):
            pass
        return self

    def results(self, timeout: float | None = None) -> list[Any]:
        """Wait until all have ended, and return what they returned, in the order in which they were enqueued.

        Raises:
            RunFailed, RunCancelled, ResultNotKept: of the first run that has no result.
            TimeoutError: as :meth:`as_completed`.
        """
        self.wait(timeout)
        return [run.result() for run in self._runs]

    def card(self) -> Any:
        """Return a live card of them all, a widget."""
        return shown_by().card_of_all(self)

    def watch(self) -> None:
        """Show the runs in this terminal until they have ended; as `Run.watch`."""
        shown_by().watch(self)

    def _ipython_display_(self) -> None:
        shown_by().show_all(self)

    def __repr__(self) -> str:
        return f"<Runs {len(self)}>"


def _next(ended: queue.SimpleQueue[str], timeout: float | None) -> str | None:
    try:
        return ended.get(timeout=timeout)
    except queue.Empty:
        return None
