"""`step.map`: a function over many items at once, whose results are kept."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nbjobs.errors import ContinuationError, Interrupt, InvalidStepError, NotData, StepsChanged
from nbjobs.mapped import AHEAD, RESULTS_LIMIT
from nbjobs.stepping import step

from .support import wait_until
from .worlds import Died, World, aattempt, attempt, done

ROWS = ["ada", "bob", "cyd", "dan", "eve"]


def mapping(fn: Any, items: Any = ROWS, **more: Any) -> Callable[[], Any]:
    return lambda: step.map("a", fn, items, **more)


def dies(number: int) -> Callable[[], str | None]:
    """The process dies at the checkpoint of this number, before it is durable."""
    count = itertools.count()

    def stop() -> str | None:
        if next(count) == number:
            raise Died
        return None

    return stop


class Dying(World):
    """Its process dies at a checkpoint before that is durable."""

    at = 3

    def checkpoint(self) -> str | None:
        if self.checkpoints == self.at:
            raise Died
        return super().checkpoint()


# -- results -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [ROWS, tuple(ROWS), iter(ROWS), dict.fromkeys(ROWS)])
def test_the_results_are_in_order(items: Any) -> None:
    """Whichever item ends first."""
    gates = {row: threading.Event() for row in ROWS}

    def fn(row: str) -> str:
        if row != "eve":
            gates[ROWS[ROWS.index(row) + 1]].wait(10)
        gates[row].set()
        return row.upper()

    world = attempt(mapping(fn, items, workers=5))
    assert world.value == [row.upper() for row in ROWS] and world.error is None
    assert world.told("job.step")[0]["done"] == 5 and world.steps == ["a"]


def test_several_items_are_under_way_at_once() -> None:
    """As many as there are workers, and no more."""
    meeting = threading.Barrier(3, timeout=10)
    most, now, lock = [0], [0], threading.Lock()

    def fn(number: int) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        meeting.wait()
        with lock:
            now[0] -= 1

    assert attempt(mapping(fn, range(9), workers=3)).error is None and most == [3]


def test_a_map_that_ended_is_not_done_again() -> None:
    """Its results are the step's value."""
    seen: list[Any] = []

    def fn(row: str) -> str:
        seen.append(row)
        return row.upper()

    first = attempt(mapping(fn))
    again = attempt(mapping(fn), first)
    assert again.value == first.value and sorted(seen) == ROWS and again.names == ["step_skipped a"]


def test_results_that_are_too_many_for_a_value_are_kept_beside_it() -> None:
    """And the step that ended gives them all the same, without doing any item again."""
    seen: list[int] = []

    def fn(number: int) -> str:
        seen.append(number)
        return str(number) * 2000

    first = attempt(mapping(fn, range(40), workers=2))
    assert "kept" not in first.told("job.step")[0]
    assert attempt(mapping(fn, range(40), workers=2), first).value == first.value and len(seen) == 40


def test_no_items_give_no_results() -> None:
    """The step ends."""
    assert attempt(mapping(str, [])).value == []


def test_outside_a_run_a_map_is_a_loop() -> None:
    """With a current step that knows its item."""
    assert step.map("a", lambda row: (row, step.current.key), ROWS[:2]) == [
        ("ada", "no-run:a:0"),
        ("bob", "no-run:a:1"),
    ]
    with pytest.raises(ContinuationError, match="No step is running"):
        _ = step.current


# -- going on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [list, iter])
def test_an_attempt_does_those_items_that_are_not_kept(make: Any) -> None:
    """Each result that is durable is there again; the cursor is below the first item that is not."""
    seen: list[str] = []
    gate = threading.Event()

    def fn(row: str) -> str:
        if row == "bob" and not gate.is_set():
            assert gate.wait(10)
            raise Died
        seen.append(row)
        if len(seen) == 4:
            gate.set()
        return row.upper()

    first = attempt(mapping(fn, make(ROWS), workers=2))
    first.keep()
    assert isinstance(first.error, Died) and first.progress.cursor.value == 1 and first.progress.done == 4
    again = attempt(mapping(fn, make(ROWS), workers=2), first)
    assert again.value == [row.upper() for row in ROWS] and sorted(seen) == ROWS
    assert again.told("job.step_started")[0]["resumed"] and again.told("job.step")[0]["done"] == 5


