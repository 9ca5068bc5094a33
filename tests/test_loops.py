"""`step.each`: a loop that goes on where it was left."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import multiprocessing.pool
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from nbjobs.codec import fingerprint
from nbjobs.errors import ContinuationError, Interrupt, InvalidStepError, StepsChanged
from nbjobs.loops import Each
from nbjobs.progress import Progress, Saved
from nbjobs.stepping import step

from .farloops import first, handing_on, held, work_through
from .worlds import Died, World, aattempt, attempt, done

ROWS = ["ada", "bob", "cyd", "dan", "eve"]


class Bunch(Sequence[Any]):
    """A sequence whose items are made when they are asked for, in the thread that made it."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items
        self._thread = threading.get_ident()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        assert threading.get_ident() == self._thread, "asked in another thread"
        return self._items[index]


class Array:
    """A sequence in all but name, as arrays are."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return self._items[index]


class Frame:
    """What is needed to be taken for a DataFrame."""

    columns = ("a",)
    iloc = None

    def itertuples(self) -> Iterator[Any]:
        return iter([(1,)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


async def asynchronous(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(0)
        yield item


def generated(items: list[Any]) -> Iterator[Any]:
    yield from items


KINDS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "deque": deque,
    "sequence": Bunch,
    "array": Array,
    "generator": generated,
    "dict": dict.fromkeys,
    "keys": lambda items: dict.fromkeys(items).keys(),
    "iterator": iter,
}
kinds = pytest.mark.parametrize("kind", KINDS)


def looping(items: Any, seen: list[Any], dies_at: Any = None, **more: Any) -> Callable[[], None]:
    """A body that works through items, and at one of them commits and dies."""

    def body() -> None:
        for item in step.each("a", items, **more):
            if item == dies_at:
                step.current.checkpoint()
                raise Died
            seen.append(item)

    return body


def changed(body: Callable[[], Any], before: World) -> StepsChanged:
    error = attempt(body, before).error
    assert isinstance(error, StepsChanged), error
    return error


# -- going on ------------------------------------------------------------------------------------------------


@kinds
def test_a_loop_goes_on_at_the_first_item_that_is_not_done(kind: str) -> None:
    """A sequence by index, any other iterable by skipping."""
    make, seen = KINDS[kind], list[Any]()
    died = attempt(looping(make(ROWS), seen, dies_at="cyd"))
    assert (died.progress.step, died.progress.done, died.progress.cursor.value) == ("a", 2, 2)
    assert died.progress.cursor.fingerprint == fingerprint("bob")
    again = attempt(looping(make(ROWS), seen), died)
    assert again.error is None and seen == ROWS and again.steps == ["a"]
    assert again.told("job.step_started")[0]["resumed"] is True
    assert again.told("job.step")[0]["done"] == 5


@kinds
def test_a_loop_that_ended_is_skipped(kind: str) -> None:
    """Its items are not even asked for."""
    make, seen = KINDS[kind], list[Any]()
    attempt(looping(make(ROWS), seen), attempt(looping(make(ROWS), seen)))
    assert seen == ROWS


@kinds
def test_a_loop_that_dies_in_its_first_item_again_is_where_it_was(kind: str) -> None:
    """The fingerprint of the last item done is that of the attempt before."""
    make = KINDS[kind]
    died = attempt(looping(make(ROWS), [], dies_at="cyd"))
    assert attempt(looping(make(ROWS), [], dies_at="cyd"), died).progress == died.progress


def test_an_ended_step_that_has_become_a_loop_is_skipped() -> None:
    """It ended, though its value was not kept: a loop has none to give."""
    seen: list[Any] = []
    world = attempt(looping(ROWS, seen), Progress((Saved("a", None),)))
    assert world.error is None and seen == [] and world.names == ["step_skipped a"]


def test_a_loop_dies_again_and_again_and_loses_nothing() -> None:
    """Each attempt begins where the last commit was, also when it commits nothing itself."""
    seen: list[Any] = []
    world = attempt(looping(ROWS, seen, dies_at="bob"))
    for name in ("bob", "dan", "dan", "eve"):
        world = attempt(looping(ROWS, seen, dies_at=name), world)
    assert attempt(looping(ROWS, seen), world).error is None and seen == ROWS


def test_an_empty_loop_is_a_step_that_ends() -> None:
    """Nothing to do is done."""
    world = attempt(looping([], []))
    assert world.steps == ["a"] and world.told("job.step")[0]["total"] == 0


def test_the_total_is_the_length_or_what_was_said() -> None:
    """Without either there is none."""
    totals = [
        attempt(looping(items, [], **more)).told("job.step")[0]["total"]
        for items, more in ((ROWS, {}), (iter(ROWS), {}), (iter(ROWS), {"total": 5}), (ROWS, {"total": 9}))
    ]
    assert totals == [5, None, 5, 9]


def test_the_cursor_is_computed_from_the_count() -> None:
    """`step.current` in a loop has cursor, done, total and a key; its repr shows them."""
    seen: list[Any] = []

    def body() -> None:
        for _ in step.each("a", ROWS):
            now = step.current
            seen.append((now.cursor, now.done, now.total, now.key))

    attempt(body)
    assert seen[0] == (None, 0, 5, "r1:a:0") and seen[3] == (3, 3, 5, "r1:a:3")


@kinds
def test_the_key_of_an_item_is_the_same_on_every_attempt(kind: str) -> None:
    """So a service outside knows what it has done already."""
    keys: dict[Any, set[str]] = {}

    def body(dies_at: Any) -> Callable[[], None]:
        def loop() -> None:
            for item in step.each("a", KINDS[kind](ROWS)):
                keys.setdefault(item, set()).add(step.current.key)
                if item == dies_at:
                    step.current.checkpoint()
                    raise Died

        return loop

    died = attempt(body("cyd"))
    attempt(body(None), died)
    assert keys == {name: {f"r1:a:{index}"} for index, name in enumerate(ROWS)}


# -- data that has changed -----------------------------------------------------------------------------------


@kinds
def test_a_list_that_has_grown_goes_on(kind: str) -> None:
    """The new items are done, too."""
    make, seen = KINDS[kind], list[Any]()
    died = attempt(looping(make(ROWS), seen, dies_at="cyd"))
    assert attempt(looping(make([*ROWS, "fay"]), seen), died).error is None
    assert seen == [*ROWS, "fay"]


@kinds
def test_a_list_that_is_shorter_pauses(kind: str) -> None:
    """Shorter than what is done of it."""
    died = attempt(looping(KINDS[kind](ROWS), [], dies_at="dan"))
    error = changed(looping(KINDS[kind](ROWS[:2]), []), died)
    assert str(error) == "The items of step 'a' have changed: 3 were done, and now there are only 2."
    assert (error.stored, error.found) == (("a: 3 done",), ("a: 2 items",))


@kinds
def test_a_list_in_another_order_pauses(kind: str) -> None:
    """The last item done is not what it was: both are shown."""
    died = attempt(looping(KINDS[kind](ROWS), [], dies_at="cyd"))
    error = changed(looping(KINDS[kind](ROWS[::-1]), []), died)
    assert "item 2, the last one done, is another now" in str(error)
    assert error.found == ("a: item 2 is 'dan'",) and "fingerprint" in error.stored[0]
    assert changed(looping(KINDS[kind](["new", *ROWS]), []), died)


def test_a_change_that_the_body_catches_pauses_all_the_same() -> None:
    """The loop is not taken for left: nothing is skipped."""
    died = attempt(looping(ROWS, [], dies_at="cyd"))

    def body() -> None:
        with contextlib.suppress(Exception):
            looping(ROWS[::-1], [])()

    assert changed(body, died)
    assert attempt(body, died).progress == died.progress


@pytest.mark.parametrize("cursor", ["id-7", 7])
def test_a_step_that_has_become_a_loop_pauses(cursor: Any) -> None:
    """Its stored cursor is no count of items, so nothing is known of what is done."""
    before = World(done(step="a", cursor=cursor))
    error = changed(looping(ROWS, []), before)
    assert error.stored == (f"a: cursor {cursor!r}",) and error.found == ("a: a loop",)
    assert attempt(looping(ROWS, []), before).progress == before.progress


@kinds
def test_a_loop_that_dies_before_it_goes_on_is_where_it_was(kind: str) -> None:
    """Its beginning is a checkpoint of count, cursor and fingerprint, though no item was looked at yet."""
    make = KINDS[kind]
    died = attempt(looping(make(ROWS), [], dies_at="cyd"))

    def dying() -> str | None:
        raise Died

    again = attempt(looping(make(ROWS), []), died, stop=dying)
    assert isinstance(again.error, Died) and again.progress == died.progress
    assert again.told("job.step_started")[0]["done"] == 2


@pytest.mark.parametrize("kind", ["list", "generator"])
def test_an_item_that_the_body_can_change_has_no_fingerprint(kind: str) -> None:
    """A row that the loop has worked on is no changed input."""
    seen: list[Any] = []

    def body(dies_at: int) -> Callable[[], None]:
        def loop() -> None:
            for row in step.each("a", KINDS[kind]([{"n": n} for n in range(5)])):
                if row["n"] == dies_at:
                    step.current.checkpoint()
                    raise Died
                row["square"] = row["n"] ** 2
                seen.append(row["n"])

        return loop

    died = attempt(body(3))
    assert died.progress.cursor == (3, None)
    assert attempt(body(9), died).error is None and seen == [0, 1, 2, 3, 4]


def test_an_item_that_is_no_data_has_no_fingerprint() -> None:
    """It is gone on by number alone."""
    things = [object() for _ in range(3)]
    died = attempt(looping(things, [], dies_at=things[2]))
    assert died.progress.cursor == (2, None)
    assert attempt(looping(things, []), died).error is None


def test_the_users_sequence_is_asked_in_its_own_thread() -> None:
    """Who commits from another thread takes the fingerprint of what the loop has seen."""
    cursors: list[Any] = []

    def body() -> None:
        for _ in step.each("a", Bunch(ROWS)):
            now = step.current
            thread = threading.Thread(target=lambda now=now: cursors.append(now.standing()))
            thread.start()
            thread.join()

    assert attempt(body).error is None
    assert cursors[2] == ((2, fingerprint("bob")), 2)


def test_an_items_error_is_the_users_own() -> None:
    """What the iterable raises leaves the loop as it is."""

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    world = attempt(looping(broken(), []))
    assert isinstance(world.error, OSError) and world.progress.done == 1


# -- leaving a loop ------------------------------------------------------------------------------------------


def breaking() -> None:
    for item in step.each("a", ROWS):
        if item == "cyd":
            break


def returning() -> None:
    first("a", ROWS)


def catching() -> None:
    with contextlib.suppress(ValueError):
        for item in step.each("a", ROWS):
            if item == "cyd":
                raise ValueError


def failing() -> None:
    for item in step.each("a", ROWS):
        if item == "cyd":
            raise ValueError("no")


def zipping() -> None:
    for _ in zip(step.each("a", ROWS), range(2)):  # noqa: B905
        pass


@pytest.mark.parametrize("leave", [breaking, returning, catching, zipping])
@pytest.mark.parametrize("then", ["step", "loop", "end"])
def test_leaving_a_loop_and_going_on_ends_the_step(leave: Callable[[], None], then: str) -> None:
    """By break, return, a caught error, or in `zip`: to the next step, the next loop or the body's end."""

    def body() -> None:
        leave()
        if then == "step":
            step("b", lambda: None)
        elif then == "loop":
            work_through("b", ROWS, str)

    world = attempt(body)
    assert world.error is None and world.steps == ["a"] + (["b"] if then != "end" else [])
    told = world.told("job.step")[0]
    assert told["step"] == "a" and told["done"] < told["total"] and told["interrupted"] is False


