"""The sink that takes a body's own events to the stream of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import context

if TYPE_CHECKING:
    from ..events import Event


class StreamSink:
    """Hands each event that is notified inside a run to that run's attempt; elsewhere it does nothing.

    The names ``job.*`` are the framework's own: it writes those itself, in step with the run's state.
    """

    def emit(self, event: Event) -> None:
        """Take the event along with the attempt's next commit."""
        carrier = context.carrier()
        if carrier is not None and not event.name.startswith("job."):
            carrier.note(event)
