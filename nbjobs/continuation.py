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
:class:`World`, two methods: *is it time to stop?* and *something happened*.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import sys
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from . import codec
from .errors import Fenced, Interrupt, InvalidStepError, NotData, StepsChanged, TooLarge
from .steps import Cursor, Step, as_kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

VALUES_LIMIT = 4 * 1024 * 1024  # bytes of remembered values in a run

_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class World(Protocol):
    """What a continuation asks of whatever carries it."""

    def checkpoint(self) -> str | None:
        """Make all that has happened durable; answer why the attempt is to stop, or None."""

    def happened(self, name: str, payload: dict[str, Any]) -> None:
        """Take note of an event; it becomes durable with the next checkpoint."""


class Saved(NamedTuple):
    """A step that ended: its name, and the codec's text of its value, or None where it was not kept."""

    name: str
    value: str | None


class Ended(NamedTuple):
    """A step that ended in this attempt, on its way to the store."""

    name: str
    value: str | None
    done: int | None
    total: int | None
    duration: float


class Progress(NamedTuple):
    """What an attempt begins with: the steps that ended, and the one that was under way ('' for none)."""

    ended: tuple[Saved, ...] = ()
    step: str = ""
    cursor: Cursor = Cursor(None)
    done: int = 0
    total: int | None = None


class Running:
    """One step as its caller sees it, between begin and end. ``value`` is what the step is worth."""

    def __init__(self, step: Step | None, value: Any = None) -> None:
        self.step = step
        self.value = value


class _Loop:
    """The loop over the running step: who iterates it, and whether it was left."""

    def __init__(self, frame: FrameType | None) -> None:
        self.left = False
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