def test_an_error_that_leaves_the_job_does_not_end_the_step() -> None:
    """The next attempt goes on with the item that failed."""
    world = attempt(failing)
    assert world.steps == [] and (world.progress.step, world.progress.done) == ("a", 2)
    assert world.told("job.step")[0]["exception"]["type"] == "ValueError"
    seen: list[Any] = []
    attempt(looping(ROWS, seen), world)
    assert seen == ROWS[2:]


def test_a_step_while_the_loops_error_is_under_way_is_refused() -> None:
    """In `finally`, or in an `except` that raises again, the loop is not over: no item of it may be lost."""

    def cleaning_up() -> None:
        try:
            for item in step.each("a", ROWS):
                if item == "cyd":
                    raise ValueError
        finally:
            step("b", lambda: None)

    world = attempt(cleaning_up)
    assert world.steps == [] and (world.progress.step, world.progress.done) == ("a", 2)
    assert isinstance(world.error, InvalidStepError)
    assert str(world.error).startswith("Step 'b' found, expected to resume from 'a'")
    assert "after the `except` block" in str(world.error)


def test_a_step_in_finally_runs_where_the_loop_ended_well() -> None:
    """And so does one in an `except` block that the loop stands in, too."""

    def cleaning_up() -> None:
        try:
            breaking()
        finally:
            step("b", lambda: None)

    def retrying() -> None:
        try:
            raise ValueError
        except ValueError:
            breaking()
            step("b", lambda: None)

    for body in (cleaning_up, retrying):
        assert attempt(body).steps == ["a", "b"]


