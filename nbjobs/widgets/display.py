"""How a run becomes the output of a cell, and what of it is saved.

The output is a bundle: the live card, and the same as text, as HTML and as our own type, for those who
cannot show a widget. When the run ends the bundle is replaced, once, by one without the widget: so the
notebook keeps how the run ended and shows it also where no kernel is. A run that is opened again is shown live again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from uuid import uuid4

from IPython.core.getipython import get_ipython

from ..face import face
from ..stream import follower
from ..view import RunView
from . import saved
from .acting import Controlled
from .card import Card, has_ended
from .outbox import logger

__all__ = ["MIME_TYPE", "bundle", "card", "show"]

MIME_TYPE = "application/vnd.nbjobs.run+json"
Bundle = dict[str, Any]


class Shown(Controlled, Protocol):
    """What is asked of a run in order to show it."""

    @property
    def view(self) -> RunView:
        """The run as it stands now."""


def bundle(view: RunView) -> Bundle:
    """The run as it stands, in the forms that need neither a kernel nor a script of ours."""
    shown = face(view)
    return {"text/plain": saved.text(shown), "text/html": saved.html(shown), MIME_TYPE: {"run": view.run}}


def card(run: Shown) -> Card:
    """A live card of the run, to be displayed or put into a layout by the caller."""
    made = Card(run.view, run)
    made.stop = _follow(run, made.feed)
    return made


def show(run: Shown) -> None:
    """Display the run as the output of the cell that runs now."""
    shell: Any = get_ipython()
    if shell is None:
        print(bundle(run.view)["text/plain"])
    elif getattr(shell, "kernel", None) is None:
        shell.display_pub.publish(bundle(run.view))
    else:
        _follow(run, _Output(shell.display_pub, run).see)


class _Output:
    """The output of the cell that showed a run: live while the run is under way, else without a widget."""

    def __init__(self, publisher: Any, run: Shown) -> None:
        self._publisher = publisher
        self._run = run
        self._transient = {"display_id": f"nbjobs-{uuid4().hex}"}
        self._card: Card | None = None
        view = run.view
        self._ended = has_ended(view)
        self._publish(view, update=False)

    def see(self, view: RunView) -> None:
        """Show the run's latest view."""
        if self._card is not None:
            self._card.feed(view)
        if has_ended(view) != self._ended:
            self._ended = not self._ended
            self._publish(view, update=True)

    def _publish(self, view: RunView, *, update: bool) -> None:
        widget: Bundle = {}
        if not self._ended:
            self._card = self._card or Card(view, self._run)
            widget = (self._card._repr_mimebundle_() or ({}, {}))[0]
        self._publisher.publish({**widget, **bundle(view)}, transient=self._transient, update=update)


def _follow(run: Shown, see: Callable[[RunView], None]) -> Callable[[], None]:
    """Let `see` have every view of the run, from the follower's thread; return what ends that."""

    def guarded(view: RunView) -> None:
        try:
            see(view)
        except Exception:  # in a thread that is not the user's: neither end nor print
            logger.warning("The card of run %s could not be brought up to date", run.id, exc_info=True)

    return follower(run.user).watch(run.id, guarded, rests=True).close
