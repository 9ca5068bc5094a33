"""What a card's buttons do: the run is asked, and whoever pressed is told where that was refused.

The browser's messages arrive in whatever thread the kernel handles them, also while a cell runs. There they are
only looked at; one thread of this process asks the runs, since Redis may take its time. It never prints.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from ..details import details
from ..errors import NbjobsError
from ..view import ENDED, RunView
from . import tails

__all__ = ["Asked", "Controlled", "Controls", "act", "asked", "later", "reach_during_cells"]

logger = logging.getLogger("nbjobs.widgets")

_LONGEST = 200  # characters of a step's name
_REFUSED = 300  # characters of a refusal that is shown
_REMEMBERED = 100  # messages that are known when they come again


class Controlled(Protocol):
    """What a run can be asked for."""

    id: str
    user: str

    def cancel(self, *, now: bool = False) -> str:
        """End it."""

    def pause(self) -> str:
        """Stop it after the item in hand."""

    def unpause(self) -> str:
        """Let it go on."""

    def accept(self) -> str:
        """Let it go on although code or data have changed."""

    def restart(self) -> str:
        """Let it begin again."""

    def retry(self, from_step: str | None = None) -> str:
        """Open it again after its end."""


_WAYS: dict[str, Callable[[Controlled, str | None], str]] = {
    "cancel": lambda run, step: run.cancel(),
    "kill": lambda run, step: run.cancel(now=True),
    "pause": lambda run, step: run.pause(),
    "unpause": lambda run, step: run.unpause(),
    "accept": lambda run, step: run.accept(),
    "restart": lambda run, step: run.restart(),
    "retry": lambda run, step: run.retry(step),
}


class Asked(NamedTuple):
    """A message of the browser that can be meant; `key` is its own number, told back with the answer.

    A browser that is not answered sends it again, with the same key.
    """

    do: str
    from_step: str | None
    key: int


def asked(message: object) -> Asked | None:
    """Read a message; None where it is not one of ours: anybody who opens the notebook may send one."""
    if not isinstance(message, Mapping):
        return None
    do, step, key = message.get("do"), message.get("from_step"), message.get("key")
    if type(do) is not str or (do not in _WAYS and do not in ("expand", "collapse")):
        return None
    if type(key) is not int or (step is not None and (type(step) is not str or not 0 < len(step) <= _LONGEST)):
        return None
    return Asked(do, step if do == "retry" else None, key)


def act(run: Controlled, wish: Asked) -> str:
    """Ask the run for what was wished; return why that was refused, in a line, or nothing."""
    try:
        _WAYS[wish.do](run, wish.from_step)
    except NbjobsError as error:
        return " ".join(str(error).split())[:_REFUSED]
    except Exception as error:  # in a thread that is not the user's: neither end nor print
        logger.warning("Run %s could not be asked to %s", run.id, wish.do, exc_info=True)
        return f"This did not work: {type(error).__name__}"
    return ""


class Controls:
    """What one card hears from the browser, and the details that it shows while it is open there.

    Args:
        run: whose card it is.
        changed: called when there is something new to show.
        answer: told the key of each message that was acted upon, and why it was refused, or nothing.
    """

    def __init__(self, run: Controlled, changed: Callable[[], object], answer: Callable[[int, str], object]) -> None:
        self._run = run
        self._changed = changed
        self._answer = answer
        self._ended = False
        self._heard: deque[int] = deque(maxlen=_REMEMBERED)
        self._following: tails.Following | None = None

    @property
    def expanded(self) -> bool:
        """Whether a browser shows the details."""
        return self._following is not None

    def hear(self, message: object) -> None:
        """Take a message of the browser, from any thread."""
        wish = asked(message)
        if wish is not None:
            later(lambda: self._do(wish))

    def _do(self, wish: Asked) -> None:
        if wish.key in self._heard:
            return
        self._heard.append(wish.key)
        refusal = ""
        if wish.do == "expand":
            self._expand()
            self._changed()
        elif wish.do == "collapse":
            self.close()
            self._changed()
        else:
            refusal = act(self._run, wish)
        self._answer(wish.key, refusal)

    def details(self, view: RunView) -> dict[str, Any]:
        """What the open card shows beside its face; nothing while it is closed."""
        self._ended = view.state in ENDED
        following = self._following
        if following is None:
            return {}
        if following.over and not self._ended:  # it was opened again
            tails.follow(following)
        shown: dict[str, Any] = msgspec.to_builtins(details(view, following.output))
        return shown

    def _expand(self) -> None:
        following = self._following  # read once: the card may be closed in another thread
        if following is None:
            following = tails.Following(self._run.user, self._run.id, self._changed, lambda: self._ended)
            self._following = following
        tails.follow(following)

    def close(self) -> None:
        """Forget the details."""
        following, self._following = self._following, None
        if following is not None:
            following.close()


def reach_during_cells(comm: Any) -> None:
    """Let the browser's messages be handled while a cell runs, where the kernel can.

    JupyterLab sends them to a thread of their own for that. ipykernel 7.4 sends them back to where the widget was
    made, that is behind the running cell. Where that is not so, or no longer so, nothing is changed.
    """
    if callable(getattr(type(comm), "_reply_subshell_for", None)):
        comm._reply_subshell_for = lambda data, default: default


class _Later:
    """Calls one function after the other, in a thread of its own."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, function: Callable[[], object]) -> None:
        self._calls.put(function)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nbjobs-actions", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self._calls.get()()
            except Exception:  # a thread that is not the user's must neither end nor print
                logger.warning("What a card was asked for went wrong", exc_info=True)


_later = _Later()


def later(function: Callable[[], Any]) -> None:
    """Call the function soon, behind those given before, in another thread."""
    _later(function)


def _forget() -> None:
    """The thread of the parent does not exist in a forked child."""
    global _later
    _later = _Later()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