def test_a_map_that_dies_again_and_again_loses_nothing() -> None:
    """At a checkpoint that is not durable; every item is done, and the results are right."""
    counts: dict[int, int] = {}
    lock = threading.Lock()

    def fn(number: int) -> int:
        step.current._owner._step.flag = True  # type: ignore[attr-defined]
        with lock:
            counts[number] = counts.get(number, 0) + 1
        return number * number

    world: World | None = None
    for at in (3, 5, 2, 9):
        world = attempt(mapping(fn, range(200), workers=4), world, kind=type("Dies", (Dying,), {"at": at}))
        assert isinstance(world.error, Died)
    world = attempt(mapping(fn, range(200), workers=4), world)
    assert world.value == [number * number for number in range(200)]
    assert sorted(counts) == list(range(200)) and sum(counts.values()) <= 200 + 4 * 16


class Punctual(World):
    """It is always time for the next checkpoint."""

    def is_due(self, now: float, share: float) -> bool:
        return True


def test_a_map_commits_when_that_is_due_though_no_flag_is_raised() -> None:
    """Whoever raises the flag needs the interpreter, which the items have."""
    world = attempt(mapping(str, range(50), workers=2), kind=Punctual)
    assert world.value == [str(number) for number in range(50)] and world.checkpoints >= 50


@pytest.mark.parametrize("make", [list, iter])
def test_a_map_over_changed_items_pauses(make: Any) -> None:
    """Where the last item below the mark is another, or there are fewer than were done."""
    first = attempt(mapping(failing("dan"), make(ROWS), workers=1))
    first.keep()
    assert first.progress.cursor.value == 3
    for other in (["bob", "cyd", "ada", "dan"], ["ada"]):
        error = attempt(mapping(str.upper, make(other)), first).error
        assert isinstance(error, StepsChanged) and "item" in str(error)
    assert attempt(mapping(str.upper, make([*ROWS, "fay"])), first).value[-1] == "FAY"


def test_another_steps_results_are_not_taken() -> None:
    """One that stands in its place since an owner has accepted that the code changed."""
    first = attempt(mapping(failing("dan"), workers=1))
    first.keep()
    world = attempt(lambda: step.map("b", str.title, ROWS), first, accepted=True)
    assert world.value == ["Ada", "Bob", "Cyd", "Dan", "Eve"] and world.maps[1]["name"] == "b"


def failing(at: Any) -> Callable[[Any], Any]:
    def fn(row: Any) -> Any:
        if row == at:
            raise ValueError(f"no {row}")
        return row.upper()

    return fn


def test_one_slow_item_makes_none_of_many_fast_ones_repeat() -> None:
    """They are kept above the mark, which stands still; and at most 1,024 are begun beyond it."""
    seen: list[int] = []
    crash = threading.Event()

    def fn(number: int) -> int:
        if number == 0 and not crash.is_set():
            wait_until(lambda: len(seen) == AHEAD - 1, 30, "all that may be begun are done")
            crash.set()
            raise Died
        seen.append(number)
        return number

    first = attempt(mapping(fn, range(3000), workers=3))
    first.keep()
    assert first.progress.cursor.value is None and first.progress.done == AHEAD - 1 == len(seen)
    assert attempt(mapping(fn, range(3000), workers=3), first).value == list(range(3000))
    assert len(seen) == 3000


# -- what is not kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "why"), [(object(), "object"), ("x" * 70_000, "70,002")])
def test_a_result_that_cannot_be_kept_is_done_again(value: Any, why: str) -> None:
    """It is given to the body; the step says that and why, and the others are kept."""
    seen: list[str] = []

    def fn(row: str) -> Any:
        seen.append(row)
        return value if row == "bob" else row

    first = attempt(mapping(fn, workers=2))
    assert first.value[1] is value and first.told("job.step")[0]["kept"] is False
    note = first.told("job.step")[0]["note"]
    assert note.startswith("a result is not kept") and why in note
    again = attempt(mapping(fn, workers=2), first)
    assert again.value == first.value and sorted(seen) == sorted([*ROWS, "bob"])


def test_all_results_of_a_step_have_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it they are not kept."""
    assert RESULTS_LIMIT == 16 * 1024 * 1024
    monkeypatch.setattr("nbjobs.mapped.RESULTS_LIMIT", 12)
    world = attempt(mapping(str.upper, workers=1))
    assert "3 results are not kept" in world.told("job.step")[0]["note"] and len(world.maps[1]) == 1 + 2


# -- errors and interrupts -----------------------------------------------------------------------------------


def test_an_error_surfaces_with_its_item_when_the_others_have_ended() -> None:
    """Those in flight are kept, those that were not begun are not; the error is the user's own."""
    others, failed = threading.Event(), threading.Event()

    def fn(number: int) -> int:
        if number == 1:
            failed.set()
            raise KeyError("one")
        failed.wait(10)
        if number == 0:
            others.set()
        return number

    world = attempt(mapping(fn, range(100), workers=2))
    assert isinstance(world.error, KeyError) and others.is_set()
    assert "in item 1 of step.map('a')" in "".join(getattr(world.error, "__notes__", [str(world.error.__cause__)]))
    assert world.told("job.step")[0]["exception"]["item"] == 1
    assert "0" in world.maps[1] and world.progress.cursor.value == 1 and len(world.maps[1]) < 10


