"""Who looks at a run: watches with their callbacks, and those who wait for something to come true."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from .runview import ENDED, RunView
from .view import empty

__all__ = ["Callback", "Followed", "Predicate", "Watch"]

Callback = Callable[[RunView], object]
Predicate = Callable[[RunView], object]

_log = logging.getLogger("nbjobs.stream")


class _Waiter:
    """Somebody who waits for a view; each one is shown to it, so none is missed."""

    def __init__(self, predicate: Predicate) -> None:
        self.predicate = predicate
        self.met = threading.Event()
        self.view: RunView | None = None
        self.error: Exception | None = None

    def see(self, view: RunView) -> None:
        """Wake who waits if the view is the one."""
        if self.met.is_set():
            return
        try:
            if not self.predicate(view):
                return
            self.view = view
        except Exception as error:  # the predicate's own, raised again where it was given
            self.error = error
        self.met.set()


class Watch:
    """One look at one run. Its callback runs in the follower's thread: be quick, and never print.

    Attributes:
        run: the run's id.
        view: what was seen last; None before the first.
    """

    def __init__(
        self,
        run: str,
        callback: Callback | None,
        forget: Callable[[Watch], None],
        *,
        rests: bool = False,
        following: Callable[[], bool] = lambda: False,
    ) -> None:
        self.run = run
        self._following = following
        self.view: RunView | None = None
        self._rests = rests
        self._forget = forget
        self._callback = callback
        self._waiters: list[_Waiter] = []
        self._lock = threading.Lock()

    @property
    def resting(self) -> bool:
        """Whether it has seen the run's end and wants nothing but to hear that the run was opened again."""
        return self._rests and self.view is not None and (self.view.state in ENDED or self.view.state == "lost")

    def wait_for(self, predicate: Predicate, timeout: float | None = None) -> RunView | None:
        """Wait until a view satisfies the predicate; return that view, or None after timeout seconds.

        Raises:
            RuntimeError: nothing could come, as this is the thread that would show it.
        """
        waiter = _Waiter(predicate)
        with self._lock:
            if self.view is not None:
                waiter.see(self.view)
            self._waiters.append(waiter)
        try:
            if self._following() and not waiter.met.is_set():
                raise RuntimeError(
                    f"Run {self.run} was waited for in the thread that follows it, as a function that observes a card "
                    "is called there: it would wait for itself. Wait in a thread of your own."
                )
            waiter.met.wait(timeout)
        finally:
            with self._lock:
                self._waiters.remove(waiter)
        if waiter.error is not None:
            raise waiter.error
        return waiter.view

    def close(self) -> None:
        """Look no longer. The callback may be in its last call."""
        self._forget(self)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def see(self, view: RunView) -> None:
        """Show it a view; for the follower only."""
        if self._callback is not None:
            try:
                self._callback(view)
            except Exception:  # a surface's fault must not stop the others; nothing may be printed here
                _log.debug("A callback of run %s failed.", self.run, exc_info=True)
        # after the callback: who waits for the end finds the card drawn
        with self._lock:
            self.view = view
            for waiter in self._waiters:
                waiter.see(view)


class Followed:
    """A watched run: what is known of it, and how far it was read."""

    def __init__(self, run: str) -> None:
        self.watches: list[Watch] = []
        self.fresh: list[Watch] = []
        self.view = empty(run)
        self.last_id = "0-0"
        self.loaded = False
        self.seen = 0
        self.stirred = 0

    @property
    def resting(self) -> bool:
        """Whether all who watch the run have seen its end and rest."""
        return self.loaded and all(watch.resting for watch in self.watches)

    def show(self, view: RunView) -> None:
        """Show a new view to all that watch the run."""
        self.view = view
        for watch in tuple(self.watches):
            watch.see(view)
