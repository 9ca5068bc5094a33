"""What a child knows of its worker: a socket, and the attempts under way.

The main thread belongs to the bodies. While it has none it reads the socket itself, which spares a short run two
changes of thread. While it runs one, a thread here reads, and tells the attempt to stop, which needs no more than a
moment of the interpreter. Where the worker is gone while a body runs, the whole process group ends: nobody is left
to hear of it.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import queue
import selectors
import signal
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from . import birth, shown
from .errors import NbjobsError
from .vitals import Usage
from .wire import Channel, Message

Claim = Mapping[str, Any]
"""A claim as it travels: see `claim.Claim`; a child itself looks at ``owner`` and ``kind`` only."""

current_owner: contextvars.ContextVar[str] = contextvars.ContextVar("nbjobs_owner", default="")
"""Owner of the attempt in whose context the code runs, in a child."""


class Attempt(Protocol):
    """One attempt at a run, as a child sees it (`runner.Attempt`)."""

    on_limit: Callable[[float, float], None] | None

    def perform(self) -> Any:
        """Runs a sync body to its outcome."""

    async def aperform(self) -> Any:
        """Runs an async body to its outcome."""

    def stop(self, reason: str) -> None:
        """Asks the body, from any thread, to end at its next checkpoint."""

    def go_on(self) -> None:
        """Takes back a pause, from any thread, where the body has not stopped yet."""

    def outdated(self, file: str) -> None:
        """Takes note, from any thread, that this file of the body's code has changed on disk."""


Performer = Callable[[Claim, Callable[[], Usage | None]], Attempt]
"""Makes the attempt that a claim stands for.

The function it is given is called when the body is over and only its end is still to be written; it tells what was
used so far.
"""


