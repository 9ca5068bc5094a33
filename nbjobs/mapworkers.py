"""Who works on the items of a ``step.map``: threads of this process, or processes of its own.

A process is told its function once, by value, so that functions of a notebook work there too; its ``__main__`` is not
run again. It ends as soon as the process that made it is gone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import threading
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import cloudpickle

from .errors import NotData
from .inputs import is_asynchronous, is_resumable, refuse
from .steps import Item, Nowhere, in_item

Future = concurrent.futures.Future


class Mapping(NamedTuple):
    """What ``step.map`` was asked for."""

    name: str
    fn: Callable[[Any], Any]
    items: Any
    workers: int
    processes: bool

    @classmethod
    def of(cls, name: str, fn: Any, items: Any, workers: int | None, processes: bool | int) -> Mapping:
        """Return it, or refuse what cannot be meant.

        Raises:
            TypeError: no function, or items without a stable order.
            ValueError: no worker.
        """
        what = f"step.map({name!r})"
        if not callable(fn) or asyncio.iscoroutinefunction(fn):
            found = "an async function" if callable(fn) else f"a {type(fn).__name__}"
            raise TypeError(f"{what} was given {found}, expected a plain function: map(name, fn, items).")
        if is_resumable(items) or is_asynchronous(items):
            raise TypeError(
                f"{what} was given a {type(items).__name__}, expected a sequence or a plain iterable: items are known "
                "by their number here. Make a list of them, or loop over step.each."
            )
        refuse(items, what)
        if isinstance(processes, int) and not isinstance(processes, bool):
            workers, processes = processes if workers is None else workers, processes > 0
        if workers is None:
            cores = os.cpu_count() or 1
            workers = cores if processes else min(32, cores + 4)
        if not isinstance(workers, int) or workers < 1:
            raise ValueError(f"step.map({name!r}, workers={workers!r}): expected a whole number from 1 on")
        return cls(name, fn, items, workers, bool(processes))


class Workers(Protocol):
    """Some workers that take one item each at a time."""

    count: int

    def begin(self, item: Item, index: int, value: Any) -> Future[Any]:
        """Hand over an item of the map, to be worked on as soon as a worker is free."""

    def result(self, future: Future[Any]) -> Any:
        """Return what the function returned for an item that has ended, or raise its error."""

    def close(self) -> None:
        """Send the workers home; those at work end their items first."""


class Threads:
    """Threads, each of whose items has the body's context."""

    def __init__(self, fn: Callable[[Any], Any], count: int) -> None:
        self.count = count
        self._fn = fn
        self._pool = concurrent.futures.ThreadPoolExecutor(count, thread_name_prefix="nbjobs-map")

    def begin(self, item: Item, index: int, value: Any) -> Future[Any]:
        """See `Workers`."""
        return self._pool.submit(contextvars.copy_context().run, self._work, item, value)

    def result(self, future: Future[Any]) -> Any:
        """See `Workers`."""
        return future.result()

    def _work(self, item: Item, value: Any) -> Any:
        in_item.set(item)
        return self._fn(value)

    def close(self) -> None:
        """See `Workers`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Processes:
    """Processes, to which function and items are sent and from which results come back."""

    def __init__(self, fn: Callable[[Any], Any], count: int, sample: Item) -> None:
        self.count = count
        try:
            told = cloudpickle.dumps(_Told(fn, sample.name, sample.key.partition(":")[0], sample.fence, sample.total))
        except Exception as error:
            raise NotData(
                f"The function of step.map({sample.name!r}, processes=…) cannot be sent to a process: {error}. Open "
                "files and connections inside it, or leave processes= out to use threads."
            ) from error
        import multiprocessing  # which takes its time, and only few bodies need it

        self._pool = concurrent.futures.ProcessPoolExecutor(
            count, mp_context=multiprocessing.get_context("spawn"), initializer=_settle, initargs=(told,)
        )

    def begin(self, item: Item, index: int, value: Any) -> Future[Any]:
        """See `Workers`."""
        try:
            packed = cloudpickle.dumps(value)
        except Exception as error:
            raise NotData(
                f"Item {index:,} of step.map({item.name!r}, processes=…) cannot be sent to a process: {error}."
            ) from error
        return self._pool.submit(_work, index, packed)

    def result(self, future: Future[Any]) -> Any:
        """See `Workers`."""
        value, error = cloudpickle.loads(future.result())
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """See `Workers`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


# -- in the process ------------------------------------------------------------------------------------------


class _Told(NamedTuple):
    """What a process has to know."""

    fn: Callable[[Any], Any]
    name: str
    run_id: str
    fence: int
    total: int | None


class _FarOwner(Nowhere):
    """The owner of items here: nothing is committed in this process."""

    def __init__(self, run_id: str, fence: int) -> None:
        self.run_id = run_id
        self.fence = fence


_told: _Told


def _settle(told: bytes) -> None:
    import multiprocessing

    global _told
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="nbjobs-parent", daemon=True).start()
    _told = cloudpickle.loads(told)


def _end_with(sentinel: int) -> None:
    """End this process when the one that made it is gone."""
    from multiprocessing import connection

    connection.wait([sentinel])
    os._exit(1)


def _work(index: int, packed: bytes) -> bytes:
    in_item.set(Item(_told.name, _FarOwner(_told.run_id, _told.fence), index, _told.total))
    try:
        value = _told.fn(cloudpickle.loads(packed))
        told: bytes = cloudpickle.dumps((value, None))
    except BaseException as error:
        return _packed_error(error)
    return told


def _packed_error(error: BaseException) -> bytes:
    text = traceback.format_exc()
    if hasattr(error, "add_note"):
        error.add_note(f"in a process of step.map:\n{text}")
    try:
        packed: bytes = cloudpickle.dumps((None, error))
        cloudpickle.loads(packed)  # some errors can be packed and not unpacked
    except Exception:
        packed = cloudpickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}\n{text}")))
    return packed
