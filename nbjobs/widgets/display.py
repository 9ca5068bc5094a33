"""How a run becomes the output of a cell, and what of it is saved.

The output is a bundle: the live card, and the same as text, as HTML and as our own type, for those who
cannot show a widget. When the run ends the bundle is replaced, once, by one without the widget: so the
notebook keeps how the run ended and shows it also where no kernel is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol
from uuid import uuid4

from IPython.core.getipython import get_ipython

from ..face import face
from ..stream import Watch, follower
from ..view import RunView
from . import saved
from .card import Card, has_ended
from .outbox import logger

__all__ = ["MIME_TYPE", "bundle", "card", "show"]

MIME_TYPE = "application/vnd.nbjobs.run+json"
Bundle = dict[str, Any]


class Shown(Protocol):
    """What is asked of a run in order to show it."""

    id: str
    user: str

    @property
    def view(self) -> RunView:
        """The run as it stands now."""


def bundle(view: RunView) -> Bundle:
    """The run as it stands, in the forms that need neither a kernel nor a script of ours."""
    shown = face(view)
    return {"text/plain": saved.text(shown), "text/html": saved.html(shown), MIME_TYPE: {"run": view.run}}


def card(run: Shown) -> Card:
    """A live card of the run, to be displayed or put into a layout by the caller."""
    made = Card(run.view)
    _follow(run, made.feed)
    return made


def show(run: Shown) -> None:
    """Display the run as the output of the cell that runs now."""
    view = run.view
    shell: Any = get_ipython()
    if shell is None:
        print(bundle(view)["text/plain"])
        return
    publisher = shell.display_pub
    if has_ended(view) or getattr(shell, "kernel", None) is None:
        publisher.publish(bundle(view))
        return
    live, transient = Card(view), {"display_id": f"nbjobs-{uuid4().hex}"}
    view_type: Bundle = (live._repr_mimebundle_() or ({}, {}))[0]
    publisher.publish({**view_type, **bundle(view)}, transient=transient)

    def see(latest: RunView) -> None:
        live.feed(latest)
        if has_ended(latest):
            publisher.publish(bundle(latest), transient=transient, update=True)

    _follow(run, see)


def _follow(run: Shown, see: Callable[[RunView], None]) -> None:
    """Let `see` have every view of the run up to its end, from the follower's thread."""
    ended = threading.Event()
    watches: list[Watch] = []

    def once(view: RunView) -> None:
        if ended.is_set():
            return
        if has_ended(view):
            ended.set()
        try:
            see(view)
        except Exception:  # in a thread that is not the user's: neither end nor print
            logger.warning("The card of run %s could not be brought up to date", run.id, exc_info=True)
        if ended.is_set():
            for watch in watches:
                watch.close()

    watches.append(follower(run.user).watch(run.id, once))
    if ended.is_set():  # before the watch was ours to close
        watches[0].close()