class Continuation:
    """Where one attempt of a run stands among its steps.

    Args:
        world: what carries it.
        progress: what earlier attempts made durable.
        run_id: the run, for :attr:`Step.key <nbjobs.steps.Step.key>`.
        fence: the attempt's fence, for :attr:`Step.fence <nbjobs.steps.Step.fence>`.
        is_async: whether the body is an ``async`` function.
        accepted: whether the owner has accepted that code or data changed: what still fits is used, the rest forgotten.

    Attributes:
        lock: held while a step begins or ends and its event is noted, so that another thread that commits sees both
            or neither.
        ended: the steps that ended and were not yet taken to the store.
        advanced: whether this attempt has got further than where it began.
    """

    def __init__(
        self,
        world: World,
        progress: Progress | None = None,
        *,
        run_id: str = "",
        fence: int = 0,
        is_async: bool = False,
        accepted: bool = False,
    ) -> None:
        progress = progress or Progress()
        self.run_id = run_id
        self.fence = fence
        self.is_async = is_async
        self.accepted = accepted
        self.lock = threading.RLock()
        self.ended: list[Ended] = []
        self._world = world
        self._saved = {saved.name: saved for saved in progress.ended}
        self._order = [saved.name for saved in progress.ended]
        self._kept_bytes = sum(len(saved.value or "") for saved in progress.ended)
        self._encountered: list[str] = []
        self._unawaited: list[str] = []
        self._advanced = False
        self._repeated = False  # a step ran again whose value was not kept: no progress
        self._isolating = False
        self._held: Interrupt | StepsChanged | TimeoutError | None = None
        self._loop: _Loop | None = None
        self._began = 0.0
        self._children = ("", 0)  # the place where runs were last enqueued, and how many
        self.running: Step | None = None
        #: The step under way, also when its body has failed: where the next attempt goes on.
        self.current: Step | None = None
        if progress.step and progress.step not in self._saved:
            self.current = Step(
                progress.step, self, start=progress.cursor, done=progress.done, total=progress.total, resumed=True
            )

    @property
    def advanced(self) -> bool:
        """Whether a step ended or a cursor moved in this attempt."""
        return self._advanced or (self.current is not None and self.current.advanced)

    @property
    def started(self) -> bool:
        """Whether there is any progress, of this attempt or of one before it."""
        return bool(self._order) or self.current is not None

    @property
    def description(self) -> str:
        """Where the run stands, in words: ``at 'load', cursor 5``, ``after 'load'`` or ``not started``."""
        if self.current is not None:
            return self.current.description
        return f"after {self._order[-1]!r}" if self._order else "not started"

    def child_id(self) -> str:
        """Return the id of the next run that the body enqueues: the same on every attempt.

        It is made of the run's id, the step and its item, and how many were enqueued there before.
        """
        place = self.running.key if self.running is not None else self.run_id
        count = self._children[1] + 1 if self._children[0] == place else 1
        self._children = (place, count)
        return f"{self.run_id[:40]}-{hashlib.sha256(f'{place}:{count}'.encode()).hexdigest()[:12]}"

    # -- stopping ------------------------------------------------------------------------------------------------

    def reach(self, step: Step | None = None) -> None:
        """Commit what was done, and leave the body here if the attempt is to stop.

        Args:
            step: the step that asks for it.

        Raises:
            InvalidStepError: that step has ended.
            Interrupt: the attempt is to stop.
        """
        if step is not None:
            if step is not self.running:
                raise InvalidStepError(
                    f"Step '{step.name}' has ended, so nothing more can be done in it. Its loop was left, or its "
                    "step.current was kept: ask for step.current inside the step."
                )
            step.flag = False  # before the commit: who raises it meanwhile is heard
        reason = self._world.checkpoint()
        if reason is not None:
            self.interrupt(reason)

    def interrupt(self, reason: str) -> NoReturn:
        """End this attempt; the run goes on from here later.

        Raises:
            Interrupt: always; a TimeoutError where its time is up.
        """
        if reason == "timeout":
            self._held = TimeoutError(
                f"the attempt took longer than the job's timeout, and was ended {self.description}"
            )
        else:
            self._held = Fenced() if reason == "fenced" else Interrupt(reason, self.description)
        raise self._held

    def changed(self, message: str, *, stored: Sequence[str], found: Sequence[str]) -> NoReturn:
        """End this attempt, because code or data no longer fit the stored progress.

        Raises:
            StepsChanged: always.
        """
        self._held = StepsChanged(message, stored=stored, found=found)
        raise self._held

    def _hold(self) -> None:
        """Raise again what somebody caught: the attempt is over all the same."""
        if self._held is not None:
            raise self._held

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
            yield Running(None, codec.decode(found.value or "null"))
            return
        running = Running(found)
        try:
            yield running
        except BaseException as error:
            self.fail(error)
            raise
        self.end(running.value)

    def begin(
        self, name: str, *, start: Any = None, total: int | None = None, isolated: bool = False, looping: bool = False
    ) -> Step | Saved:
        """Begin the step ``name``: the step to run, or what it came to in an earlier attempt."""
        self._hold()
        self._settle(name)
        if self._advanced or self._repeated:
            self.reach()
        self._validate(name)
        first = as_kept(start)
        self._encountered.append(name)
        saved = self._saved.get(name)
        if saved is not None and (saved.value is not None or looping):
            self._world.happened("job.step_skipped", {"step": name})
            return saved
        self._isolating = self._isolating or isolated
        if self._isolating and self._advanced:
            self.interrupt("isolating")
        step = self.current
        if step is None or step.name != name or (looping and not self._is_count(step)):
            step = Step(name, self, start=Cursor(first))
        if total is not None:
            step.total = total
        self._start(step, again=saved is not None)
        return step

    def _start(self, step: Step, *, again: bool) -> None:
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
        self._world.checkpoint()

    def end(self, value: Any = None) -> None:
        """End the running step well. Its value is kept where it is data of at most 64 KiB."""
        step = self.running
        assert step is not None
        text, why = self._keep(step.name, value)
        with self.lock:
            payload = self._outcome(step, interrupted=False)
            if why:
                payload |= {"kept": False, "note": why}
            if step is self.current:
                self.ended.append(Ended(step.name, text, payload["done"], step.total, payload["duration"]))
                self._order.append(step.name)
                self._saved[step.name] = Saved(step.name, text)
                self._advanced = True
                self.current = None
            else:
                self._repeated = True
            self._stand_still(step)
            self._world.happened("job.step", payload)
        self._world.checkpoint()

    def fail(self, error: BaseException) -> None:
        """Note that the running step was left by ``error``; it stays the current one, with its cursor."""
        step = self.running
        if step is None:
            return
        with self.lock:
            interrupted = isinstance(error, Interrupt)
            payload = self._outcome(step, interrupted=interrupted)
            if not interrupted:
                payload["exception"] = {"type": type(error).__name__, "message": str(error)}
            self._advanced = self._advanced or (step is self.current and step.advanced)
            self._stand_still(step)
            self._world.happened("job.step", payload)

    def _stand_still(self, step: Step) -> None:
        self.running = self._loop = None
        step.flag = True  # whoever goes on with it all the same is found out

    def finish(self) -> None:
        """The body has returned: a loop that it left early ends here.

        Raises:
            InvalidStepError: a step was not awaited.
            Interrupt: it was raised before, and somebody caught it. So with StepsChanged.
        """
        self._hold()
        if self._loop is not None:
            self.end()
        if self.running is not None:
            raise InvalidStepError(
                f"Step '{self.running.name}' is still running at the end of the job: `await` it before."
            )
        self._check_awaited("")

    # -- loops ---------------------------------------------------------------------------------------------------

    def begin_loop(self, name: str, total: int | None, frame: FrameType | None) -> Step | None:
        """Begin the loop of the step ``name``, asked for by ``frame``; None where it ended in an earlier attempt."""
        found = self.begin(name, total=total, looping=True)
        if isinstance(found, Saved):
            return None
        self._loop = _Loop(frame)
        return found

    def leave_loop(self, step: Step) -> None:
        """The loop's iterator was closed. By ``break`` or by an error? That shows in what the body does next."""
        if self.running is step and self._loop is not None:
            self._loop.leave()

    def _settle(self, name: str) -> None:
        """End a loop that the body has left and gone on from, to the step ``name``."""
        if self._loop is None or not self._loop.is_over():
            return
        if self.running is not None and self._loop.may_have_failed():
            raise InvalidStepError(
                f"Step '{name}' found, expected to resume from '{self.running.name}': an error is being handled here, "
                "and if it leaves the job, the loop that was left goes on next time. "
                "Begin the step after the `except` block, or do without a step in `finally`."
            )
        self.end()

    # -- async steps ---------------------------------------------------------------------------------------------

    def await_later(self, name: str) -> None:
        """Take note of an asynchronous step that was called, and that the body has to await."""
        self._unawaited.append(name)

    def _check_awaited(self, name: str) -> None:
        """Refuse to begin the step ``name`` before one that was called earlier. '' stands for the body's end."""
        if not self._unawaited:
            return
        first = self._unawaited[0]
        if first != name:
            raise InvalidStepError(
                f"Step '{first}' was called and not awaited. Steps follow one another: `await step({first!r}, …)`."
            )
        del self._unawaited[0]

    # -- the five checks -----------------------------------------------------------------------------------------

    def _validate(self, name: str) -> None:
        self._check_awaited(name)
        if not isinstance(name, str) or not name:
            found = f"found '{type(name).__name__}'" if not isinstance(name, str) else "and not empty"
            raise InvalidStepError(f"Step '{name}' must be a str, {found}")
        if len(name) > 200:
            raise InvalidStepError(f"Step '{name[:40]}…' has a name of {len(name)} characters, 200 at most are kept")
        if name in self._encountered:
            raise InvalidStepError(
                f"Step '{name}' has already been encountered. A step runs once in a run: "
                "give each call a name of its own."
            )
        if self.running is not None:
            held = ", and a loop that was left must not be held in a variable" if self._loop is not None else ""
            raise InvalidStepError(
                f"Step '{name}' is nested inside step '{self.running.name}'. Steps follow one another; "
                f"an inner loop is a plain one{held}."
            )
        self._validate_order(name)

    def _validate_order(self, name: str) -> None:
        if self.current is not None and self.current.name != name and name not in self._saved:
            sentence = f"Step '{name}' found, expected to resume from '{self.current.name}'"
            if self.current.name in self._encountered:
                raise InvalidStepError(f"{sentence}: that step failed in this attempt, so no other can follow it.")
            if not self.accepted:
                self.changed(sentence, stored=[*self._order, self.current.name], found=[*self._encountered, name])
            self.current = None
        met = len(self._encountered)
        if met < len(self._order) and self._order[met] != name and not self.accepted:
            self.changed(
                f"Step '{name}' found, expected to see '{self._order[met]}'",
                stored=self._order,
                found=[*self._encountered, name],
            )

    def _is_count(self, step: Step) -> bool:
        stored = step.stored.value
        fits = stored is None or bool(stored == step.done)
        if not fits and not self.accepted:
            self.changed(
                f"Step '{step.name}' is a loop now, and what is stored of it is no count of items.",
                stored=[f"{step.name}: cursor {codec.preview(stored, 80)}"],
                found=[f"{step.name}: a loop"],
            )
        return fits

    # -- helpers -------------------------------------------------------------------------------------------------

    def _outcome(self, step: Step, *, interrupted: bool) -> dict[str, Any]:
        cursor, done = step.standing()
        return {
            "step": step.name,
            "cursor": cursor.value,
            "done": done,
            "total": step.total,
            "duration": round((time.monotonic() - self._began) * 1000, 2),
            "interrupted": interrupted,
        }

    def _keep(self, name: str, value: Any) -> tuple[str | None, str]:
        """Return the value's text, or None and why it cannot be kept."""
        if value is None:
            return "null", ""
        try:
            text = codec.encode(value, what=f"value of step {name!r}", limit=codec.VALUE_LIMIT)
        except (NotData, TooLarge) as error:
            return None, str(error)
        if self._kept_bytes + len(text) > VALUES_LIMIT:
            return None, f"the values of this run's steps would have more than {VALUES_LIMIT:,} bytes"
        self._kept_bytes += len(text)
        return text, ""


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
