"""``Run``: one job that was enqueued, as its owner holds it.

A run lives in Redis, not in this object: any kernel finds it again by its id with :func:`attach`, and a deleted
variable, a restarted kernel or a closed laptop change nothing for it.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from typing import Any, Protocol

from . import connection, control, history, phrases, stream
from .errors import RunLost
from .events import Event
from .history import Gap, LogLine
from .intake import whole
from .keys import Keys, check_run_id
from .lending import lent_place
from .results import outcome
from .runview import shown_state
from .settings import current
from .store import Store
from .view import RunView

ENDED = frozenset({"completed", "failed", "cancelled", "dead", "lost"})


class Surface(Protocol):
    """How runs are shown; the package puts it in place."""

    def card(self, run: Run) -> Any:
        """Return a live card."""

    def card_of_all(self, runs: Sequence[Run]) -> Any:
        """Return a live card of several runs."""

    def show(self, run: Run) -> None:
        """Display the run as a cell's output."""

    def show_all(self, runs: Sequence[Run]) -> None:
        """Display several runs as a cell's output."""

    def watch(self, runs: Sequence[Run]) -> None:
        """Show runs in a terminal until they have ended."""


surface: Surface | None = None


def shown_by() -> Surface:
    """Return how runs are shown."""
    if surface is None:
        raise RuntimeError("The card is put in place by the package: import nbjobs, not nbjobs.run alone.")
    return surface