class Desk:
    """Messages in and out, and the attempts that they are about.

    Args:
        channel: the socket to the worker.
        performer: makes attempts.
    """

    def __init__(self, channel: Channel, performer: Performer) -> None:
        self.report = channel.send
        self._channel = channel
        self._performer = performer
        self._inbox: deque[Claim] = deque()
        self._on_run: Callable[[Claim], None] = self._inbox.append
        self._on_end: Callable[[], None] = lambda: None
        self._ears = selectors.DefaultSelector()  # the thread's: holds the socket while it is to read
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._attempts: dict[str, Attempt] = {}
        self._expected: dict[str, str] = {}  # owners of runs that have not begun, and why they shall stop
        self._in_loop = False
        self._on_cancel: Callable[[str], None] = lambda owner: None
        self._answers: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def open(self) -> None:
        """Starts to listen and says that the child is up."""
        # A forked program of the body must not speak for us, nor hold our socket open.
        os.register_at_fork(after_in_child=self._channel.close)
        threading.Thread(target=self._listen, name="nbjobs-socket", daemon=True).start()
        self.report({"op": "up"})

    def next(self) -> Claim | None:
        """The run that comes next, for the main thread; None where the worker wants no more of this child."""
        while not self._inbox:
            messages = self._channel.read()
            if messages is None:
                return None
            self._handle_all(messages)
        return self._inbox.popleft()

    @property
    def left(self) -> bool:
        """Whether this is no longer the child but a fork of it, which has no worker."""
        return self._channel.fileno() < 0

    def begin(self, claim: Claim, usage: Callable[[], Usage | None]) -> Attempt:
        """Makes the attempt of `claim`; from now on it hears of a stop."""
        owner = claim["owner"]
        with warnings.catch_warnings():
            pass  # from here on a warning that an earlier body has seen is shown again
        attempt = self._performer(claim, usage)
        attempt.on_limit = functools.partial(self._limit, owner)
        with self._lock:
            self._attempts[owner] = attempt
            reason = self._expected.pop(owner, "")
        if not self._in_loop:
            self._ears.register(self._channel, selectors.EVENT_READ)
        if reason:
            attempt.stop(reason)
        if self._in_loop or not birth.show_busy(True):
            self.report({"op": "started", "owner": owner})
        return attempt

    def over(self, claim: Claim) -> None:
        """The body is over: the worker may claim for its place while the end is written."""
        if not self._in_loop and not self.left:
            self.report({"op": "over", "owner": claim["owner"]})

    def end(self, claim: Claim) -> None:
        """The attempt no longer hears of stops; to be called before its end is reported."""
        with self._lock:
            self._attempts.pop(claim["owner"], None)
            self._expected.pop(claim["owner"], None)
        if not self._in_loop and self._ears.get_map():
            birth.show_busy(False)
            with self._reading:
                self._ears.unregister(self._channel)

    def _limit(self, owner: str, timeout: float, within: float) -> None:
        """Has the worker end this process where the attempt takes longer; what was said before no longer counts."""
        if not self.left:
            self.report({"op": "limit", "owner": owner, "timeout": timeout, "within": within})

    def refuse(self, claim: Claim, file: str) -> None:
        """Answers a run whose code may be older here than on disk."""
        self.end(claim)
        why = f"{file} has changed since it was loaded"
        self.report({"op": "refused", "owner": claim["owner"], "why": why})

    def lend(self, lending: bool) -> None:
        """Lends the current body's place to another run, or takes it back (see `lending`).

        Raises:
            NbjobsError: the worker lends no more places.
        """
        owner = current_owner.get()
        if self.left or owner not in self._attempts:
            return
        self.report({"op": "lend" if lending else "unlend", "owner": owner})
        if not lending or self._in_loop:
            return  # a loop must not wait; async bodies have places enough
        answer = self._answers.get()
        if not answer["ok"]:
            msg = (
                f"this body waits for another run, but {answer['lent']} bodies wait already, and this worker "
                "lends no more places than it has; raise the setting `children`, or let this body end first"
            )
            raise NbjobsError(msg)

    def expect_cancel(self, owner: str) -> None:
        """Tell an attempt that its task is being cancelled: one that comes from elsewhere is an error of its body's."""
        self._stop(owner, "cancel")

    def send_runs_to_loop(
        self,
        on_run: Callable[[Claim | None], None],
        on_cancel: Callable[[str], None],
    ) -> None:
        """Hands runs to an event loop from now on, those included that have arrived already; None at the end.

        The loop is also told whose body is to be cancelled.
        """
        self._in_loop = True
        self._on_cancel = on_cancel
        self._on_end = lambda: on_run(None)
        self._on_run = on_run
        while self._inbox:
            on_run(self._inbox.popleft())
        self._ears.register(self._channel, selectors.EVENT_READ)

    def _listen(self) -> None:
        """Reads the socket while a body has the main thread."""
        messages: list[Message] | None = []
        while messages is not None:
            self._ears.select()
            with self._reading:
                if self._ears.get_map():
                    messages = self._channel.read(wait=False)
                    self._handle_all(messages or ())
        with self._lock:
            if self._attempts:
                os.killpg(0, signal.SIGKILL)
            self._on_end()

    def _handle_all(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._handle(message)

    def _handle(self, message: Message) -> None:
        op = message["op"]
        if op == "run":
            with self._lock:
                self._expected[message["claim"]["owner"]] = ""
                self._on_run(message["claim"])
        elif op == "stop":
            self._stop(message["owner"], message["reason"])
        elif op == "go_on":
            self._go_on(message["owner"])
        elif op == "cancel":
            self._on_cancel(message["owner"])
        elif op == "lent":
            self._answers.put(message)

    def _stop(self, owner: str, reason: str) -> None:
        with self._lock:
            attempt = self._attempts.get(owner)
            if owner in self._expected:
                self._expected[owner] = reason
        if attempt is not None:
            attempt.stop(reason)

    def _go_on(self, owner: str) -> None:
        with self._lock:
            attempt = self._attempts.get(owner)
            if self._expected.get(owner) == "pause":
                self._expected[owner] = ""
        if attempt is not None:
            attempt.go_on()


def to_wire(outcome: object) -> Any:
    """An outcome as plain data."""
    return msgspec.to_builtins(outcome)


def tell_error(error: BaseException) -> str:
    """Prints what came out of an attempt, which takes care of its body's errors itself; its last line."""
    with contextlib.suppress(BaseException):  # an error of a body's class may refuse to be text
        traceback.print_exception(type(error), error, error.__traceback__)
    return f"{shown.kind(error)}: {shown.message(error)}"


def done(claim: Claim, outcome: Any, *, error: str, usage: Usage | None, dirty: list[str]) -> Message:
    """The last message about a run."""
    cpu, peak = usage or (None, None)
    about = {"owner": claim["owner"], "outcome": outcome, "error": error}
    return {"op": "done", **about, "cpu": cpu, "peak": peak, "dirty": dirty + [error] * bool(error)}