def test_an_interrupt_in_a_loop_does_not_end_it() -> None:
    """Also where the body catches it."""

    def swallowing() -> None:
        with contextlib.suppress(BaseException):
            looping(ROWS, [], every=1)()

    def cleaning_up() -> None:
        try:
            looping(ROWS, [], every=1)()
        finally:
            step("b", lambda: None)

    for body in (looping(ROWS, [], every=1), swallowing, cleaning_up):
        stops = iter([None, None, "stopping"])
        world = attempt(body, stop=lambda stops=stops: next(stops, None))
        assert isinstance(world.error, Interrupt) and world.steps == [] and world.progress.done == 2


def test_steps_are_not_nested_in_loops() -> None:
    """Neither function steps nor loops; nor in a loop that a generator hands on."""

    def inner_step() -> None:
        for _ in step.each("a", ROWS):
            step("b", lambda: None)

    def inner_loop() -> None:
        for _ in step.each("a", ROWS):
            work_through("b", ROWS, str)

    def in_a_generator() -> None:
        for _ in handing_on("a", ROWS):
            step("b", lambda: None)

    def zipped() -> None:
        list(zip(step.each("a", ROWS), step.each("b", ROWS)))  # noqa: B905

    for body in (inner_step, inner_loop, in_a_generator, zipped):
        error = attempt(body).error
        assert isinstance(error, InvalidStepError) and "'b' is nested inside step 'a'" in str(error), body


