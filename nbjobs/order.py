"""The order of a body's steps, and the five checks before each: those of Rails, with its sentences.

Where the stored progress and the code no longer fit together, the run pauses and shows both lists.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .errors import InvalidStepError

if TYPE_CHECKING:
    from .leaving import Halt
    from .progress import Saved
    from .steps import Step

_DECLARED, _DECLARED_BYTES = 50, 4096  # names in a list for people, and all of them together
_log = logging.getLogger("nbjobs.steps")


class Order:
    """The steps of a run that ended, and those that this attempt has met.

    Args:
        ended: what earlier attempts made durable.
        halt: ends the attempt where it does not fit.
        accepted: whether the owner has accepted that the code changed: then no order is insisted on.

    Attributes:
        names: of the steps that ended, in order.
        saved: what they came to.
        declared: the names that ``@job(steps=…)`` declares.
    """

    declared: tuple[str, ...] = ()

    def __init__(self, ended: Iterable[Saved], halt: Halt, *, accepted: bool) -> None:
        self.saved = {one.name: one for one in ended}
        self.names = list(self.saved)
        self._halt = halt
        self._accepted = accepted
        self._met: list[str] = []
        self._unawaited: list[str] = []

    def meet(self, name: str) -> None:
        """Take note that the body has come to a step."""
        self._met.append(name)
        if self.declared:
            self._compare(name)

    def _compare(self, name: str) -> None:
        """Say where the body does not keep to what was declared; once, and it goes on: that list is for the card."""
        known = [one for one in self._met if one in self.declared]
        if name in self.declared and known == sorted(known, key=self.declared.index):
            return
        what = "comes out of the order of" if name in self.declared else "is not one of"
        _log.warning(
            "Step '%s' %s those that @job(steps=%s) declares. It runs all the same; the card counts by that list.",
            name,
            what,
            list(self.declared),
        )
        self.declared = ()

    def end(self, saved: Saved) -> None:
        """Take note that a step ended."""
        self.names.append(saved.name)
        self.saved[saved.name] = saved

    def await_later(self, name: str) -> None:
        """Take note of an asynchronous step that was called, and that the body has to await."""
        self._unawaited.append(name)

    def check_awaited(self, name: str) -> None:
        """Refuse to begin the step ``name`` before one that was called earlier. '' stands for the body's end."""
        if not self._unawaited:
            return
        first = self._unawaited[0]
        if first != name:
            raise InvalidStepError(
                f"Step '{first}' was called and not awaited. Steps follow one another: `await step({first!r}, …)`."
            )
        del self._unawaited[0]

    def check(self, name: str, running: Step | None, *, looping: bool) -> None:
        """Refuse a step that is misnamed, was met before, or is nested in the one that is ``running``, by a loop."""
        self.check_awaited(name)
        _check_name(name)
        if name in self._met:
            raise InvalidStepError(
                f"Step '{name}' has already been encountered. A step runs once in a run: "
                "give each call a name of its own."
            )
        if running is not None:
            held = ", and a loop that was left must not be held in a variable" if looping else ""
            raise InvalidStepError(
                f"Step '{name}' is nested inside step '{running.name}'. Steps follow one another; "
                f"an inner loop is a plain one{held}."
            )

    def check_place(self, name: str, current: Step | None) -> Step | None:
        """Refuse a step where another is expected; return the current one, None where that is to be forgotten."""
        if current is not None and current.name != name and name not in self.saved:
            sentence = f"Step '{name}' found, expected to resume from '{current.name}'"
            if current.name in self._met:
                raise InvalidStepError(f"{sentence}: that step failed in this attempt, so no other can follow it.")
            if not self._accepted:
                self._halt.changed(sentence, stored=[*self.names, current.name], found=[*self._met, name])
            current = None
        met = len(self._met)
        if met < len(self.names) and self.names[met] != name and not self._accepted:
            self._halt.changed(
                f"Step '{name}' found, expected to see '{self.names[met]}'",
                stored=self.names,
                found=[*self._met, name],
            )
        return current


def declared_steps(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that ``@job(steps=…)`` declares.

    Raises:
        InvalidStepError: a name is none, there twice, or there are too many.
        TypeError: it is no list.

    >>> declared_steps(["load", "clean"])
    ('load', 'clean')
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"@job(steps={names!r}): expected a list of names.")
    seen: list[str] = []
    for name in names:
        _check_name(name)
        if name in seen:
            raise InvalidStepError(
                f"Step '{name}' is declared twice. A step runs once in a run: each has its own name."
            )
        seen.append(name)
    size = len("".join(seen).encode())
    if len(seen) > _DECLARED or size > _DECLARED_BYTES:
        raise InvalidStepError(
            f"{len(seen)} steps are declared, in {size:,} bytes; at most {_DECLARED} in {_DECLARED_BYTES:,} bytes are "
            "shown. Declare none: the card shows them as they come."
        )
    return tuple(seen)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        found = f"found '{type(name).__name__}'" if not isinstance(name, str) else "and not empty"
        raise InvalidStepError(f"Step '{name}' must be a str, {found}")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise InvalidStepError(f"Step {name!r} must be a text that can be stored, found half a character in it")
    if len(name) > 200:
        raise InvalidStepError(f"Step '{name[:40]}…' has a name of {len(name)} characters, 200 at most are kept")