def test_a_map_is_interrupted_at_an_item_that_is_done() -> None:
    """Those in flight end and are kept."""
    seen: list[int] = []

    def fn(number: int) -> int:
        seen.append(number)
        step.current._owner._step.flag = True  # type: ignore[attr-defined]
        return number

    stops = iter([None, None])
    world = attempt(mapping(fn, range(100), workers=2), stop=lambda: next(stops, "stopping"))
    assert isinstance(world.error, Interrupt) and len(seen) < 20
    assert world.progress.done == len(seen) and world.told("job.step")[0]["interrupted"]


def test_a_checkpoint_in_an_item_is_one_of_the_run() -> None:
    """So an item that takes long can be interrupted, and is done again."""

    def fn(row: str) -> str:
        if row == "bob":
            step.current.checkpoint()
        return row

    stops = iter([None])
    world = attempt(mapping(fn, workers=1), stop=lambda: next(stops, "stopping"))
    assert isinstance(world.error, Interrupt) and world.progress.done in (1, 2)  # another item may have begun


# -- in an item ----------------------------------------------------------------------------------------------


def test_the_current_step_in_an_item_is_the_maps_with_the_items_key() -> None:
    """The same on every attempt, and for runs that it enqueues too."""

    def fn(row: str) -> Any:
        from nbjobs.continuation import current

        run = current()
        assert run is not None
        now = step.current
        return now.name, now.key, now.total, now.fence, run.child_id(), run.child_id()

    first, second = (attempt(mapping(fn, workers=3), fence=4).value for _ in range(2))
    assert first == second and [one[:4] for one in first] == [("a", f"r1:a:{n}", 5, 4) for n in range(5)]
    assert len({child for one in first for child in one[4:]}) == 10


@pytest.mark.parametrize("move", [lambda: step.current.set(3), lambda: step.current.advance()])
def test_an_item_has_no_cursor_to_move(move: Callable[[], None]) -> None:
    """The message says what to use instead."""
    error = attempt(mapping(lambda row: move())).error
    assert isinstance(error, ContinuationError) and "loop over step.each" in str(error)


@pytest.mark.parametrize(
    ("inner", "found"),
    [
        (lambda row: step("b", str), "nested inside step 'a'"),
        (lambda row: list(step.each("b", [1])), "nested inside step 'a'"),
        (lambda row: step.map("b", str, [1]), "inside an item of another step.map"),
    ],
)
def test_a_step_inside_an_item_is_refused(inner: Callable[[Any], Any], found: str) -> None:
    """Steps follow one another."""
    error = attempt(mapping(inner)).error
    assert isinstance(error, ContinuationError) and found in str(error)


def test_no_thread_is_left_behind() -> None:
    """Not after the end, and not after an error."""
    before = set(threading.enumerate())
    attempt(mapping(str.upper, workers=3))
    attempt(mapping(failing("cyd"), workers=3))
    assert set(threading.enumerate()) == before


# -- what is refused -----------------------------------------------------------------------------------------


async def later(row: str) -> None:
    """An async function."""


@pytest.mark.parametrize(
    ("fn", "items", "more", "found"),
    [
        (str, {1, 2}, {}, "no stable order"),
        (5, ROWS, {}, "given a int, expected a plain function"),
        (later, ROWS, {}, "given an async function"),
        (str, 5, {}, "given a int"),
        (str, type("Pages", (), {"iter_from": None})(), {}, "Make a list of them"),
        (str, ROWS, {"workers": 0}, "workers=0"),
        (str, ROWS, {"workers": 1.5}, "workers=1.5"),
    ],
)
def test_what_cannot_be_mapped_is_refused(fn: Any, items: Any, more: dict[str, Any], found: str) -> None:
    """Where it is passed, with the way out."""
    with pytest.raises((TypeError, ValueError), match=found):
        step.map("a", fn, items, **more)


def test_a_loop_that_has_become_a_map_goes_on_and_the_other_way_round_where_that_is_sure() -> None:
    """A count says which items are done; results above a mark cannot be counted, and pause."""
    seen: list[str] = []
    assert attempt(mapping(lambda row: seen.append(row), workers=1), done(step="a", cursor=2, items=2)).error is None
    assert seen == ROWS  # no result of theirs is known

    def looping() -> None:
        for row in step.each("a", ROWS):
            seen.append(row)

    world = done(step="a", cursor=1, items=3)
    assert isinstance(attempt(looping, world).error, StepsChanged)


# -- async bodies --------------------------------------------------------------------------------------------