def test_a_loop_may_stand_in_a_function_of_another_module() -> None:
    """Or in a generator, or in a comprehension."""
    seen: list[Any] = []

    def body() -> Any:
        work_through("a", ROWS, seen.append)
        seen.extend(handing_on("b", ROWS))
        return sum(len(name) for name in step.each("c", ROWS))

    world = attempt(body)
    assert (world.error, world.value) == (None, 15) and seen == ROWS * 2 and world.steps == ["a", "b", "c"]


def test_leaving_a_generator_around_a_loop_ends_it() -> None:
    """Its frame is suspended, so it is closing that counts."""

    def body() -> None:
        for _ in handing_on("a", ROWS):
            break
        step("b", lambda: None)

    assert attempt(body).steps == ["a", "b"]


def test_an_iterator_that_somebody_keeps_ends_with_its_function() -> None:
    """Closing it means nothing: the function around the loop has returned. Also called twice in a row."""
    keep: list[Any] = []

    def body() -> None:
        for name in "abc":
            held(name, ROWS, keep)
        step("d", lambda: None)

    world = attempt(body)
    assert world.error is None and world.steps == ["a", "b", "c", "d"]
    assert [told["done"] for told in world.told("job.step")][:3] == [0, 0, 0]


def test_an_iterator_kept_beside_the_next_step_is_refused() -> None:
    """Where its function goes on, nobody can tell that its loop does not: the message says what to do."""

    def body() -> None:
        iterator = iter(step.each("a", ROWS))
        for _ in iterator:
            break
        step("b", lambda: None)

    error = attempt(body).error
    assert isinstance(error, InvalidStepError) and "held in a variable" in str(error)


def test_an_iterator_kept_at_the_bodys_end_ends() -> None:
    """The body has returned, so its loop is over."""
    keep: list[Any] = []
    assert attempt(lambda: (next(keep_in(keep, iter(step.each("a", ROWS)))), None)[1]).steps == ["a"]


