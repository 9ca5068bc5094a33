"""The process that runs bodies, one sync body after the other or many async ones at once.

A child is born by the nursery, serves one worker, and leaves when the worker closes its socket. What it says: ``up``
once; for each run ``started`` (where its name cannot tell, see `birth.show_busy`), ``over`` when a sync body is, then
``done`` with the outcome, what the body used and what it left behind; or ``refused`` where the code on disk is newer
than what is loaded here. Whether it is used again is the worker's decision.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from . import asyncchild, birth, lending
from .claim import Claim as HeldRun
from .desk import Attempt, Claim, Desk, current_owner, done, tell_error, to_wire
from .output import MarkingStream, show_logging
from .settings import NbJobs, current, set_current
from .ticker import ticker
from .upkeep import Upkeep, code_watch
from .vitals import Meter, Usage
from .wire import Channel, Message

DEFAULT_PERFORMER = "nbjobs.child:attempt_of"

# What every body needs, loaded once by the nursery. Nothing of the user's: that would be frozen as it is
# then, with its random states and threads, in all children.
_PRELOADED = ("nbjobs.runner", "nbjobs.jobs", "nbjobs.connection", "cloudpickle")


def attempt_of(claim: Claim, usage: Callable[[], Usage | None]) -> Attempt:
    """The attempt of `runner`, on this process's connection: what children perform."""
    from . import connection, runner  # the nursery has loaded them, where they are wanted

    wrote, owner = MarkingStream.wrote, claim["owner"]

    def used() -> dict[str, Any]:
        found = usage()
        told: dict[str, Any] = {"cpu_seconds": found.cpu, "peak_memory": found.peak} if found else {}
        if MarkingStream.wrote != wrote or asyncchild.has_printed(owner):
            told["printed"] = True  # so a reader of its log knows that there are last words to wait for
        return told

    held = msgspec.convert(claim, HeldRun)
    return runner.Attempt(held, connection.client(), current(), usage=used)


def load_performer(name: str) -> Any:
    """The function that ``module:function`` names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


class Child:
    """Serves one worker until it closes the socket."""

    def __init__(self, channel: Channel, *, performer: str, children: int) -> None:
        self._desk = Desk(channel, load_performer(performer))
        self._children = children

    def serve(self) -> None:
        """Runs what arrives; the first run decides whether this child is one for async bodies."""
        lending.set_lender(self._desk.lend)
        self._desk.open()
        upkeep = Upkeep(self._children)
        while (claim := self._desk.next()) is not None:
            if claim["kind"] == "async":
                asyncchild.serve(claim, self._desk, upkeep)
                return
            self._run(claim, upkeep)

    def _run(self, claim: Claim, upkeep: Upkeep) -> None:
        outdated = upkeep.outdated()
        if outdated:
            self._desk.refuse(claim, outdated)
            return
        began_ns, meter = time.time_ns(), Meter()
        current_owner.set(claim["owner"])
        outcome: Any = None
        error = ""

        def over() -> Usage | None:
            upkeep.over()
            self._desk.over(claim)
            return meter.read()

        try:
            attempt = self._desk.begin(claim, over)
            with ticker.ticking(upkeep.lookout(began_ns, attempt.outdated)):
                outcome = to_wire(attempt.perform())
        except BaseException as caught:
            error = tell_error(caught)
        if self._desk.left:  # a fork that the body made and that came back out of it: its work is done
            birth.leave(0)
        self._desk.end(claim)
        usage = meter.last()
        dirty = upkeep.after(began_ns)
        self._desk.report(done(claim, outcome, error=error, usage=usage, dirty=dirty))


@dataclasses.dataclass(frozen=True)
class Upbringing:
    """What a child gets along from its worker, by way of the nursery's first message."""

    settings: dict[str, Any]
    performer: str
    path: list[str]
    children: int

    @classmethod
    def from_wire(cls, message: Message) -> Upbringing:
        """The upbringing that travelled as `message`."""
        return cls(**{field.name: message[field.name] for field in dataclasses.fields(cls)})

    def to_wire(self) -> Message:
        """What to send."""
        return dataclasses.asdict(self)

    def apply(self) -> None:
        """Makes the worker's modules and settings those of this process, and loads what every body needs."""
        sys.path[:] = self.path
        if self.settings:
            set_current(NbJobs.from_wire(self.settings))
        if self.performer == DEFAULT_PERFORMER:
            for module in _PRELOADED:
                importlib.import_module(module)
        code_watch()


def live(channel: Channel, upbringing: Upbringing) -> NoReturn:
    """The life of a child that has been settled, and its end."""
    birth.watch_for_crashes()
    show_logging()
    code = 0
    try:
        Child(channel, performer=upbringing.performer, children=upbringing.children).serve()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the worker is gone
    except BaseException:
        traceback.print_exc()
        code = 1
    birth.leave(code)
