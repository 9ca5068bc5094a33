"""``step``: how a body says what its steps are.

Inside a run each of the forms below is a step of that run. Outside one everything is plain Python, so a job is
tested by calling it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import continuation
from .calling import call, call_async, decorate, decorate_with, is_coroutine
from .errors import ContinuationError, InvalidStepError
from .loops import Each
from .mapping import Mapping, amap_in, map_in, map_plainly
from .steps import Step, in_item, plain
from .tracks import Track

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable

    from .inputs import AsyncResumable, Resumable

    F = TypeVar("F", bound=Callable[..., Any])

T = TypeVar("T")
R = TypeVar("R")

if TYPE_CHECKING:
    Source = Iterable[T] | AsyncIterable[T] | Resumable[T] | AsyncResumable[T]


class Stepping:
    """Split a job into steps, each of which runs once.

    ``step(name, fn, *args, **kwargs)`` runs ``fn`` as the step ``name`` and returns its value. When the run is
    resumed after a crash or a deploy, a step that ended is not run again: its value is remembered, where it is data
    (see :mod:`nbjobs.codec`) of at most 64 KiB. Anything else is not kept, and then the step runs again.

    ``await step(name, fn, ...)`` in an ``async`` job takes an async ``fn``, or a plain one that runs in a thread.
    A step that is called and not awaited is an error at the next step and at the job's end.

    ``@step`` on a function makes every call of it inside a run a step of the function's name;
    ``@step(name=..., start=..., isolated=...)`` says more.

    ``for item in step.each(name, items)`` is a loop that goes on where it was left.

    ``step.map(name, fn, items)`` does the same in parallel, and ``step.track(items)`` shows a loop inside a step.

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
            return decorate(args[0], None)
        if not args:
            return functools.partial(decorate_with, **kwargs)
        if len(args) < 2 or not callable(args[1]):
            found = type(args[1]).__name__ if len(args) > 1 else "nothing"
            raise InvalidStepError(
                f"step({args[0]!r}, …) runs a function as a step, found {found} in its place. "
                "Write step(name, fn, *args), or for a loop step.each(name, items)."
            )
        name, fn, *rest = args
        run = continuation.current()
        waits = run.is_async if run is not None else is_coroutine(sys._getframe(1))
        if waits or inspect.iscoroutinefunction(fn):
            return call_async(name, fn, tuple(rest), kwargs)
        return call(name, fn, tuple(rest), kwargs)

    @overload
    def each(
        self,
        name: str,
        items: Source[T],
        *,
        total: int | None = None,
        every: int | None = None,
        key: Callable[[T], Any] | None = None,
        batch: None = None,
    ) -> Each[T]: ...
    @overload
    def each(
        self,
        name: str,
        items: Source[T],
        *,
        batch: int,
        total: int | None = None,
        every: int | None = None,
        key: Callable[[T], Any] | None = None,
    ) -> Each[list[T]]: ...

    def each(
        self,
        name: str,
        items: Any,
        *,
        total: int | None = None,
        every: int | None = None,
        key: Callable[[Any], Any] | None = None,
        batch: int | None = None,
    ) -> Each[Any]:
        """Loop over ``items`` as the step ``name``, with a cursor, a count, a rate and a time left for nothing.

        An item is done when the loop asks for the next one. What is done is durable within about 50 ms, and an item
        that takes longer than that before the next one begins. Leaving the loop early ends the step.

        Args:
            name: the step's name, unique in the run.
            items: a sequence goes on at an index; any other iterable is read again and its first items are skipped,
                so it must give the same items in the same order. The last item done is compared by a fingerprint: a
                list that has changed pauses the run. A list that has grown goes on. An object with
                ``iter_from(cursor)`` is asked for what is left, see :class:`nbjobs.inputs.Resumable`.
            total: how many there will be, where ``len(items)`` does not tell.
            every: commit after so many items, or batches, instead of by time. ``every=1`` repeats at most one after a
                crash.
            key: a function that gives each item's key, such as ``lambda row: row.id``. The loop goes on behind the
                item with the key of the last one done, whatever came or went in front of it. Keys are data, and no
                two items have the same.
            batch: give lists of up to so many items. Items are counted all the same.

        Raises:
            TypeError: a set (no stable order) or a DataFrame (use ``itertuples()``).
            ValueError: options that do not go together.
            ContinuationError: the items were asked for by a pool or another thread. ``list()`` and loaders that
                fetch ahead cannot be told from a loop: do not put them around it. Nor ``zip()``, whose other side
                would begin anew in a resumed run: zip inside, ``step.each("add", list(zip(a, b)))``.

        >>> from nbjobs import step
        >>> sum(step.each("add", [1, 2, 3]))
        6
        >>> list(step.each("send", "abcde", batch=2))
        [['a', 'b'], ['c', 'd'], ['e']]
        """
        return Each(name, items, total=total, every=every, key=key, batch=batch)

    def map(
        self,
        name: str,
        fn: Callable[[T], R],
        items: Iterable[T],
        *,
        workers: int | None = None,
        processes: bool | int = False,
    ) -> list[R]:
        """Call ``fn`` with each of ``items``, several at once, as the step ``name``; return the results in order.

        What is done is durable within about 50 ms, each item with its result, in whatever order they end; an attempt
        that goes on does only those again that were in flight. At most 1,024 items are begun beyond the first one
        that is not done. In an ``async`` job it is awaited: ``await step.map(...)``.

        An error in an item ends the step when the others in flight have ended; it says which item that was. A stop or
        a cancel waits for them too: call ``step.current.checkpoint()`` in items that take long.

        Results are kept where they are data of at most 64 KiB each, 16 MiB together; the items of others are done
        again by the next attempt.

        Args:
            name: the step's name, unique in the run.
            fn: a plain function. In it ``step.current`` is this step with the item's key.
            items: a sequence or any other iterable that gives the same items in the same order.
            workers: how many items at once. Default: some more than there are cores, which suits work that waits;
                with ``processes`` as many as there are cores.
            processes: work in processes instead of threads, for functions that compute in Python. Function, items and
                results are sent to and fro; ``notify`` does nothing there. A number is that many processes.

        Raises:
            TypeError: a set (no stable order), a DataFrame, or no plain function.

        >>> from nbjobs import step
        >>> step.map("square", lambda n: n * n, range(4))
        [0, 1, 4, 9]
        """
        mapping = Mapping.of(name, fn, items, workers, processes)
        run = continuation.current()
        waits = run.is_async if run is not None else is_coroutine(sys._getframe(1))
        if not waits:
            return map_in(run, mapping) if run is not None else map_plainly(mapping)
        if run is not None:
            run.await_later(name)
        return amap_in(run, mapping)  # type: ignore[return-value]  # to be awaited

    def track(
        self, items: Iterable[T] | AsyncIterable[T], *, total: int | None = None, name: str = "inner"
    ) -> Track[T]:
        """Loop over ``items`` inside a step and show how far that is; such as the batches of an epoch.

        There is no cursor, and no checkpoint: what is resumed is the step around it, at its own. Of tracks in one
        another the innermost is shown.

        Args:
            items: anything, for a ``for`` or an ``async for``.
            total: how many there will be, where ``len(items)`` does not tell.
            name: what an item is, for the card: ``"batch"`` makes "batch 40 of 100".

        >>> from nbjobs import step
        >>> for epoch in step.each("train", range(2)):
        ...     print(epoch, [batch for batch in step.track(["a", "b"], name="batch")])
        0 ['a', 'b']
        1 ['a', 'b']
        """
        return Track(items, self._running(), total=total, name=name)

    @property
    def current(self) -> Step:
        """The step that is running.

        Raises:
            ContinuationError: none is.
        """
        step = self._running()
        if step is None:
            raise ContinuationError(
                "No step is running here. step.current is for the body of a step: inside step(name, fn), a function "
                "under @step, or a loop over step.each."
            )
        return step

    def _running(self) -> Step | None:
        item = in_item.get()
        if item is not None:
            return item
        run = continuation.current()
        return run.running if run is not None else plain.get()

    def __reduce__(self) -> str:
        return "step"  # pickled by reference: a job sent by value refers to it

    def __repr__(self) -> str:
        return "<nbjobs.step>"


def interrupt(reason: str = "interrupted") -> None:
    """End this attempt here; the run goes on from its cursor in a new one, at once.

    The item in hand is not done yet, so the next attempt begins with it. Outside a run nothing happens.

    Args:
        reason: one word, told on the card and in the event.

    Raises:
        Interrupt: inside a run, always. Let it pass.
    """
    run = continuation.current()
    if run is not None:
        run.interrupt(reason)


step = Stepping()