def keep_in(keep: list[Any], one: Any) -> Any:
    keep.append(one)
    return one


def test_a_traceback_that_holds_the_iterator_does_not_matter() -> None:
    """The error was caught, and the function of the loop has ended."""
    errors: list[BaseException] = []

    def inner() -> None:
        iterator = iter(step.each("a", ROWS))
        for item in iterator:
            if item == "cyd":
                raise ValueError

    def body() -> None:
        try:
            inner()
        except ValueError as error:
            errors.append(error)
        step("b", lambda: None)

    world = attempt(body)
    assert world.error is None and world.steps == ["a", "b"] and world.told("job.step")[0]["done"] == 2


def test_a_loop_that_was_left_gives_no_more_items() -> None:
    """Who goes on with its iterator all the same is told: the item would be done and not counted."""
    keep: list[Any] = []

    def body() -> None:
        held("a", ROWS, keep)
        step("b", lambda: None)
        next(keep[0])

    error = attempt(body).error
    assert isinstance(error, InvalidStepError) and "Step 'a' has ended" in str(error)


def test_the_locals_around_a_loop_are_freed() -> None:
    """Neither the loop nor the run keeps a function's variables when it has returned."""

    class Big:
        pass

    refs: list[weakref.ref[Big]] = []

    def inner() -> None:
        big = Big()
        refs.append(weakref.ref(big))
        for _ in step.each("a", ROWS):
            return

    def body() -> bool:
        inner()
        return refs[0]() is None

    gc.disable()
    try:
        assert attempt(body).value is True
    finally:
        gc.enable()


# -- who may not draw ----------------------------------------------------------------------------------------


def test_a_pool_may_not_draw_the_items() -> None:
    """It would draw all of them before any work is done."""

    def mapping(pool: Any) -> Callable[[], Any]:
        return lambda: list(pool.map(str, step.each("a", ROWS)))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for world in (attempt(mapping(pool)),):
            assert isinstance(world.error, ContinuationError)
            assert "asked for its items by concurrent.futures" in str(world.error)
            assert world.events == []
    with multiprocessing.pool.ThreadPool(1) as pool:
        error = attempt(mapping(pool)).error
        assert isinstance(error, ContinuationError) and "by multiprocessing" in str(error)


def test_another_thread_may_not_draw_the_items() -> None:
    """The loop belongs to the body."""
    errors: list[BaseException] = []

    def drawing(items: Each[Any]) -> None:
        try:
            list(items)
        except ContinuationError as error:
            errors.append(error)

    def body() -> None:
        thread = threading.Thread(target=drawing, args=(step.each("a", ROWS),))
        thread.start()
        thread.join()

    assert attempt(body).events == []
    assert "by another thread" in str(errors[0])


def test_work_may_go_to_a_pool_from_inside_the_loop() -> None:
    """That is the way out."""

    def body() -> list[int]:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return [pool.submit(len, item).result() for item in step.each("a", ROWS)]

    assert attempt(body).value == [3] * 5


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [{1, 2}, frozenset("ab")])
def test_a_set_is_refused(items: Any) -> None:
    """It has no stable order; the way out is in the message."""
    with pytest.raises(TypeError, match=r"no stable order.*sorted\(items\)"):
        step.each("a", items)


def test_a_dataframe_is_refused() -> None:
    """Its iteration gives column names; the way out is in the message."""
    with pytest.raises(TypeError, match=r"frame\.itertuples\(\), total=len\(frame\)"):
        step.each("a", Frame())
    assert list(step.each("a", Frame().itertuples())) == [(1,)]


@pytest.mark.parametrize("items", [5, None, object()])
def test_what_cannot_be_iterated_is_refused(items: Any) -> None:
    """Where it is passed, with its type."""
    with pytest.raises(TypeError, match=f"given a {type(items).__name__}, expected something to iterate over"):
        step.each("a", items)


@pytest.mark.parametrize("every", [0, -1])
def test_every_is_a_whole_number_from_1_on(every: int) -> None:
    """The message shows what was given."""
    with pytest.raises(ValueError, match=f"every={every}"):
        step.each("a", ROWS, every=every)