class Run:
    """A job that was enqueued.

    As the last line of a cell it is shown as a live card. ``await run`` is its result.

    Attributes:
        id: the run's id; :func:`nbjobs.attach` takes it in any process.
        user: whose run it is.
    """

    def __init__(self, id: str, *, user: str | None = None) -> None:
        self.id = check_run_id(id)
        self.user = user or current().user
        self._keys = Keys(self.user)

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """The state now, asked from Redis.

        One of ``scheduled queued running retrying pausing paused cancelling`` and the ends ``completed failed
        cancelled dead``; ``lost`` where Redis no longer has the run.
        """
        client: Any = connection.client()
        with connection.translated(client):
            pipe = client.pipeline(transaction=False)
            (state, at), (seconds, micros) = pipe.hmget(self._keys.run(self.id), "state", "at").time().execute()
        return shown_state(state or "", whole(at) or 0, seconds * 1000 + micros // 1000)

    async def astate(self) -> str:
        """As ``state``, without blocking the event loop."""
        return await asyncio.to_thread(lambda: self.state)

    @property
    def view(self) -> RunView:
        """Everything that a card shows, as it stands now.

        Raises:
            RunLost: Redis no longer has the run.
        """
        loaded = stream.load(connection.client(), self._keys, self.id)
        if loaded is None:
            raise self._lost()
        return loaded.view

    def events(self, start: str | Event | None = None, *, follow: bool = False) -> Iterator[Event | Gap]:
        """Return the run's events that are kept, oldest first; a `Gap` stands where some are missing.

        Args:
            start: go on behind this event, or behind the one of this id.
            follow: go on with those that come, until the run has ended.
        """
        return history.events(connection.client(), self._keys, self.id, start, follow=follow)

    def aevents(self, start: str | Event | None = None, *, follow: bool = False) -> AsyncIterator[Event | Gap]:
        """As ``events``, for ``async for``."""
        return history.aevents(self._keys, self.id, start, follow=follow)

    def logs(self, *, follow: bool = False) -> Iterator[LogLine | Gap]:
        """Return what the body has printed and logged, as far as it is kept, oldest first.

        That is stdout and stderr, also of C code and of programs that it starts, `logging` from INFO on, and
        `warnings`; of an async body what goes through Python. A `Gap` stands where lines are missing. The last lines
        of a run come a moment after its end, since its worker writes them; for these it waits, a second at most.

        Args:
            follow: go on with those that come, until the run has ended.
        """
        return history.logs(connection.client(), self._keys, self.id, follow=follow)

    def alogs(self, *, follow: bool = False) -> AsyncIterator[LogLine | Gap]:
        """As ``logs``, for ``async for``."""
        return history.alogs(self._keys, self.id, follow=follow)

    def wait(self, timeout: float | None = None) -> Run:
        """Wait for the run's end, in any way; return the run.

        A job that waits for another run lends that run its place among the worker's processes. Where the run cannot
        begin until somebody does something about its worker, a warning says so.

        Args:
            timeout: seconds to wait at most; None waits as long as it takes.

        Raises:
            TimeoutError: it has not ended by then. It goes on.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with lent_place(), stream.follower(self.user).watch(self.id) as watch:
            view = watch.wait_for(lambda view: _has_ended(view) or bool(phrases.hindrance(view)), timeout)
            if view is not None and not _has_ended(view):
                self._warn(view)
                view = watch.wait_for(_has_ended, None if until is None else max(0.0, until - time.monotonic()))
            if view is None:
                raise TimeoutError(f"Run {self.id} has not ended within {timeout} s; it is {self.state} and goes on.")
        return self

    async def await_end(self, timeout: float | None = None) -> Run:
        """As ``wait``, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        warned = False

        def see(view: RunView) -> None:
            nonlocal warned
            if _has_ended(view):
                loop.call_soon_threadsafe(ended.set)
            elif phrases.hindrance(view) and not warned:
                warned = True
                loop.call_soon_threadsafe(self._warn, view)

        with lent_place(), stream.follower(self.user).watch(self.id, see):
            await asyncio.wait_for(ended.wait(), timeout)
        return self

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return what the job returned.

        Raises:
            RunFailed: it failed or is dead; the error's type, message and traceback are its attributes.
            RunCancelled: it was cancelled.
            ResultNotKept: it completed, and what it returned is no data or has more than 1 MiB.
            RunLost: Redis no longer has the run.
            TimeoutError: it has not ended within ``timeout`` seconds.
        """
        self.wait(timeout)
        return self._outcome()

    async def aresult(self, timeout: float | None = None) -> Any:
        """As ``result``, without blocking the event loop."""
        await self.await_end(timeout)
        return await asyncio.to_thread(self._outcome)

    def __await__(self) -> Generator[Any, None, Any]:
        return self.aresult().__await__()

    # -- control -------------------------------------------------------------------------------------------------

    def cancel(self, *, now: bool = False) -> str:
        """End the run; its progress is kept. Return the state that comes of it.

        A running body stops at its next checkpoint; one that does not within the grace (25 s) is ended with its
        process. A run that has ended already stays as it is.

        Args:
            now: end the process at once.
        """
        return control.ask(self.user, self.id, "now" if now else "cancel")

    def pause(self) -> str:
        """Stop the run after the item in hand and keep its progress; it goes on with ``unpause``.

        Raises:
            RunEnded: there is nothing left to pause.
        """
        return control.ask(self.user, self.id, "pause")

    def unpause(self) -> str:
        """Let a paused run go on.

        Raises:
            RunEnded: it has ended.
        """
        return control.ask(self.user, self.id, "unpause")

    def accept(self) -> str:
        """Go on although code or data have changed, with what of the stored progress still fits.

        Steps are found by their names: those that ended are skipped where they are met, those that are new run. A loop
        goes on at its index.

        Raises:
            RunEnded: it has ended.
        """
        return control.ask(self.user, self.id, "accept")

    def restart(self) -> str:
        """Let a paused run begin again, with no progress. What it enqueues are new runs too.

        Raises:
            RunEnded: it has ended.
        """
        return control.ask(self.user, self.id, "restart")

    def retry(self, from_step: str | None = None) -> str:
        """Open a run that failed, died or was cancelled, and let it go on from its cursor.

        A run that its body has enqueued and that ended without a result is opened too, when the body enqueues it again;
        one that completed keeps its result. With ``from_step`` the body enqueues new runs.

        Args:
            from_step: begin again at this step, forgetting its progress and that of all after it.

        Raises:
            RunEnded: it has completed.
            InvalidStepError: it has no such step.
        """
        return control.reopen(self.user, self.id, from_step)

    async def acancel(self, *, now: bool = False) -> str:
        """As ``cancel``, without blocking the event loop."""
        return await asyncio.to_thread(lambda: self.cancel(now=now))

    async def apause(self) -> str:
        """As ``pause``, without blocking the event loop."""
        return await asyncio.to_thread(self.pause)

    async def aunpause(self) -> str:
        """As ``unpause``, without blocking the event loop."""
        return await asyncio.to_thread(self.unpause)

    async def aaccept(self) -> str:
        """As ``accept``, without blocking the event loop."""
        return await asyncio.to_thread(self.accept)

    async def arestart(self) -> str:
        """As ``restart``, without blocking the event loop."""
        return await asyncio.to_thread(self.restart)

    async def aretry(self, from_step: str | None = None) -> str:
        """As ``retry``, without blocking the event loop."""
        return await asyncio.to_thread(self.retry, from_step)

    # -- showing -------------------------------------------------------------------------------------------------

    def card(self) -> Any:
        """Return the run's live card, a widget."""
        return shown_by().card(self)

    def watch(self) -> None:
        """Show the run in this terminal until it has ended, in place.

        Ctrl-C ends the watching, not the run. Where the output is no terminal, each change is a line.
        """
        shown_by().watch([self])

    def _ipython_display_(self) -> None:
        shown_by().show(self)

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    # -- helpers -------------------------------------------------------------------------------------------------

    def _warn(self, view: RunView) -> None:
        warnings.warn(f"Run {self.id} of {view.job} waits: {phrases.hindrance(view)}.", stacklevel=3)

    def _read(self, *names: str) -> Sequence[str | None]:
        return Store(connection.client(), self.user, current()).read(self.id, *names)

    def _outcome(self) -> Any:
        state, result, error = self._read("state", "result", "error")
        if state is None:
            raise self._lost()
        return outcome(self.id, state, result or "", error or "")

    def _lost(self) -> RunLost:
        days = current().keep / 86_400
        return RunLost(
            f"Redis has no run {self.id} of {self.user}: it ended more than {days:g} days ago, or Redis lost it.",
            run=self.id,
        )


def _has_ended(view: RunView) -> bool:
    return view.state in ENDED
