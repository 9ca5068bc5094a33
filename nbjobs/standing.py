"""Where one attempt of a run stands among its steps."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator
from typing import Any, NoReturn, TypeVar

from . import forks, shown
from .beside import beside
from .errors import Interrupt, InvalidStepError
from .leaving import Halt, OpenLoop
from .order import Order
from .progress import Ended, Progress, World
from .steps import ITER_FROM, KEY, MAP, Step, in_item
from .values import Values

T = TypeVar("T")

Plan = Generator[None, "str | None", T]
"""What is to be done, with a checkpoint wherever it yields; it is sent why the attempt is to stop, or None."""


class Standing:
    """Where one attempt of a run stands among its steps: what its step, its world and its runner ask of it.

    Args:
        world: what carries it.
        progress: what earlier attempts made durable.
        run_id: the run, for :attr:`Step.key <nbjobs.steps.Step.key>`.
        fence: the attempt's fence, for :attr:`Step.fence <nbjobs.steps.Step.fence>`.
        is_async: whether the body is an ``async`` function.
        accepted: whether the owner has accepted that code or data changed: what still fits is used, the rest forgotten.
        generation: how often the owner has had steps forgotten: the runs that the body enqueues then begin anew.

    Attributes:
        lock: held while a step begins or ends and its event is noted, so that another thread that commits sees both
            or neither.
        ended: the steps that ended and were not yet taken to the store.
        results: the same of the results of `step.map`, see `Commit.results`.
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
        generation: int = 0,
    ) -> None:
        progress = progress or Progress()
        self.run_id = run_id
        self.fence = fence
        self.is_async = is_async
        self.accepted = accepted
        self.generation = generation
        self.lock = forks.rlock()
        self.ended: list[Ended] = []
        self.results: list[tuple[str, str]] = []
        self._world = world
        self._halt = Halt()
        self._order = Order(progress.ended, self._halt, accepted=accepted)
        self._values = Values(progress.ended)
        self._advanced = False
        self._repeated = False  # a step ran again whose value was not kept: no progress
        self._isolating = False
        self._loop: OpenLoop | None = None
        self._began = 0.0
        self._children = ("", 0)  # the place where runs were last enqueued, and how many
        self.running: Step | None = None
        #: The step under way, also when its body has failed: where the next attempt goes on.
        self.current: Step | None = None
        if progress.step and progress.step not in self._order.saved:
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
        return bool(self._order.names) or self.current is not None

    @property
    def description(self) -> str:
        """Where the run stands, in words: ``at 'load', cursor 5``, ``after 'load'`` or ``not started``."""
        if self.current is not None:
            return self.current.description
        return f"after {self._order.names[-1]!r}" if self._order.names else "not started"

    def child_id(self) -> str:
        """Return the id of the next run that the body enqueues: the same on every attempt.

        It is made of the run's id, the step and its item, how many were enqueued there before, and how often the
        owner has had the run restarted.
        """
        item = in_item.get()
        if item is not None:  # of a `step.map`, several at once
            item.children += 1
            place, count = item.key, item.children
        else:
            place = self.running.key if self.running is not None else self.run_id
            count = self._children[1] + 1 if self._children[0] == place else 1
            self._children = (place, count)
        name = f"{place}:{count}" + (f":{self.generation}" if self.generation else "")
        return f"{self.run_id[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"

    def declare(self, names: tuple[str, ...]) -> None:
        """Take note of the steps that the job declares; a body that meets others is told so, and goes on."""
        self._order.declared = names

    # -- stopping ------------------------------------------------------------------------------------------------

    def reach(self, step: Step | None = None) -> None:
        """Commit what was done, and leave the body here if the attempt is to stop.

        Args:
            step: the step that asks for it.

        Raises:
            InvalidStepError: that step has ended.
            Interrupt: the attempt is to stop.
        """
        self._drive(self._reaching(step))

    async def areach(self, step: Step | None = None) -> None:
        """Do as :meth:`reach`, while the event loop turns."""
        await self._adrive(self._reaching(step))

    def _reaching(self, step: Step | None = None) -> Plan[None]:
        if step is not None:
            if step is not self.running:
                raise InvalidStepError(
                    f"Step '{step.name}' has ended, so nothing more can be done in it. Its loop was left, or its "
                    "step.current was kept: ask for step.current inside the step."
                )
            step.flag = False  # before the commit: who raises it meanwhile is heard
        reason = yield
        if reason is not None:
            self.interrupt(reason)

    def is_time(self, now: float) -> bool:
        """See :class:`World.is_time <nbjobs.progress.World.is_time>`."""
        return self._world.is_time(now)

    def is_due(self, now: float, share: float) -> bool:
        """See :class:`World.is_due <nbjobs.progress.World.is_due>`."""
        return self._world.is_due(now, share)

    def interrupt(self, reason: str) -> NoReturn:
        """End this attempt; the run goes on from here later.

        Raises:
            Interrupt: always; a TimeoutError where its time is up.
        """
        self._halt.interrupt(reason, self.description)

    def changed(self, message: str, *, stored: str, found: str) -> NoReturn:
        """End this attempt, because the step's data no longer fit the stored progress.

        Args:
            message: for people.
            stored: what is stored of the step.
            found: what was found instead.

        Raises:
            StepsChanged: always.
        """
        self._halt.changed(message, stored=[stored], found=[found])

    # -- the end of a step --------------------------------------------------------------------------------------

    def fail(self, error: BaseException, *, item: int | None = None) -> None:
        """Note that the running step was left by ``error``; it stays the current one, with its cursor.

        Args:
            error: what left it.
            item: the number of the item that it came from, in a `step.map`.
        """
        step = self.running
        if step is None:
            return
        with self.lock:
            interrupted = isinstance(error, Interrupt)
            payload = self._outcome(step, interrupted=interrupted)
            if not interrupted:
                told = {"type": shown.kind(error), "message": shown.message(error)}
                payload["exception"] = told if item is None else {**told, "item": item}
            self._advanced = self._advanced or (step is self.current and step.advanced)
            self._stand_still(step)
            self._world.happened("job.step", payload)

    def _stand_still(self, step: Step) -> None:
        self.running = self._loop = None
        step.flag = True  # whoever goes on with it all the same is found out

    def _fits(self, step: Step, kind: str) -> bool:
        """Whether what is stored of a step is a cursor of this kind of loop; False where that does not matter."""
        (stored, mark), done = step.stored, step.done
        fits = mark == kind if kind in (KEY, ITER_FROM) else mark not in (KEY, ITER_FROM) and stored == done
        if kind == MAP:  # what is done is known of each item
            fits = type(stored) is int and mark not in (KEY, ITER_FROM)
        fits = fits or (stored is None and mark is None)
        if not fits and not self.accepted:
            found = {KEY: "a loop with key=", ITER_FROM: "a loop over iter_from"}.get(kind, "a loop")
            expected = {KEY: "no key", ITER_FROM: "no cursor of iter_from"}.get(kind, "no count of items")
            self.changed(
                f"Step '{step.name}' is {found} now, and what is stored of it is {expected}.",
                stored=f"{step.name}: cursor {shown.value(stored, 80)}",
                found=f"{step.name}: {found}",
            )
        return fits

    # -- sync and async ------------------------------------------------------------------------------------------

    def _drive(self, plan: Plan[T]) -> T:
        """Do what a plan says, with a checkpoint wherever it yields."""
        try:
            next(plan)
            while True:
                plan.send(self._world.checkpoint())
        except StopIteration as end:
            value: T = end.value
            return value

    async def _adrive(self, plan: Plan[T]) -> T:
        """Do what a plan says, with each checkpoint beside the event loop."""
        try:
            next(plan)
            while True:
                try:
                    reason = await beside(self._world.checkpoint)
                except BaseException as error:
                    plan.throw(error)
                    raise
                plan.send(reason)
        except StopIteration as end:
            value: T = end.value
            return value

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