def test_dictionaries_and_their_views_are_in_order() -> None:
    """They are no sets: their order is that of insertion."""
    table = dict(zip("abc", (1, 2, 3), strict=True))
    for items in (table, table.keys(), table.items(), table.values()):
        assert list(step.each("a", items)) == list(items)


# -- cadence -------------------------------------------------------------------------------------------------


def test_without_the_flag_a_loop_commits_nothing() -> None:
    """Two checkpoints: the beginning and the end of the step."""
    assert attempt(looping(range(10_000), [])).checkpoints == 2


@kinds
def test_the_flag_commits_the_next_finished_item(kind: str) -> None:
    """Once; then it is down again."""
    durable: list[int] = []
    seen: list[Any] = []

    def body() -> None:
        for item in step.each("a", KINDS[kind](ROWS)):
            durable.append(worlds[0].progress.done if worlds else 0)
            if item in ("ada", "cyd"):
                step.current.flag = True
            seen.append(item)

    worlds: list[World] = []

    def stop() -> None:
        if not worlds:
            run = step_run()
            worlds.append(run)

    world = attempt(body, stop=stop)
    assert world.error is None and seen == ROWS
    assert durable == [0, 1, 1, 3, 3] and world.checkpoints == 4


def step_run() -> Any:
    from nbjobs.continuation import current

    run = current()
    assert run is not None
    return run._world


@kinds
def test_every_1_commits_each_item(kind: str) -> None:
    """So at most one is done twice after a crash; `every=2` commits each second one."""
    assert attempt(looping(KINDS[kind](ROWS), [], every=1)).checkpoints == 5 + 2
    assert attempt(looping(KINDS[kind](ROWS), [], every=2)).checkpoints == 2 + 2


def test_every_repeats_no_more_than_it_says() -> None:
    """A crash right before the commit costs the items since the last."""
    seen: list[Any] = []

    def dying(at: int) -> Callable[[], None]:
        def body() -> None:
            for n in step.each("a", range(10), every=3):
                seen.append(n)
                if n == at:
                    raise Died

        return body

    died = attempt(dying(4))
    assert died.progress.done == 3
    attempt(dying(99), died)
    assert seen == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 8, 9]


# -- outside a run -------------------------------------------------------------------------------------------


def test_outside_a_run_a_loop_is_a_loop() -> None:
    """With a current step, until it is left."""
    seen = [(item, step.current.done, step.current.total) for item in step.each("a", ROWS)]
    assert seen == [(name, index, 5) for index, name in enumerate(ROWS)]
    for _ in step.each("a", ROWS):
        break
    with pytest.raises(ContinuationError, match="No step is running"):
        _ = step.current


async def test_outside_a_run_an_async_loop_is_an_async_loop() -> None:
    """With a current step, too."""
    keys = [step.current.key async for _ in step.each("a", asynchronous(ROWS[:2]))]
    assert keys == ["no-run:a:0", "no-run:a:1"]
    assert [item async for item in step.each("a", ROWS)] == ROWS


def test_an_async_iterable_needs_async_for() -> None:
    """The message says so."""
    with pytest.raises(TypeError, match="use `async for`"):
        list(step.each("a", asynchronous(ROWS)))  # type: ignore[call-overload]


# -- async loops ---------------------------------------------------------------------------------------------


def alooping(items: Any, seen: list[Any], dies_at: Any = None, **more: Any) -> Callable[[], Any]:
    async def body() -> None:
        async for item in step.each("a", items, **more):
            if item == dies_at:
                step.current.checkpoint()
                raise Died
            seen.append((item, step.current.key))

    return body


akinds = pytest.mark.parametrize("make", [asynchronous, list, generated])


@akinds
async def test_an_async_loop_goes_on_where_it_was(make: Any) -> None:
    """Over an async iterable or a plain one, with its fingerprint and its keys."""
    seen: list[Any] = []
    died = await aattempt(alooping(make(ROWS), seen, dies_at="cyd"))
    assert died.progress.cursor == (2, fingerprint("bob")) and died.progress.done == 2
    again = await aattempt(alooping(make(ROWS), seen), died)
    assert again.error is None and again.steps == ["a"]
    assert seen == [(name, f"r1:a:{index}") for index, name in enumerate(ROWS)]
    assert (await aattempt(alooping(make(ROWS), seen), again)).names == ["step_skipped a"]
    assert len(seen) == 5


