"""The sink that takes a body's own events to the stream of its run."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from .. import context

if TYPE_CHECKING:
    from ..events import Event

_log = logging.getLogger("nbjobs.events")


class StreamSink:
    """Hands each event that is notified inside a run to that run's attempt; elsewhere it does nothing.

    The names ``job.*`` are the framework's own: it writes those itself, in step with the run's state.

    A thread that a body starts begins without the body's context, so what it notifies belongs to no run. That is
    said once, in the log.
    """

    def __init__(self) -> None:
        self._said = False

    def emit(self, event: Event) -> None:
        """Take the event along with the attempt's next commit."""
        carrier = context.carrier()
        if event.name.startswith("job."):
            return
        if carrier is not None:
            carrier.note(event)
        elif not self._said and context.any_live() and threading.current_thread() is not threading.main_thread():
            self._said = True
            _log.warning(
                "Event %s of the thread %r is in no run's stream, though a job runs in this process: a thread begins "
                "without the context of who starts it. Start it with contextvars.copy_context().run as its target "
                "and the function as its first argument.",
                event.name,
                threading.current_thread().name,
            )
