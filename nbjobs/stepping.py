"""``step``: how a body says what its steps are.

Inside a run each of the forms below is a step of that run. Outside one everything is plain Python, so a job is
tested by calling it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import continuation
from .errors import ContinuationError, InvalidStepError
from .loops import Each
from .steps import Cursor, Nowhere, Step, plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable

    F = TypeVar("F", bound=Callable[..., Any])

T = TypeVar("T")


class Stepping:
    """Split a job into steps, each of which runs once.

    ``step(name, fn, *args, **kwargs)`` runs ``fn`` as the step ``name`` and returns its value. When the run is
    resumed after a crash or a deploy, a step that ended is not run again: its value is remembered, where it is data
    (see :mod:`nbjobs.codec`) of at most 64 KiB. Anything else is not kept, and then the step runs again.

    ``await step(name, fn, ...)`` in an ``async`` job takes an async ``fn``, or a plain one that runs in a thread.

    ``@step`` on a function makes every call of it inside a run a step of the function's name;
    ``@step(name=..., start=..., isolated=...)`` says more.

    ``for item in step.each(name, items)`` is a loop that goes on where it was left.

    ``step.current`` is the step that is running, with its cursor.

    Code outside a step runs on every attempt. Code in the item that was in hand when a worker died runs again:
    at least once, never less. For effects in outside services give them ``step.current.key``.

    >>> from nbjobs import step
    >>> step("prepare", "{} {}".format, "hello", "world")
    'hello world'
    """

    @overload
    def __call__(self, fn: F, /) -> F: ...
    @overload
    def __call__(self, *, name: str | None = None, start: Any = None, isolated: bool = False) -> Callable[[F], F]: ...
    @overload
    def __call__(self, name: str, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See the class."""
        if len(args) == 1 and callable(args[0]) and not kwargs:
            return _decorate(args[0], None)
        if not args:
            return functools.partial(_decorate_with, **kwargs)
        if len(args) < 2 or not callable(args[1]):
            found = type(args[1]).__name__ if len(args) > 1 else "nothing"
            raise InvalidStepError(
                f"step({args[0]!r}, …) runs a function as a step, found {found} in its place. "
                "Write step(name, fn, *args), or for a loop step.each(name, items)."
            )
        name, fn, *rest = args
        return _call(name, fn, tuple(rest), kwargs)

    def each(
        self,
        name: str,
        items: Iterable[T] | AsyncIterable[T],
        *,
        total: int | None = None,
        every: int | None = None,
    ) -> Each[T]:
        """Loop over ``items`` as the step ``name``, with a cursor, a count, a rate and a time left for nothing.

        An item is done when the loop asks for the next one. What is done is durable within about 50 ms, and an item
        that takes longer than that before the next one begins. Leaving the loop early ends the step.

        Args:
            name: the step's name, unique in the run.
            items: a sequence goes on at an index; any other iterable is read again and its first items are skipped,
                so it must give the same items in the same order. The last item done is compared by a fingerprint: a
                list that has changed pauses the run. A list that has grown goes on.
            total: how many there will be, where ``len(items)`` does not tell.
            every: commit after so many items instead of by time. ``every=1`` repeats at most one item after a crash.

        Raises:
            TypeError: a set (no stable order) or a DataFrame (use ``itertuples()``).
            ContinuationError: the items were asked for by a pool or another thread. ``list()`` and loaders that
                fetch ahead cannot be told from a loop: do not put them around it.

        >>> from nbjobs import step
        >>> sum(step.each("add", [1, 2, 3]))
        6
        """
        return Each(name, items, total=total, every=every)

    @property
    def current(self) -> Step:
        """The step that is running.

        Raises:
            ContinuationError: none is.
        """
        run = continuation.current()
        step = run.running if run is not None else plain.get()
        if step is None:
            raise ContinuationError(
                "No step is running here. step.current is for the body of a step: inside step(name, fn), a function "
                "under @step, or a loop over step.each."
            )
        return step

    def __reduce__(self) -> str:
        return "step"  # pickled by reference: a job sent by value refers to it

    def __repr__(self) -> str:
        return "<nbjobs.step>"


def _call(
    name: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    inline: bool = False,
    **options: Any,
) -> Any:
    run = continuation.current()
    if run is None:
        return _call_plainly(name, fn, args, kwargs, options.get("start"))
    if inspect.iscoroutinefunction(fn) or (run.is_async and not inline):
        return _run_async(run, name, fn, args, kwargs, options)
    with run.stepping(name, **options) as running:
        if running.step is not None:
            running.value = fn(*args, **kwargs)
    return running.value


async def _run_async(
    run: continuation.Continuation,
    name: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> Any:
    if not run.is_async:
        raise InvalidStepError(
            f"Step '{name}' is an async function, and the job is a plain one. Make the job `async def`, and await the step."
        )
    with run.stepping(name, **options) as running:
        if running.step is not None:
            running.value = await _await_or_thread(fn, args, kwargs)
    return running.value


def _await_or_thread(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
    if inspect.iscoroutinefunction(fn):
        coroutine: Awaitable[Any] = fn(*args, **kwargs)
        return coroutine
    return asyncio.to_thread(fn, *args, **kwargs)


def _call_plainly(name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], start: Any) -> Any:
    context = contextvars.copy_context()
    context.run(plain.set, Step(name, Nowhere(), start=Cursor(start)))
    if inspect.iscoroutinefunction(fn):
        return _await_in(context, fn(*args, **kwargs))
    return context.run(fn, *args, **kwargs)


async def _await_in(context: contextvars.Context, coroutine: Any) -> Any:
    # A task takes the context that is current when it is made; `context=` came with Python 3.11.
    return await context.run(asyncio.ensure_future, coroutine)


def _decorate_with(fn: F, *, name: str | None = None, start: Any = None, isolated: bool = False) -> F:
    return _decorate(fn, name, start=start, isolated=isolated)


def _decorate(fn: Any, name: str | None, **options: Any) -> Any:
    known = name or fn.__name__

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _call(known, fn, args, kwargs, inline=True, **options)

    def named(other: str) -> Any:
        """Return the same step under another name, to call it twice in a run."""
        return _decorate(fn, other, **options)

    call.named = named  # type: ignore[attr-defined]
    if not inspect.iscoroutinefunction(fn):
        return call

    @functools.wraps(fn)
    async def acall(*args: Any, **kwargs: Any) -> Any:
        return await call(*args, **kwargs)

    acall.named = named  # type: ignore[attr-defined]
    return acall


step = Stepping()
