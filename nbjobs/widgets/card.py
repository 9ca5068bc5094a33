"""The live card of one run: an anywidget whose whole content is the run's face."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import anywidget
import msgspec
import traitlets

from ..face import face
from ..view import ENDED, RunView
from .code import STUB, code, layout
from .outbox import outbox

__all__ = ["Card", "has_ended"]


class Card(anywidget.AnyWidget):
    """A card that shows one run, live, also while a cell keeps the kernel busy.

    The browser is told nothing but the run's id and its face: no address, no user, nothing of Redis.
    It in turn can set nothing.

    Attributes:
        run_id: the run's id.
        face: what the card shows, as `nbjobs.face.face` made it, and `sent`, the time (ms) when it left here.
        state: the state in the face; `card.observe(fn, "state")` hears of each change, in another thread.
    """

    _esm = STUB
    code = anywidget.WidgetTrait().tag(sync=True)
    run_id = traitlets.Unicode().tag(sync=True)
    face = traitlets.Dict().tag(sync=True)
    state = traitlets.Unicode()

    def __init__(self, view: RunView, **traits: Any) -> None:
        first = _face(view)
        self._latest = view
        self._delivering = threading.Lock()
        traits.setdefault("layout", layout())
        super().__init__(code=code(), run_id=view.run, face=first, state=view.state, **traits)

    def feed(self, view: RunView) -> None:
        """Take the run's latest view, from any thread, and show it when the browser has time.

        An end is on its way when this returns.
        """
        self._latest = view
        if has_ended(view):
            outbox().post_end(self)
        else:
            outbox().post(self)

    def deliver(self) -> None:
        """Set the face anew from the latest view: the only writer of the trait, one at a time."""
        with self._delivering:
            view = self._latest
            self.face = _face(view)
            self.state = view.state

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Refuse what a page wants to set: what the card shows comes from the run alone."""

    def __repr__(self) -> str:
        return f"<Card of run {self.run_id}: {self.state}>"


def has_ended(view: RunView) -> bool:
    """Whether nothing more is to be expected of the run."""
    return view.state in ENDED or view.state == "lost"


def _face(view: RunView) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(face(view))
    data["sent"] = time.time_ns() // 1_000_000
    return data
