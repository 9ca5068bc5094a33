"""Functions that are steps: how they are called, in a run and outside one."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any

from . import continuation
from .errors import InvalidStepError
from .progress import Saved
from .steps import Cursor, Nowhere, Step, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType


def is_coroutine(frame: FrameType) -> bool:
    """Whether the code that called is `async`, and so awaits the step. Asked outside a run, where nothing else says."""
    return bool(frame.f_code.co_flags & inspect.CO_COROUTINE)


def call(
    name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, start: Any = None, **more: Any
) -> Any:
    """Run ``fn`` as the step ``name``, or return what it returned in an earlier attempt."""
    run = continuation.current()
    if run is None:
        token = plain.set(Step(name, Nowhere(), start=Cursor(start)))
        try:
            return fn(*args, **kwargs)
        finally:
            plain.reset(token)
    with run.stepping(name, start=start, **more) as running:
        if running.step is not None:
            running.value = fn(*args, **kwargs)
    return running.value


def call_async(
    name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], **options: Any
) -> Coroutine[Any, Any, Any]:
    """Do as :func:`call`, to be awaited."""
    run = continuation.current()
    if run is None:
        return _await_plainly(name, fn, args, kwargs, options.get("start"))
    if not run.is_async:
        raise InvalidStepError(
            f"Step '{name}' is an async function, and the job is a plain one. "
            "Make the job `async def`, and await the step."
        )
    run.await_later(name)
    return _await_in(run, name, fn, args, kwargs, options)


async def _await_in(
    run: continuation.Continuation,
    name: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> Any:
    found = await run.abegin(name, **options)
    if isinstance(found, Saved):
        return continuation.value_of(found)
    try:
        value = await _await_or_thread(fn, args, kwargs)
    except BaseException as error:
        run.fail(error)
        raise
    await run.aend(value)
    return value


async def _await_plainly(
    name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], start: Any
) -> Any:
    before = plain.get()
    plain.set(Step(name, Nowhere(), start=Cursor(start)))
    try:
        return await _await_or_thread(fn, args, kwargs)
    finally:
        plain.set(before)


async def _await_or_thread(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if inspect.iscoroutinefunction(fn):
        return await fn(*args, **kwargs)
    value = await asyncio.to_thread(fn, *args, **kwargs)
    return await value if inspect.isawaitable(value) else value  # a lambda around a coroutine


def decorate_with(fn: Callable[..., Any], *, name: str | None = None, start: Any = None, isolated: bool = False) -> Any:
    """Do as :func:`decorate`, for ``@step(…)`` with something in it."""
    return decorate(fn, name, start=start, isolated=isolated)


def decorate(fn: Any, name: str | None, **options: Any) -> Any:
    """Return ``fn`` as a step of its own name, or of this one."""
    known = name or fn.__name__
    is_async = inspect.iscoroutinefunction(fn)
    run = call_async if is_async else call

    @functools.wraps(fn)
    def step(*args: Any, **kwargs: Any) -> Any:
        return run(known, fn, args, kwargs, **options)

    def named(other: str) -> Any:
        """Return the same step under another name, to call it twice in a run."""
        return decorate(fn, other, **options)

    step.named = named  # type: ignore[attr-defined]
    return _marked_async(step) if is_async else step


def _marked_async(fn: Any) -> Any:
    """Return ``fn``, known to `inspect` as an async function: the call itself takes note of what has to be awaited."""
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:
        return mark(fn)
    fn._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # Python 3.10, 3.11
    return fn
