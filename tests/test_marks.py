"""`step.each` with `key=`, with `batch=`, and over objects that go on from cursors of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest

from nbjobs.errors import ContinuationError, CursorError, Interrupt, StepsChanged
from nbjobs.places import Marked, Passed
from nbjobs.stepping import step
from nbjobs.steps import Cursor, Nowhere, Step

from .worlds import Died, World, aattempt, attempt, done

ROWS = ["ada", "bob", "cyd", "dan", "eve"]


class Pages:
    """Goes on from a cursor of its own: the name of the row before."""

    def __init__(self, rows: list[Any] = ROWS) -> None:
        self.rows = rows
        self.asked: list[Any] = []

    def iter_from(self, cursor: Any) -> Iterator[tuple[Any, Any]]:
        self.asked.append(cursor)
        for row in self.rows[self.rows.index(cursor) + 1 if cursor else 0 :]:
            yield row, row


class AsyncPages(Pages):
    """The same, asynchronously."""

    async def aiter_from(self, cursor: Any) -> AsyncIterator[tuple[Any, Any]]:
        for pair in self.iter_from(cursor):
            await asyncio.sleep(0)
            yield pair


async def asynchronous(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(0)
        yield item


class Again:
    """An asynchronous iterable that can be asked again."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __aiter__(self) -> AsyncIterator[Any]:
        return asynchronous(self.items)


def through(items: Any, seen: list[Any], dies_at: Any = None, **more: Any) -> Callable[..., World]:
    """Attempts of a plain loop."""

    def body() -> None:
        for item in step.each("a", items, **more):
            if item == dies_at:
                step.current.checkpoint()
                raise Died
            seen.append(item)

    return lambda before=None, **how: attempt(body, before, **how)


def athrough(items: Any, seen: list[Any], dies_at: Any = None, **more: Any) -> Callable[..., World]:
    """Attempts of an asynchronous loop."""

    async def body() -> None:
        async for item in step.each("a", items, **more):
            if item == dies_at:
                step.current.checkpoint()
                raise Died
            seen.append(item)

    return lambda before=None, **how: asyncio.run(aattempt(body, before, **how))


SOURCES: dict[str, tuple[Any, Any]] = {
    "list": (through, list),
    "iterator": (through, iter),
    "async for, list": (athrough, list),
    "async": (athrough, Again),
}
sources = pytest.mark.parametrize(("runs", "make"), SOURCES.values(), ids=SOURCES)


# -- key= ----------------------------------------------------------------------------------------------------


@sources
def test_a_loop_with_keys_goes_on_behind_the_key_of_the_last_item_done(runs: Any, make: Any) -> None:
    """Whatever came or went in front of it."""
    seen: list[Any] = []
    died = runs(make(ROWS), seen, "dan", key=str.upper)()
    assert (died.progress.done, died.progress.cursor) == (3, ("CYD", "key"))
    again = runs(make(["new", "bob", "newer", "cyd", "dan", "eve"]), seen, key=str.upper)(died)
    assert again.error is None and seen == ROWS and again.steps == ["a"]
    assert again.told("job.step")[0]["done"] == 5


@sources
def test_a_key_that_is_gone_pauses(runs: Any, make: Any) -> None:
    """Nobody can tell then what is left: both are shown."""
    died = runs(make(ROWS), [], "dan", key=str.upper)()
    error = runs(make(["ada", "eve"]), [], key=str.upper)(died).error
    assert isinstance(error, StepsChanged) and "none has the key 'CYD'" in str(error)
    assert error.found == ("a: no item with the key 'CYD'",)


@pytest.mark.parametrize(("runs", "make"), [(through, list), (athrough, Again)])
def test_who_accepts_that_a_key_is_gone_begins_again(runs: Any, make: Any) -> None:
    """At the first item: at least once, never less. What can be read once only pauses all the same."""
    seen: list[Any] = []
    died = runs(make(ROWS), [], "dan", key=str.upper)()
    world = runs(make(["ada", "eve"]), seen, key=str.upper)(died, accepted=True)
    assert world.error is None and seen == ["ada", "eve"]
    once = through(iter(["ada", "eve"]), [], key=str.upper)(died, accepted=True)
    assert isinstance(once.error, StepsChanged)


@sources
def test_a_loop_with_keys_that_dies_again_is_where_it_was(runs: Any, make: Any) -> None:
    """Before it found its place, and behind it."""
    died = runs(make(ROWS), [], "dan", key=str.upper)()
    assert runs(make(ROWS), [], "dan", key=str.upper)(died).progress == died.progress

    def dying() -> str | None:
        raise Died

    assert runs(make(ROWS), [], key=str.upper)(died, stop=dying).progress == died.progress


