"""How a run becomes the output of a cell, and what of it is saved.

The output is a bundle: the live card, and the same as text, as HTML and as our own type, for those who
cannot show a widget. When the run ends the bundle is replaced, once, by one without the widget: so the
notebook keeps how the run ended and shows it also where no kernel is. A run that is opened again is shown live again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from uuid import uuid4

from IPython.core.interactiveshell import InteractiveShell
from msgspec.structs import replace

from ..details import details
from ..errors import RunLost
from ..face import face
from ..runview import lost
from ..stream import Watch, follower
from ..summary import Several, Summary
from ..view import RunView, empty
from . import saved
from .acting import Controlled
from .card import Card, has_ended
from .outbox import logger
from .runs import RunsCard

__all__ = ["MIME_TYPE", "MIME_TYPE_OF_ALL", "bundle", "bundle_of_all", "card", "card_of_all", "show", "show_all"]

MIME_TYPE = "application/vnd.nbjobs.run+json"
MIME_TYPE_OF_ALL = "application/vnd.nbjobs.runs+json"
WIDGET_TYPE = "application/vnd.jupyter.widget-view+json"
_BETWEEN_CELLS = 5.0  # s that a program may take from one cell to the next, for instance to save the notebook
Bundle = dict[str, Any]


class Shown(Controlled, Protocol):
    """What is asked of a run in order to show it."""

    @property
    def view(self) -> RunView:
        """The run as it stands now."""


def bundle(view: RunView, *, unfolded: bool = False) -> Bundle:
    """The run as it stands, in the forms that need neither a kernel nor a script of ours."""
    shown = face(view)
    # a worker's name has its host's in it: nothing for a file that is passed on
    attempts = tuple(replace(attempt, worker="") for attempt in view.attempts)
    html = saved.html(shown, details(replace(view, attempts=attempts)), unfolded=unfolded)
    return {"text/plain": saved.text(shown), "text/html": html, MIME_TYPE: {"run": view.run}}


def bundle_of_all(summary: Summary) -> Bundle:
    """As `bundle`, of several runs."""
    runs = sorted(summary.cells, key=lambda cell: cell.number)
    return {
        "text/plain": saved.text_of_all(summary),
        "text/html": saved.html_of_all(summary),
        MIME_TYPE_OF_ALL: {"runs": [cell.run for cell in runs]},
    }


def card(run: Shown) -> Card:
    """A live card of the run, to be displayed or put into a layout by the caller."""
    made = Card(run.view, run)
    made.stop = _follow([run], made.feed)
    return made


def card_of_all(runs: Sequence[Shown]) -> RunsCard:
    """A live card of several runs."""
    made = RunsCard(_several(runs), runs)
    made.stop = _follow(runs, made.feed)
    return made


def show(run: Shown) -> None:
    """Display the run as the output of the cell that runs now."""
    _show([run], _One(run))


def show_all(runs: Sequence[Shown]) -> None:
    """Display several runs as the output of the cell that runs now."""
    _show(runs, _All(runs))


def _show(runs: Sequence[Shown], subject: _One | _All) -> None:
    shell = InteractiveShell.instance()
    output = _Output(shell.display_pub, subject)
    events: Any = shell.events  # of no type before IPython 9
    events.register("pre_run_cell", output.repeat)
    _follow(runs, output.see)


class _One:
    """One run that is displayed."""

    def __init__(self, run: Shown) -> None:
        self._run = run
        self._view = run.view
        self._card: Card | None = None
        self._unfolded = False

    def take(self, view: RunView) -> None:
        self._view = view

    @property
    def over(self) -> bool:
        return has_ended(self._view)

    def bundle(self) -> Bundle:
        opened = self._card is not None and self._card.expanded
        self._unfolded = opened or (self.over and self._unfolded)  # who has it open at the end goes on reading
        return bundle(self._view, unfolded=self._unfolded)

    def card(self) -> Card:
        self._card = Card(self._view, self._run)
        return self._card


class _All:
    """Several runs that are displayed."""

    def __init__(self, runs: Sequence[Shown]) -> None:
        self._runs = runs
        self._several = _several(runs)
        self.take = self._several.take

    @property
    def over(self) -> bool:
        return self._several.over

    def bundle(self) -> Bundle:
        return bundle_of_all(self._several.summary())

    def card(self) -> RunsCard:
        return RunsCard(self._several, self._runs)


class _Output:
    """The output of the cell that showed runs: live while one is under way, else without a widget."""

    def __init__(self, publisher: Any, subject: _One | _All) -> None:
        self._publisher = publisher
        self._subject = subject
        self._transient = {"display_id": f"nbjobs-{uuid4().hex}"}
        self._card: Card | RunsCard | None = None
        self._updated = -math.inf
        self._published = self._bundle()
        publisher.publish(self._published, transient=self._transient)

    def see(self, view: RunView) -> None:
        """Show a run's latest view."""
        self._subject.take(view)
        if self._card is not None:
            self._card.feed(view)
        if self._subject.over or WIDGET_TYPE not in self._published:
            data = self._bundle()
            if data != self._published:
                self._published = data
                self._updated = time.monotonic()
                self._update()

    def repeat(self, info: object) -> None:
        """Say once more, as a cell begins, what was said a moment ago, perhaps between two cells.

        Programs that run notebooks (nbclient, papermill) take only what comes with the cell that they run.
        """
        if time.monotonic() - self._updated < _BETWEEN_CELLS:
            self._updated = -math.inf
            self._update()

    def _update(self) -> None:
        self._publisher.publish(self._published, transient=self._transient, update=True)

    def _bundle(self) -> Bundle:
        if self._subject.over:
            return self._subject.bundle()
        self._card = self._card or self._subject.card()
        widget: Bundle = (self._card._repr_mimebundle_() or ({}, {}))[0]
        return {**widget, **self._subject.bundle()}


def _several(runs: Sequence[Shown]) -> Several:
    return Several(_seen(run) for run in runs)


def _seen(run: Shown) -> RunView:
    try:
        return run.view
    except RunLost:
        return lost(empty(run.id))


def _follow(runs: Sequence[Shown], see: Callable[[RunView], None]) -> Callable[[], None]:
    """Let `see` have every view of the runs, from the follower's thread; return what ends that."""

    def guarded(view: RunView) -> None:
        try:
            see(view)
        except Exception:  # in a thread that is not the user's: neither end nor print
            logger.warning("The card of run %s could not be brought up to date", view.run, exc_info=True)

    watches: list[Watch] = []
    for user in dict.fromkeys(run.user for run in runs):
        watches += follower(user).watch_all([run.id for run in runs if run.user == user], guarded, rests=True)

    def stop() -> None:
        for watch in watches:
            watch.close()

    return stop