@akinds
async def test_an_async_loop_over_changed_items_pauses(make: Any) -> None:
    """Reordered or shortened; a longer one goes on."""
    died = await aattempt(alooping(make(ROWS), [], dies_at="cyd"))
    for other in (ROWS[::-1], ROWS[:1]):
        assert isinstance((await aattempt(alooping(make(other), []), died)).error, StepsChanged)
    assert (await aattempt(alooping(make([*ROWS, "fay"]), []), died)).told("job.step")[0]["done"] == 6


@akinds
async def test_leaving_an_async_loop_ends_the_step(make: Any) -> None:
    """By break or a caught error; an error that leaves the job does not."""

    async def breaking() -> None:
        async for item in step.each("a", make(ROWS)):
            if item == "cyd":
                break
        await step("b", lambda: None)

    async def catching() -> None:
        with contextlib.suppress(ValueError):
            async for item in step.each("a", make(ROWS)):
                if item == "cyd":
                    raise ValueError

    async def failing() -> None:
        async for item in step.each("a", make(ROWS)):
            if item == "cyd":
                raise ValueError

    assert (await aattempt(breaking)).steps == ["a", "b"]
    assert (await aattempt(catching)).steps == ["a"]
    world = await aattempt(failing)
    assert world.steps == [] and world.progress.done == 2


@akinds
async def test_the_flag_and_every_commit_async_items(make: Any) -> None:
    """As in a plain loop."""
    assert (await aattempt(alooping(make(ROWS), [], every=1))).checkpoints == 7

    async def flagging() -> None:
        async for item in step.each("a", make(ROWS)):
            step.current.flag = item == "bob"

    world = await aattempt(flagging)
    assert world.error is None and world.checkpoints == 3


@akinds
async def test_an_async_loop_is_interrupted(make: Any) -> None:
    """At the item that is done, which is kept."""
    stops = iter([None, None, "stopping"])
    world = await aattempt(alooping(make(ROWS), [], every=1), stop=lambda: next(stops, None))
    assert isinstance(world.error, Interrupt) and world.progress.done == 2
    assert world.told("job.step")[0]["interrupted"] is True


async def test_a_plain_for_works_in_an_async_body() -> None:
    """With awaits in it; steps in tasks beside it are nested."""
    seen: list[Any] = []

    async def body() -> None:
        for item in step.each("a", ROWS):
            await asyncio.sleep(0)
            seen.append(item)

    async def beside() -> None:
        for _ in step.each("a", ROWS):
            await asyncio.gather(step("b", lambda: None))

    assert (await aattempt(body)).steps == ["a"] and seen == ROWS
    error = (await aattempt(beside)).error
    assert isinstance(error, InvalidStepError) and "nested" in str(error)


async def test_an_async_iterator_that_is_over_stays_over() -> None:
    """Also one that was skipped."""

    async def body() -> None:
        iterator = aiter(step.each("a", asynchronous(ROWS)))
        assert [item async for item in iterator] == expected
        assert [item async for item in iterator] == []

    expected = ROWS
    world = await aattempt(body)
    assert world.error is None
    expected = []
    assert (await aattempt(body, world)).error is None


async def test_an_async_source_that_fails_while_it_is_skipped_is_left() -> None:
    """A body that catches that and goes on has left the loop."""

    async def broken() -> AsyncIterator[int]:
        raise OSError
        yield 0

    async def body() -> None:
        with contextlib.suppress(OSError):
            async for _ in step.each("a", broken()):
                pass
        await step("b", lambda: None)

    assert (await aattempt(body, done(step="a", cursor=2, items=2))).steps == ["a", "b"]


def test_a_loop_costs_less_than_a_progress_bar() -> None:
    """No lock, no clock and no call per item: a few bytecodes around the `yield`."""
    code = Each._iterate.__code__
    assert "reach" in code.co_names and not {"monotonic", "lock", "perf_counter"} & set(code.co_names)
    assert sys.getsizeof(step.each("a", ROWS)) < 200
