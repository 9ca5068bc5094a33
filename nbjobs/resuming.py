"""How a loop finds its place again, and what it does where the items are no longer those that they were."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast

from . import shown
from .inputs import INDEXED, is_array, iterated
from .places import fingerprint
from .steps import Cursor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from .steps import Step

T = TypeVar("T")


class Judge(Protocol):
    """Who decides what becomes of a run whose items have changed.

    Attributes:
        accepted: whether its owner has accepted that.
    """

    accepted: bool

    def changed(self, message: str, *, stored: str, found: str) -> NoReturn:
        """Pause the run."""


def is_sequence(items: Any) -> bool:
    """Whether items are found by their index."""
    return isinstance(items, Sequence) or is_array(items)


def left(run: Judge, items: Iterable[T], step: Step) -> Iterable[T]:
    """Return the items that are left to do, by their number: of a sequence by index, else by skipping."""
    if not is_sequence(items):
        return skipped(run, items, step)
    sequence, done = cast("Sequence[T]", items), step.done
    if not done:
        return iterated(sequence)
    if len(sequence) < done:
        check_length(run, step, len(sequence))
        return ()
    check_fingerprint(run, step, sequence[done - 1])
    if isinstance(sequence, INDEXED):
        return islice(sequence, done, None)
    return (sequence[index] for index in range(done, len(sequence)))


def skipped(run: Judge, items: Iterable[T], step: Step) -> Iterator[T]:
    """Return the items that follow those done before."""
    source = iter(items)
    last: T | None = None
    for number in range(step.done):
        try:
            last = next(source)
        except StopIteration:
            check_length(run, step, number)
            return source
    check_fingerprint(run, step, last)
    return source


async def askipped(run: Judge, source: AsyncIterator[T], step: Step) -> T | None:
    """Skip the items done before; return the last of them."""
    last: T | None = None
    for number in range(step.done):
        try:
            last = await source.__anext__()
        except StopAsyncIteration:
            check_length(run, step, number)
            return last
    check_fingerprint(run, step, last)
    return last


def behind_key(run: Judge, items: Iterable[T], step: Step, key: Callable[[T], Any]) -> Iterator[T]:
    """Return the items that follow the one whose key is stored."""
    source = iter(iterated(items))
    if step.stored.value is None:
        return source
    for item in source:
        if key(item) == step.stored.value:
            return source
    again = iter(iterated(items))
    check_key(run, step, again=again is not source)
    return again


def check_fingerprint(run: Judge, step: Step, item: Any, number: int | None = None) -> None:
    """Pause the run where ``item``, the last one done, is not what it was; ``number`` items are done with it."""
    number = step.done if number is None else number
    expected = step.stored.fingerprint
    if expected is not None and fingerprint(item) != expected and not run.accepted:
        run.changed(
            f"The items of step '{step.name}' have changed: item {number:,}, the last one done, is another now. "
            "Going on would skip items or repeat them.",
            stored=f"{step.name}: {number:,} done, the last one with fingerprint {expected}",
            found=f"{step.name}: item {number:,} is {shown.value(item, 80)}",
        )


def check_length(run: Judge, step: Step, length: int, number: int | None = None) -> None:
    """Pause the run where there are fewer items than the ``number`` that were done."""
    number = step.done if number is None else number
    if not run.accepted:
        run.changed(
            f"The items of step '{step.name}' have changed: {number:,} were done, and now there are only {length:,}.",
            stored=f"{step.name}: {number:,} done",
            found=f"{step.name}: {length:,} items",
        )


def check_key(run: Judge, step: Step, *, again: bool) -> None:
    """Pause the run where no item has the stored key; an owner who accepts that begins with the first item again.

    Args:
        run: the run.
        step: its loop.
        again: whether the items can be asked for a second time.
    """
    key = shown.value(step.stored.value, 80)
    if not run.accepted or not again:
        run.changed(
            f"The items of step '{step.name}' have changed: none has the key {key}, that of the last one done. "
            "Going on would skip items or repeat them.",
            stored=f"{step.name}: {step.done:,} done, the last one with the key {key}",
            found=f"{step.name}: no item with the key {key}",
        )
    step.recount(0)
    step.stored = Cursor(None)