async def test_in_an_async_job_a_map_is_awaited() -> None:
    """In a thread, while the loop turns; resumed as any other."""
    turns = [0]

    async def turning() -> None:
        while True:
            await asyncio.sleep(0.001)
            turns[0] += 1

    def fn(row: str) -> str:
        wait_until(lambda: turns[0] > 5, 10, "the loop turns")
        return row.upper()

    async def body() -> Any:
        beat = asyncio.ensure_future(turning())
        try:
            return await step.map("a", fn, ROWS)  # type: ignore[misc]
        finally:
            beat.cancel()

    world = await aattempt(body)
    assert world.value == [row.upper() for row in ROWS] and world.steps == ["a"]


async def test_a_map_that_is_not_awaited_is_an_error() -> None:
    """At the body's end, as any async step."""

    async def body() -> None:
        step.map("a", str, ROWS).close()  # type: ignore[attr-defined]

    error = (await aattempt(body)).error
    assert isinstance(error, InvalidStepError) and "was called and not awaited" in str(error)


async def test_a_cancelled_map_waits_for_the_items_in_flight() -> None:
    """They are kept; no more are begun."""
    begun, gate, seen = threading.Event(), threading.Event(), list[int]()

    def fn(number: int) -> int:
        begun.set()
        gate.wait(10)
        seen.append(number)
        return number

    async def body() -> None:
        task = asyncio.ensure_future(step.map("a", fn, range(100), workers=2))  # type: ignore[arg-type]
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0.01)
        gate.set()
        await task

    world = await aattempt(body)
    assert isinstance(world.error, asyncio.CancelledError)
    assert 1 <= len(seen) < 10 and world.progress.done == len(seen)


async def test_outside_a_run_an_async_map_is_awaited() -> None:
    """In the code that would be a body."""
    assert await step.map("a", str.upper, ROWS[:2]) == ["ADA", "BOB"]  # type: ignore[misc]


# -- processes -----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    """Data of a class of this module."""

    x: int


def in_process(number: int) -> tuple[int, str, bool, Point]:
    random.seed(number)
    return number, step.current.key, os.getpid() != PARENT, Point(number)


PARENT = os.getpid()


def test_processes_work_side_by_side() -> None:
    """With the item's key, and with data of all kinds; also a function without a name."""
    world = attempt(mapping(in_process, range(6), processes=2))
    assert world.error is None
    assert world.value == [(n, f"r1:a:{n}", world.value[n][2], Point(n)) for n in range(6)]
    offset = 10
    parent = os.getpid()
    found = attempt(mapping(lambda n: (n + offset, os.getpid() == parent), range(3), processes=True, workers=1)).value
    assert found == [(10, False), (11, False), (12, False)]


class OddError(Exception):
    """One that cannot be unpacked."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def test_an_error_in_a_process_comes_back_with_its_item() -> None:
    """Also one that cannot be packed: then as text."""

    def fn(number: int) -> int:
        if number == 1:
            raise KeyError("one")
        return number

    error = attempt(mapping(fn, range(3), processes=1)).error
    assert isinstance(error, KeyError)

    def odd(number: int) -> None:
        raise OddError(1, 2)

    error = attempt(mapping(odd, range(1), processes=1)).error
    assert isinstance(error, RuntimeError) and "OddError: 1 and 2" in str(error)


def test_what_cannot_be_sent_to_a_process_is_refused() -> None:
    """The function, or an item; the message says which."""
    lock = threading.Lock()
    error = attempt(mapping(lambda n: lock, range(2), processes=1)).error
    assert isinstance(error, NotData) and "The function of step.map('a', processes=…)" in str(error)
    error = attempt(mapping(str, iter([lock]), processes=1)).error
    assert isinstance(error, NotData) and "Item 0 of step.map('a', processes=…)" in str(error)


def rows() -> Iterator[int]:
    yield from range(3)


def test_a_process_that_dies_is_the_steps_error() -> None:
    """As a pool of Python's own says it; no process is left."""

    def fn(number: int) -> int:
        if number == 1:
            os._exit(3)
        return number

    error = attempt(mapping(fn, rows(), processes=1)).error
    assert type(error).__name__ == "BrokenProcessPool"


def test_a_function_of_the_main_module_works_in_processes() -> None:
    """Such as one of a notebook: it is sent by value, and no main module is run again."""
    program = """
print("main")
from nbjobs.stepping import step
from tests.worlds import attempt

class Point:
    def __init__(self, x):
        self.x = x

def double(point):
    return Point(2 * point.x)

found = attempt(lambda: step.map("a", double, [Point(1), Point(2)], processes=1))
print(found.error, [type(point) is Point and point.x for point in found.value])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "main\nNone [2, 4]\n"