@pytest.mark.parametrize(("key", "found"), [(lambda row: None, "gave None"), (lambda row: object(), "object")])
def test_a_key_that_cannot_be_stored_is_an_error_before_its_item(key: Any, found: str) -> None:
    """So no item is marked as done that cannot be found again."""
    seen: list[Any] = []
    error = through(ROWS, seen, key=key)().error
    assert isinstance(error, CursorError) and found in str(error) and seen == []


def test_the_key_of_a_step_in_a_loop_with_keys_names_the_item() -> None:
    """It is the same on every attempt, also where items came in front."""
    keys = []

    def body() -> None:
        for _ in step.each("a", ROWS[:2], key=str.upper):
            keys.append(step.current.key)

    attempt(body)
    assert keys == ["r1:a:ADA", "r1:a:BOB"]


def test_a_key_is_asked_for_in_the_loop_only() -> None:
    """Never by the thread that commits."""
    threads = set()

    def key(row: str) -> str:
        threads.add(threading.get_ident())
        return row

    def body() -> None:
        for _ in step.each("a", ROWS, key=key):
            other = threading.Thread(target=step.current.standing)
            other.start()
            other.join()

    attempt(body)
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"key": str.upper}),
        ({"key": str.upper}, {}),
        ({"key": str.upper}, {"items": Pages()}),
        ({"items": Pages()}, {}),
        ({"items": Pages()}, {"key": str.upper}),
    ],
)
def test_a_loop_whose_kind_has_changed_pauses(first: dict[str, Any], second: dict[str, Any]) -> None:
    """A count is no key and a key no count, also where they look alike."""
    died = through(**{"items": ROWS, "seen": [], "dies_at": "dan", **first})()
    assert died.progress.done == 3
    error = through(**{"items": ROWS, "seen": [], **second})(died).error
    assert isinstance(error, StepsChanged) and "what is stored of it is no" in str(error)


# -- batch= --------------------------------------------------------------------------------------------------


@sources
def test_batches_are_lists_of_up_to_so_many_items(runs: Any, make: Any) -> None:
    """And items are counted: `done` and the cursor know of no batches."""
    seen: list[Any] = []
    died = runs(make(ROWS), seen, ["cyd", "dan"], batch=2)()
    assert (died.progress.done, died.progress.cursor.value) == (2, 2)
    again = runs(make(ROWS), seen, batch=2)(died)
    assert again.error is None and seen == [["ada", "bob"], ["cyd", "dan"], ["eve"]]
    assert again.told("job.step")[0]["done"] == 5


@sources
def test_batches_with_keys_go_on_behind_the_last_key(runs: Any, make: Any) -> None:
    """That of the last item of the last batch."""
    seen: list[Any] = []
    died = runs(make(ROWS), seen, ["cyd", "dan"], batch=2, key=str.upper)()
    assert died.progress.cursor == ("BOB", "key")
    runs(make(["new", *ROWS]), seen, batch=3, key=str.upper)(died)
    assert seen == [["ada", "bob"], ["cyd", "dan", "eve"]]


@sources
def test_batches_over_changed_items_pause(runs: Any, make: Any) -> None:
    """The last item of the last batch is compared."""
    died = runs(make(ROWS), [], ["cyd", "dan"], batch=2)()
    assert isinstance(runs(make(ROWS[::-1]), [], batch=2)(died).error, StepsChanged)


def test_the_size_of_batches_may_change() -> None:
    """What is stored is a count of items."""
    seen: list[Any] = []
    died = through(ROWS, seen, ["cyd", "dan"], batch=2)()
    through(ROWS, seen, batch=5)(died)
    assert seen == [["ada", "bob"], ["cyd", "dan", "eve"]]


@sources
def test_every_counts_what_the_loop_is_given(runs: Any, make: Any) -> None:
    """Batches where there are batches."""
    assert runs(make(ROWS), [], batch=2, every=1)().checkpoints == 3 + 2
    assert runs(make(ROWS), [], batch=1, every=2)().checkpoints == 2 + 2
    assert runs(make(ROWS), [], key=str, every=2)().checkpoints == 2 + 2


