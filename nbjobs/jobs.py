"""``@job``: a function that can be enqueued.

Decorating declares, calling runs: a job that is called is the plain function, here and now, without Redis. So a job
is tested as a function. ``enqueue`` makes a run of it::

    @job
    def import_contacts(path: str):
        for row in step.each("process_records", read_rows(path)):
            save(row)

    import_contacts("contacts.csv")              # runs here
    import_contacts.enqueue("contacts.csv")      # runs in a worker; as a cell's last line, the live card

Arguments are data (see :mod:`nbjobs.codec`), 64 KiB at most: pass a file's name, not its rows.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, ParamSpec, TypeVar, overload

from . import code
from .callbacks import Callbacks
from .endings import Policy
from .enqueue import Options, enqueue, enqueue_all
from .order import declared_steps
from .retries import Retry, declared, discarded
from .run import Run
from .runset import Runs

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Callable[..., Any])


class Job(Generic[P, R]):
    """A function that can be enqueued; what ``@job`` makes.

    Attributes:
        fn: the function.
        policy: what was declared with it.
        callbacks: what runs around each attempt.
    """

    def __init__(self, fn: Callable[P, R], policy: Policy | None = None, options: Options | None = None) -> None:
        if not callable(fn):
            raise TypeError(f"@job was put on a {type(fn).__name__}, expected a function.")
        self.fn = fn
        self.policy = policy or Policy()
        self.callbacks = Callbacks()
        self._options = options or Options()
        functools.update_wrapper(self, fn)

    @property
    def name(self) -> str:
        """The job's full name, ``module.qualname``."""
        return code.name_of(self.fn)

    @property
    def by_value(self) -> bool:
        """Whether its code travels with the run: it was defined in a notebook or inside a function."""
        return code.by_value(self.fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here and now, as the plain function."""
        return self.fn(*args, **kwargs)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Run:
        """Make a run of the call and put it into the queue. As a cell's last line, it shows the live card.

        Raises:
            NotData: an argument is no data; the message has its path.
            TooLarge: the arguments have more than 64 KiB, or the code that travels more than 1 MiB.
            RunExists: the id of ``options(id=...)`` is taken by another job or other arguments.
            RedisUnavailable: Redis does not answer; nothing was enqueued.
        """
        return enqueue(self, args, kwargs, self._options)

    def enqueue_all(self, *iterables: Iterable[Any]) -> Runs:
        """Make a run of each call, as ``map`` calls a function: of the first items, of the second ones, and so on.

        All calls are checked before the first one is enqueued.

        Raises:
            ValueError: the iterables are not of one length, or ``options(id=...)`` names one run for several calls.
            NotData: an argument is no data; nothing was enqueued. So with the other errors that ``enqueue`` raises.
            RedisUnavailable: Redis does not answer. Where it failed in the middle, the error's attribute ``runs`` has
                the runs that are enqueued.

        >>> from nbjobs import job
        >>> @job
        ... def resize(path: str, width: int = 100) -> None: ...
        >>> resize.enqueue_all(["a.png", "b.png"])  # doctest: +SKIP
        <Runs 2>
        """
        return enqueue_all(self, zip(*iterables, strict=True), self._options)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Run:
        """As ``enqueue``, without blocking the event loop."""
        return await asyncio.to_thread(enqueue, self, args, kwargs, self._options)

    async def aenqueue_all(self, *iterables: Iterable[Any]) -> Runs:
        """As ``enqueue_all``, without blocking the event loop."""
        return await asyncio.to_thread(self.enqueue_all, *iterables)

    def options(
        self,
        *,
        delay: float | None = None,
        at: datetime | None = None,
        queue: str | None = None,
        id: str | None = None,
        user: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> Job[P, R]:
        """Return the job with options for ``enqueue``.

        Args:
            delay: seconds before it may start.
            at: when it may start.
            queue: which queue's workers take it.
            id: the run's id. Enqueued again with the same job and arguments it is the run that exists.
            user: whose run it is.
            tags: shown with the run, and on each of its events.

        >>> from nbjobs import job
        >>> @job
        ... def report(day: str) -> None: ...
        >>> nightly = report.options(id="report-2026-11-24", queue="nightly")
        """
        if delay is not None and at is not None:
            raise ValueError(f"options(delay={delay!r}, at={at!r}): expected one of the two.")
        given = Options(delay=delay, at=at, queue=queue, id=id, user=user, tags=tags)
        both = (new if new is not None else old for new, old in zip(given, self._options, strict=True))
        copied = Job(self.fn, self.policy, Options._make(both))
        copied.callbacks = self.callbacks
        return copied

    def before_perform(self, fn: C) -> C:
        """Call ``fn(attempted)`` before the body, on every attempt; a decorator.

        >>> from nbjobs import job
        >>> @job
        ... def report() -> None: ...
        >>> @report.before_perform
        ... def connect(attempted):
        ...     print(f"attempt {attempted.attempt} of {attempted.run}")
        """
        self.callbacks.before.append(fn)
        return fn

    def after_perform(self, fn: C) -> C:
        """Call ``fn(attempted)`` after a body that returned; a decorator."""
        self.callbacks.after.append(fn)
        return fn

    def around_perform(self, fn: C) -> C:
        """Run the body where the generator ``fn(attempted)`` yields; a decorator."""
        self.callbacks.around.append(fn)
        return fn

    def __repr__(self) -> str:
        return f"<job {self.name}>"


@overload
def job(fn: Callable[P, R], /) -> Job[P, R]: ...
@overload
def job(
    *,
    queue: str | None = None,
    retry_on: Sequence[Retry | type[BaseException]] = (),
    discard_on: Sequence[type[BaseException]] = (),
    max_resumptions: int | None = None,
    resume_wait: float = 5.0,
    resume_errors_after_advancing: bool = True,
    timeout: float | None = None,
    steps: Sequence[str] = (),
) -> Callable[[Callable[P, R]], Job[P, R]]: ...
def job(  # noqa: PLR0913 - what can be declared, each by its name
    fn: Any = None,
    /,
    *,
    queue: str | None = None,
    retry_on: Sequence[Retry | type[BaseException]] = (),
    discard_on: Sequence[type[BaseException]] = (),
    max_resumptions: int | None = None,
    resume_wait: float = 5.0,
    resume_errors_after_advancing: bool = True,
    timeout: float | None = None,
    steps: Sequence[str] = (),
) -> Any:
    """Declare a function as a job: ``@job`` or ``@job(queue="gpu")``.

    Args:
        fn: the function, plain or ``async``.
        queue: the queue of its runs; by default the setting's.
        retry_on: errors that are tried again: classes, or :class:`Retry` with wait and attempts. The first that
            matches decides. A bare class means 3 s and 5 attempts.
        discard_on: classes of errors that end the run at once, even after progress.
        max_resumptions: how often a run may go on from its progress; None is without limit.
        resume_wait: seconds before it goes on after another error. After a stop it goes on at once.
        resume_errors_after_advancing: whether such an error after progress is resumed instead of failing the run.
        timeout: seconds an attempt may take; then it ends as by a ``TimeoutError``: at its next checkpoint, or a second
            later with its process, where it reaches none.
        steps: names of its steps, in order, for the card: "Step 2 of 4", and those to come. A body that meets others
            is not stopped for that.

    >>> from nbjobs import job
    >>> @job
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double(21)
    42
    """
    policy = Policy(
        queue=queue,
        retry_on=declared(retry_on),
        discard_on=discarded(discard_on),
        max_resumptions=max_resumptions,
        resume_wait=resume_wait,
        resume_errors_after_advancing=resume_errors_after_advancing,
        timeout=timeout,
        steps=declared_steps(steps),
    )
    if fn is not None:
        return Job(fn, policy)
    return functools.partial(Job, policy=policy)
