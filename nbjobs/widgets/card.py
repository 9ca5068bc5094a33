"""The live card of one run: an anywidget whose whole content is the run's face."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import msgspec
import traitlets

from ..face import face
from ..view import ENDED, RunView
from .acting import Controlled, Controls, reach_during_cells
from .code import STUB, code, layout
from .outbox import outbox

__all__ = ["Card", "has_ended"]


class Card(anywidget.AnyWidget):
    """A card that shows one run, live, also while a cell keeps the kernel busy.

    The browser is told nothing but the run's id, its face and its details: no address, no user, nothing of Redis.
    It in turn can set nothing, and ask for what the buttons say.

    Args:
        view: the run as it stands.
        run: who is asked by the buttons; without it there are none.

    Attributes:
        run_id: the run's id.
        face: what the card shows, as `nbjobs.face.face` made it, and `sent`, the time (ms) when it left here.
        details: what the open card shows besides; empty while it is closed.
        state: the state in the face; `card.observe(fn, "state")` hears of each change, in another thread.
    """

    _esm = STUB
    code = anywidget.WidgetTrait().tag(sync=True)
    run_id = traitlets.Unicode().tag(sync=True)
    face = traitlets.Dict().tag(sync=True)
    details = traitlets.Dict().tag(sync=True)
    controlled = traitlets.Bool().tag(sync=True)
    state = traitlets.Unicode()

    def __init__(self, view: RunView, run: Controlled | None = None, **traits: Any) -> None:
        first = _face(view)
        self._latest = view
        self._delivering = threading.Lock()
        self.stop: Callable[[], None] = lambda: None  # ends what feeds it, with the card
        self._controls = Controls(run, self._refresh, self._answer) if run else None
        traits.setdefault("layout", layout())
        own = {"run_id": view.run, "face": first, "state": view.state, "controlled": run is not None}
        super().__init__(code=code(), **own, **traits)
        if self._controls:
            self.on_msg(self._hear)
            reach_during_cells(self.comm)

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
            self.details = self._controls.details(view) if self._controls else {}

    @property
    def expanded(self) -> bool:
        """Whether a browser shows the card's details."""
        return self._controls is not None and self._controls.expanded

    def close(self) -> None:
        """Take the card away wherever it is shown."""
        self.stop()
        if self._controls:
            self._controls.close()
        super().close()

    def _hear(self, _card: object, content: object, _buffers: object) -> None:
        assert self._controls is not None
        self._controls.hear(content)

    def _refresh(self) -> None:
        outbox().post(self)

    def _answer(self, key: int, refusal: str) -> None:
        self.send({"answer": key, "refusal": refusal})

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