# -- iter_from -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("runs", "make"), [(through, Pages), (athrough, Pages), (athrough, AsyncPages)])
def test_an_object_with_a_cursor_of_its_own_is_asked_for_what_is_left(runs: Any, make: Any) -> None:
    """With the cursor that came with the last item done; with None at first."""
    seen: list[Any] = []
    first, second = make(), make()
    died = runs(first, seen, "cyd")()
    assert died.progress.cursor == ("bob", "from") and died.progress.done == 2
    assert runs(second, seen)(died).error is None
    assert seen == ROWS and (first.asked, second.asked) == ([None], ["bob"])


def test_batches_of_an_object_with_a_cursor_of_its_own() -> None:
    """The cursor behind a batch is that of its last item."""
    died = through(Pages(), [], ["cyd", "dan"], batch=2)()
    assert died.progress.cursor == ("bob", "from")


def test_an_object_with_aiter_from_alone_needs_async_for() -> None:
    """The message says so."""

    class Only:
        aiter_from = AsyncPages().aiter_from

    with pytest.raises(TypeError, match="use `async for`"):
        iter(step.each("a", Only()))


@pytest.mark.parametrize("pair", [5, (1, 2, 3)])
def test_what_is_no_pair_of_cursor_and_item_is_refused(pair: Any) -> None:
    """With what was found."""

    class Wrong:
        def iter_from(self, cursor: Any) -> Iterator[Any]:
            yield pair

    error = through(Wrong(), [])().error
    assert isinstance(error, ContinuationError) and f"gave a {type(pair).__name__}, expected pairs" in str(error)


def test_an_interrupt_keeps_the_mark() -> None:
    """The item that is done is not done again."""
    stops = iter([None, None, "stopping"])
    world = through(Pages(), [], every=1)(stop=lambda: next(stops, None))
    assert isinstance(world.error, Interrupt) and world.progress.cursor.value == "bob"


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [0, -1, 1.5])
def test_a_batch_is_a_whole_number_from_1_on(batch: Any) -> None:
    """The message shows what was given."""
    with pytest.raises(ValueError, match=f"batch={batch}"):
        step.each("a", ROWS, batch=batch)


def test_a_key_is_a_function() -> None:
    """The message shows one."""
    with pytest.raises(TypeError, match=r"key='id'.*lambda row: row\.id"):
        step.each("a", ROWS, key="id")  # type: ignore[call-overload]


def test_a_key_beside_cursors_of_its_own_is_refused() -> None:
    """The message says which to leave out."""
    with pytest.raises(ValueError, match=r"Leave key= out"):
        step.each("a", Pages(), key=str)


# -- outside a run, and between threads ----------------------------------------------------------------------


def test_outside_a_run_keys_batches_and_cursors_are_plain() -> None:
    """A loop is a loop, with a step that knows its item."""
    assert list(step.each("a", ROWS, batch=2)) == [["ada", "bob"], ["cyd", "dan"], ["eve"]]
    assert list(step.each("a", Pages())) == ROWS
    assert [step.current.key for _ in step.each("a", ROWS[:2], key=str.upper)] == ["no-run:a:ADA", "no-run:a:BOB"]


async def test_outside_a_run_the_same_asynchronously() -> None:
    """Also batches of an asynchronous iterable."""
    assert [row async for row in step.each("a", AsyncPages())] == ROWS
    assert [row async for row in step.each("a", Again(ROWS), batch=4)] == [ROWS[:4], ROWS[4:]]


def test_a_count_and_its_fingerprint_belong_together() -> None:
    """Where the loop goes on while another thread asks, there is none rather than that of another item."""
    now = Step("a", Nowhere(), start=Cursor(None))
    now.place = place = Passed(now)
    now.done, place.last, place.at = 1, "ada", 1
    whole = now.standing()
    now.done = 2  # the loop has written this, and nothing else yet
    assert whole[0].fingerprint is not None and now.standing() == (Cursor(2), 2)
    assert place.standing(1) == (Cursor(1), 1)


def test_a_mark_and_its_count_belong_together() -> None:
    """They are read as one object, whatever the count beside it says by now."""
    now = Step("a", Nowhere(), start=Cursor("x", "key"), done=3)
    now.place = place = Marked(now, "key")
    assert now.standing() == (("x", "key"), 3)
    place.hand = (4, "y")
    assert now.standing() == (("y", "key"), 4)


def test_a_step_of_another_kind_is_not_taken_for_a_loop_with_keys() -> None:
    """Its cursor is none of a loop's."""
    error = through(ROWS, [], key=str)(done(step="a", cursor="ada")).error
    assert isinstance(error, StepsChanged)
