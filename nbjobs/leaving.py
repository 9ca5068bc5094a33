"""How a body is left: a loop, by its iterator or with its function; an attempt, by what somebody may catch."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, NoReturn

from .errors import Fenced, Interrupt, StepsChanged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class OpenLoop:
    """The loop over the running step: who iterates it, and whether it was left."""

    def __init__(self, frame: FrameType | None, watch: object = None) -> None:
        self.left = False
        self._watch = watch  # kept alive here: it tells when the iterator is gone
        # A suspended frame is on no stack, so whether it has ended cannot be seen there.
        self._frame = frame if frame is not None and not frame.f_code.co_flags & _SUSPENDABLE else None
        self._handled = sys.exc_info()[1]

    def leave(self) -> None:
        """Its iterator was closed."""
        self.left = True
        self._frame = None

    def is_over(self) -> bool:
        """Whether the loop can ask for no more items: it was closed, or the function around it has ended."""
        if self.left or self._frame is None:
            return self.left
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is None

    def may_have_failed(self) -> bool:
        """Whether an error that came after its beginning is under way, in an ``except`` or ``finally`` block."""
        error = sys.exc_info()[1]
        return error is not None and error is not self._handled


class Halt:
    """What has ended an attempt. A body that catches it is told again at its next step: it is over all the same."""

    def __init__(self) -> None:
        self._held: Interrupt | StepsChanged | TimeoutError | None = None

    def insist(self) -> None:
        """Raise again what somebody caught."""
        if self._held is not None:
            raise self._held

    def interrupt(self, reason: str, description: str) -> NoReturn:
        """End the attempt for ``reason``; the run goes on later where ``description`` says.

        Raises:
            Interrupt: always; a TimeoutError where its time is up.
        """
        if reason == "timeout":
            self._held = TimeoutError(f"the attempt took longer than the job's timeout, and was ended {description}")
        else:
            self._held = Fenced() if reason == "fenced" else Interrupt(reason, description)
        raise self._held

    def changed(self, message: str, *, stored: Sequence[str], found: Sequence[str]) -> NoReturn:
        """End the attempt, because code or data no longer fit the stored progress.

        Raises:
            StepsChanged: always.
        """
        self._held = StepsChanged(message, stored=stored, found=found)
        raise self._held
