"""Continuations: a job that can stop anywhere between two items and go on in another process.

A job's body is plain Python. What makes it continuable is that it says where its *steps* are::

    @job
    def import_contacts(path):
        rows = read_rows(path)                      # outside a step: runs on every attempt
        step("prepare", create_tables)              # runs once, its value is remembered
        for row in step.each("process", rows):      # goes on at the first row that is not done
            save(row)

An *attempt* is one execution of the body. The first begins with nothing; each later one is given what the ones
before it had made durable: the steps that ended, in order, and the cursor of the step that was under way. Steps that
ended are skipped; the one under way goes on at its cursor.

For that to be right the body must meet the same steps in the same order. Five checks see to it before each step,
those of Rails' ``ActiveJob::Continuation``, with its sentences. Where the stored progress and the code no longer fit
together, :class:`~nbjobs.errors.StepsChanged` pauses the run instead of guessing.

This module is the state machine alone. It does no input or output, and it sees the world through
:class:`~nbjobs.progress.World`: *is it time to stop?*, say, and *something happened*.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from . import codec
from .errors import InvalidStepError
from .leaving import OpenLoop
from .progress import Ended, Running, Saved
from .standing import Plan, Standing
from .steps import MAP, Cursor, Step, as_kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType


class Continuation(Standing):
    """The steps of one attempt, as its body calls them; see :class:`~nbjobs.standing.Standing` for its arguments."""

    # -- function steps ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def stepping(self, name: str, *, start: Any = None, isolated: bool = False) -> Iterator[Running]:
        """Run the ``with`` block as the step ``name``; what it leaves in ``value`` is remembered.

        Where the step ended in an earlier attempt, ``step`` is None and ``value`` is what it returned then.

        Raises:
            InvalidStepError: the step is not allowed here.
            StepsChanged: the stored progress expects another step here.
            Interrupt: the attempt is to stop before the step.
        """
        found = self.begin(name, start=start, isolated=isolated)
        if isinstance(found, Saved):
            yield Running(None, value_of(found))
            return
        running = Running(found)
        try:
            yield running
        except BaseException as error:
            self.fail(error)
            raise
        self.end(running.value)

    def begin(self, name: str, **how: Any) -> Step | Saved:
        """Begin the step ``name``: the step to run, or what it came to in an earlier attempt.

        Args:
            name: of the step.
            how: ``start`` is its first cursor, ``total`` how many items it has, ``isolated`` whether it runs in an
                attempt of its own, ``kind`` of which kind the cursor of its loop is.
        """
        return self._drive(self._beginning(name, **how))

    async def abegin(self, name: str, **how: Any) -> Step | Saved:
        """Do as :meth:`begin`, while the event loop turns."""
        return await self._adrive(self._beginning(name, **how))

    def _beginning(
        self, name: str, *, start: Any = None, total: int | None = None, isolated: bool = False, kind: str = ""
    ) -> Plan[Step | Saved]:
        self._halt.insist()
        yield from self._settling(name)
        if self._advanced or self._repeated:
            yield from self._reaching()
        self._order.check(name, self.running, looping=self._loop is not None)
        self.current = self._order.check_place(name, self.current)
        first = as_kept(start)
        self._order.meet(name)
        saved = self._order.saved.get(name)
        if saved is not None and (saved.value is not None or kind not in ("", MAP)):
            self._world.happened("job.step_skipped", {"step": name})
            return saved
        self._isolating = self._isolating or isolated
        if self._isolating and self._advanced:
            self.interrupt("isolating")
        step = self.current
        if step is None or step.name != name or (kind and not self._fits(step, kind)):
            step = Step(name, self, start=Cursor(first))
        if total is not None:
            step.total = total
        yield from self._starting(step, again=saved is not None)
        return step

    def _starting(self, step: Step, *, again: bool) -> Plan[None]:
        with self.lock:
            self.running = step
            if not again:  # else the next attempt still goes on where this one would have
                self.current = step
            self._began = time.monotonic()
            cursor, done = step.standing()
            happened = {
                "step": step.name,
                "cursor": cursor.value,
                "resumed": step.resumed,
                "done": done,
                "total": step.total,
            }
            self._world.happened("job.step_started", happened)
        try:
            yield
        except asyncio.CancelledError as error:  # its caller gets no step that it could end
            self.fail(error)
            raise

    def end(self, value: Any = None, kept: tuple[str | None, str] | None = None) -> None:
        """End the running step well. Its value is kept where it is data of at most 64 KiB.

        Args:
            value: of the step.
            kept: its text, or None and why it is not kept, where that was decided already.
        """
        self._drive(self._ending(value, kept))

    async def aend(self, value: Any = None) -> None:
        """Do as :meth:`end`, while the event loop turns."""
        await self._adrive(self._ending(value))

    def _ending(self, value: Any = None, kept: tuple[str | None, str] | None = None) -> Plan[None]:
        step = self.running
        assert step is not None
        text, why = kept if kept is not None else self.keep(value)
        with self.lock:
            payload = self._outcome(step, interrupted=False)
            if why:
                payload |= {"kept": False, "note": why}
            if step is self.current:
                self.ended.append(Ended(step.name, text, payload["done"], step.total, payload["duration"]))
                self._order.end(Saved(step.name, text))
                self._advanced = True
                self.current = None
            else:
                self._repeated = True
            self._stand_still(step)
            self._world.happened("job.step", payload)
        yield

    def finish(self) -> None:
        """The body has returned: a loop that it left early ends here.

        Raises:
            InvalidStepError: a step was not awaited.
            Interrupt: it was raised before, and somebody caught it. So with StepsChanged.
        """
        self._drive(self._finishing())

    async def afinish(self) -> None:
        """Do as :meth:`finish`, while the event loop turns."""
        await self._adrive(self._finishing())

    def _finishing(self) -> Plan[None]:
        self._halt.insist()
        if self._loop is not None:
            yield from self._ending()
        if self.running is not None:
            raise InvalidStepError(
                f"Step '{self.running.name}' is still running at the end of the job: `await` it before."
            )
        self._order.check_awaited("")

    # -- loops ---------------------------------------------------------------------------------------------------

    def begin_loop(self, name: str, total: int | None, kind: str, frame: FrameType | None) -> Step | None:
        """Begin the loop of the step ``name``, asked for by ``frame``; None where it ended in an earlier attempt."""
        found = self.begin(name, total=total, kind=kind)
        if isinstance(found, Saved):
            return None
        self._loop = OpenLoop(frame)
        return found

    async def abegin_loop(self, name: str, total: int | None, kind: str, watch: object) -> Step | None:
        """Do as :meth:`begin_loop` for an ``async for``, while the event loop turns; keep what watches over it."""
        found = await self.abegin(name, total=total, kind=kind)
        if isinstance(found, Saved):
            return None
        self._loop = OpenLoop(None, watch)
        return found

    def leave_loop(self, step: Step) -> None:
        """The loop's iterator was closed. By ``break`` or by an error? That shows in what the body does next."""
        if self.running is step and self._loop is not None:
            self._loop.leave()

    def _settling(self, name: str) -> Plan[None]:
        """End a loop that the body has left and gone on from, to the step ``name``."""
        if self._loop is None or not self._loop.is_over():
            return
        if self.running is not None and self._loop.may_have_failed():
            raise InvalidStepError(
                f"Step '{name}' found, expected to resume from '{self.running.name}': an error is being handled here, "
                "and if it leaves the job, the loop that was left goes on next time. "
                "Begin the step after the `except` block, or do without a step in `finally`."
            )
        yield from self._ending()

    # -- step.map ------------------------------------------------------------------------------------------------

    def keep(self, value: Any) -> tuple[str | None, str]:
        """Return the text of the running step's value, or None and why it cannot be kept."""
        assert self.running is not None
        return self._values.keep(self.running.name, value)

    def ordinal(self, name: str) -> int:
        """Return which step of the run this is, from 1 on."""
        names = self._order.names
        return names.index(name) + 1 if name in names else len(names) + 1

    def kept(self, ordinal: int) -> Mapping[str, str]:
        """Return what is stored of a step's map; see :meth:`World.kept <nbjobs.progress.World.kept>`."""
        return self._world.kept(ordinal)

    def write_results(self) -> None:
        """Make all results durable, before the step ends that they belong to."""
        while self.results:
            self._world.checkpoint()

    # -- async steps ---------------------------------------------------------------------------------------------

    def await_later(self, name: str) -> None:
        """Take note of an asynchronous step that was called, and that the body has to await."""
        self._order.await_later(name)


def value_of(saved: Saved) -> Any:
    """Return what a step returned that ended in an earlier attempt."""
    return codec.decode(saved.value or "null")


_current: ContextVar[Continuation | None] = ContextVar("nbjobs_continuation", default=None)


def current() -> Continuation | None:
    """Return the continuation of the run whose body this is, or None outside a run."""
    return _current.get()


@contextlib.contextmanager
def active(continuation: Continuation) -> Iterator[None]:
    """Make ``continuation`` the current one inside the ``with`` block."""
    token = _current.set(continuation)
    try:
        yield
    finally:
        _current.reset(token)
