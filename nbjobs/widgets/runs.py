"""The live card of several runs: how many are in which state, and each of them on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anywidget
import msgspec
import traitlets

from ..summary import Several
from ..view import RunView
from .acting import Controlled, later, reach_during_cells
from .card import Card
from .code import HERE, STUB, code, layout
from .outbox import outbox

__all__ = ["RunsCard"]

_BYTES_A_SECOND = 200_000  # that a card of very many runs may send


class _RunsCode(anywidget.AnyWidget):
    """The code of the cards of several runs."""

    _esm = HERE / "runs.js"
    _css = HERE / "runs.css"


class RunsCard(anywidget.AnyWidget):
    """A card that shows several runs, live. As the card of one run it tells the browser nothing but what it shows.

    The browser may ask for one thing: the card of one of the runs, shown below the cells.

    Args:
        several: the runs as they stand.
        runs: who is asked by the buttons of a run's own card; without it there are none.

    Attributes:
        run_ids: the runs, in the order in which they were enqueued.
        summary: what the card shows, as `nbjobs.summary` made it, and `sent`, the time (ms) when it left here.
        state: of all together; `card.observe(fn, "state")` hears of each change, in another thread.
        opened_run: the run whose own card is open, else "".
    """

    _esm = STUB
    code = anywidget.WidgetTrait().tag(sync=True)
    card_code = anywidget.WidgetTrait().tag(sync=True)
    summary = traitlets.Dict().tag(sync=True)
    opened = anywidget.WidgetTrait().tag(sync=True)
    opened_run = traitlets.Unicode().tag(sync=True)
    run_ids = traitlets.Tuple()
    state = traitlets.Unicode()

    def __init__(self, several: Several, runs: Sequence[Controlled] = (), **traits: Any) -> None:
        self._several = several
        self._runs = {run.id: run for run in runs}
        self.stop: Callable[[], None] = lambda: None  # ends what feeds it, with the card
        self._delivering = threading.Lock()
        self._each = 0.0
        traits.setdefault("layout", layout())
        codes = {"code": code(_RunsCode), "card_code": code()}
        super().__init__(**codes, run_ids=several.runs, **traits)
        self.on_msg(self._asked)
        reach_during_cells(self.comm)
        self.deliver()

    def feed(self, view: RunView) -> None:
        """Take the latest view of one of the runs, from any thread, and show it when the browser has time."""
        self._several.take(view)
        opened = self.opened
        if opened is not None and opened.run_id == view.run:
            opened.feed(view)
        if self._several.over:
            outbox().post_end(self)
        else:
            outbox().post(self, each=self._each)

    def deliver(self) -> None:
        """Set the summary anew: the only writer of the trait, one at a time."""
        with self._delivering:
            summary = self._several.summary()
            self._each = len(summary.cells) * 100 / _BYTES_A_SECOND
            self.summary = {**msgspec.to_builtins(summary), "sent": time.time_ns() // 1_000_000}
            self.state = summary.state

    def show(self, run: str) -> None:
        """Show the card of one of the runs below the cells; "" shows none."""
        if run == self.opened_run or (run and run not in self._several):
            return
        before = self.opened
        with self.hold_sync():
            self.opened = Card(self._several.view(run), self._runs.get(run)) if run else None
            self.opened_run = run
        if before is not None:
            before.close()

    def close(self) -> None:
        """Take the card away wherever it is shown."""
        self.stop()
        if self.opened is not None:
            self.opened.close()
        super().close()

    def _asked(self, _widget: object, content: object, _buffers: object) -> None:
        if isinstance(content, Mapping) and content.get("kind") == "open" and isinstance(content.get("run"), str):
            run = content["run"]
            later(lambda: self.show(run))

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Refuse what a page wants to set: what the card shows comes from the runs alone."""

    def __repr__(self) -> str:
        return f"<Card of {len(self._several)} runs: {self.state}>"
