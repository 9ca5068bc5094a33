"""Cursors, and the step that is running."""

from __future__ import annotations

import threading
import time
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest

from nbjobs import codec
from nbjobs.errors import BadData, ContinuationError, CursorError, Interrupt, UnadvanceableCursorError
from nbjobs.steps import Cursor, Nowhere, Step, pack_cursor, successor, unpack_cursor

NAN = float("nan")


class Owner:
    """Counts how often it is reached, and stops where it is told to."""

    run_id = "r1"
    fence = 7

    def __init__(self) -> None:
        self.reached: list[Any] = []
        self.stops = False

    def is_time(self, now: float) -> bool:
        return False

    def reach(self, step: Step) -> None:
        step.flag = False
        self.reached.append(step.cursor)
        if self.stops:
            raise Interrupt


class Week:
    """A type that says what comes after it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __succ__(self) -> int:
        return self.number + 7


class Zero:
    """An int in all but name, as NumPy's are."""

    def __index__(self) -> int:
        return 0


def a_step(start: Any = None, **more: Any) -> tuple[Step, Owner]:
    owner = Owner()
    return Step("load", owner, start=Cursor(start), **more), owner


# -- stored cursors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cursor",
    [
        Cursor(None),
        Cursor(0),
        Cursor(8000, "9d2f"),
        Cursor(None, "9d2f"),
        Cursor("id-7"),
        Cursor((2026, "a")),
        Cursor([1, {"page": 2}]),
        Cursor(date(2026, 1, 31)),
        Cursor(Decimal("1.10")),
        Cursor(b"\x00\xff"),
        Cursor(2**80),
    ],
)
@pytest.mark.fault(37)
def test_a_stored_cursor_comes_back_as_it_was(cursor: Cursor) -> None:
    """Value, type and fingerprint survive the text."""
    back = unpack_cursor(pack_cursor(cursor))
    assert back == cursor and type(back.value) is type(cursor.value)


def test_no_cursor_is_an_empty_text() -> None:
    """Nothing is stored of nothing."""
    assert pack_cursor(Cursor(None)) == ""


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"f":"a"}', '{"v":1,"f":2}', '{"v":{"$what":1}}'])
def test_a_foreign_text_is_no_cursor(text: str) -> None:
    """What nbjobs did not write is refused, not guessed at."""
    with pytest.raises(BadData):
        unpack_cursor(text)


@pytest.mark.parametrize("value", [NAN, [1, NAN], object(), "x" * codec.CURSOR_LIMIT, lambda: 0])
def test_what_cannot_be_gone_on_from_is_no_cursor(value: Any) -> None:
    """NaN, what is no data, and more than 8 KiB are refused with a CursorError."""
    with pytest.raises(CursorError, match="cursor"):
        pack_cursor(Cursor(value))


# -- successors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 1),
        (-1, 0),
        (date(2026, 12, 31), date(2027, 1, 1)),
        (datetime(2026, 2, 28, 12, 30), datetime(2026, 3, 1, 12, 30)),
        (Week(3), 10),
        (Zero(), 1),
    ],
)
def test_ints_dates_and_who_says_so_have_successors(value: Any, expected: Any) -> None:
    """An int plus one, a date plus a day, or what `__succ__` answers."""
    assert successor(value) == expected


@pytest.mark.parametrize("value", ["az", 1.5, NAN, True, False, None, [1], (1,), b"a", Decimal(1)])
def test_other_types_have_none(value: Any) -> None:
    """Also a str and a bool: the message names the type and the way out."""
    sentence = f"A cursor of type '{type(value).__name__}' has no successor"
    with pytest.raises(UnadvanceableCursorError, match=sentence) as caught:
        successor(value)
    assert "step.current.set(cursor)" in str(caught.value)


def test_an_error_inside_succ_comes_out_as_it_is() -> None:
    """The protocol is tested for; what its method raises is the user's own."""

    class Broken:
        def __succ__(self) -> int:
            raise AttributeError("mine")

    with pytest.raises(AttributeError, match="mine"):
        successor(Broken())


# -- set, advance, checkpoint --------------------------------------------------------------------------------


def test_advance_goes_on_after_the_item_and_set_goes_on_at_it() -> None:
    """A cursor says where to start next time, not what was done last."""
    step, _ = a_step()
    step.advance(41)
    assert step.cursor == 42
    step.set(41)
    assert step.cursor == 41
    step.advance()
    assert step.cursor == 42
    step.advance(from_=date(2026, 1, 31))
    assert step.cursor == date(2026, 2, 1)


def test_zero_counts_as_given() -> None:
    """`advance(0)` begins at 0, whatever the cursor was."""
    step, _ = a_step(500)
    step.advance(0)
    assert step.cursor == 1


@pytest.mark.parametrize("value", ["az", None, 2.5, True])
def test_a_refused_advance_changes_nothing(value: Any) -> None:
    """A cursor without a successor stays, and the owner is not reached."""
    step, owner = a_step(value)
    step.flag = True
    with pytest.raises(UnadvanceableCursorError):
        step.advance()
    with pytest.raises(UnadvanceableCursorError):
        step.advance("a")
    assert step.cursor == value and not owner.reached


def test_a_successor_that_is_no_data_changes_nothing() -> None:
    """What `__succ__` answers is looked at before it is taken."""

    class Odd:
        def __succ__(self) -> object:
            return object()

    step, _ = a_step(5)
    with pytest.raises(CursorError):
        step.advance(Odd())
    assert step.cursor == 5


@pytest.mark.parametrize("bad", [NAN, object(), "x" * 9000])
def test_a_refused_cursor_changes_nothing(bad: Any) -> None:
    """NaN, no data or too big: the old cursor stays."""
    step, owner = a_step(5)
    step.flag = True
    with pytest.raises(CursorError):
        step.set(bad)
    assert step.cursor == 5 and not step.advanced and not owner.reached


def test_a_cursor_is_a_copy_that_the_body_cannot_change() -> None:
    """What moves in the body after `set` is not yet done, so it is no progress."""
    step, _ = a_step()
    where = {"page": 1}
    step.set(where)
    where["page"] = 2
    assert step.cursor == {"page": 1}
    before = step.value
    step.set(where)
    assert step.value != before


def test_without_the_flag_nothing_is_reached() -> None:
    """Setting a cursor costs a number: no commit."""
    step, owner = a_step(0)
    for row in range(100):
        step.advance(row)
        step.set(row)
        step.advance()
    assert owner.reached == []


def test_the_flag_makes_the_next_item_reach() -> None:
    """Each of `advance()`, `advance(x)` and `set` reaches its owner once the flag is up, with the new cursor."""
    step, owner = a_step(0)
    for move in (step.advance, lambda: step.advance(8), lambda: step.set(20)):
        step.flag = True
        move()
        move()
    assert owner.reached == [1, 9, 20]


def test_an_interrupt_keeps_the_new_cursor() -> None:
    """The cursor is stored before the owner is asked."""
    step, owner = a_step(0)
    owner.stops = step.flag = True
    with pytest.raises(Interrupt):
        step.advance(41)
    assert step.cursor == 42


def test_checkpoint_reaches_always() -> None:
    """It has committed when it returns."""
    step, owner = a_step(3)
    step.checkpoint()
    step.checkpoint()
    assert owner.reached == [3, 3]


def test_the_flag_may_be_raised_by_another_thread() -> None:
    """That is how an attempt is told to stop."""
    step, owner = a_step(0)
    thread = threading.Thread(target=lambda: setattr(step, "flag", True))
    thread.start()
    thread.join()
    step.advance()
    assert owner.reached == [1]


def test_a_flag_that_is_raised_during_a_look_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look ends without it, the next item reaches."""
    step, owner = a_step(0)
    monkeypatch.setattr(owner, "is_time", lambda now: setattr(step, "flag", True))
    step.advance()
    assert owner.reached == []
    step.advance()
    assert owner.reached == [2]


def test_a_look_at_the_clock_comes_about_once_in_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast items are done many between two looks; slow ones cost one each, once they are known to be slow."""
    step, owner = a_step(0)
    now, looks = 1000.0, []
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(owner, "is_time", looks.append)
    for _ in range(10_000):
        now += 10e-6
        step.advance()
    assert 50 <= len(looks) <= 150  # of 100 ms
    looks.clear()
    for _ in range(200):
        now += 4e-3
        step.advance()
    assert 100 <= len(looks) <= 200


@pytest.mark.parametrize("start", [-5, -(2**40), 2**40])
def test_a_flag_is_heard_at_any_number(start: int) -> None:
    """Also below zero, and where a number is as large as a time in nanoseconds."""
    step, owner = a_step(start)
    step.flag = True
    step.advance()
    step.flag = True
    step.advance(start + 7)
    assert owner.reached == [start + 1, start + 8]


def test_a_cursor_that_is_no_number_goes_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no stride among such."""
    step, owner = a_step(date(2026, 1, 1))
    monkeypatch.setattr(owner, "is_time", lambda now: True)
    step.advance()
    step.set("b")
    assert owner.reached == [date(2026, 1, 2), "b"]


# -- what a step says ----------------------------------------------------------------------------------------


def test_advanced_compares_values() -> None:
    """The same value again, or away and back, is no progress of this attempt."""
    step, _ = a_step(5)
    step.set(5)
    assert not step.advanced
    step.set(6)
    assert step.advanced
    step.set(5)
    assert not step.advanced


def test_the_key_names_the_item_in_hand() -> None:
    """Run, step and cursor: the same on every attempt, for any type of cursor."""
    step, _ = a_step()
    keys = [step.key]
    for cursor in (7, "id-7", date(2026, 1, 31)):
        step.set(cursor)
        keys.append(step.key)
    assert keys == ["r1:load:null", "r1:load:7", "r1:load:id-7", 'r1:load:{"$date":"2026-01-31"}']


def test_the_fence_is_the_owners() -> None:
    """It is what a store compares."""
    assert a_step()[0].fence == 7


def test_an_int_cursor_counts_where_the_total_is_known() -> None:
    """`step.current.total = n` makes a bar of a step that advances an int."""
    step, _ = a_step(3)
    assert step.standing() == (Cursor(3), None)
    step.total = 10
    assert step.standing() == (Cursor(3), 3)
    step.set("a")
    assert step.standing() == (Cursor("a"), None)


def test_a_step_says_where_it_stands() -> None:
    """Description and repr have name and cursor."""
    step, _ = a_step(5, resumed=True)
    assert step.description == "at 'load', cursor 5"
    assert repr(step) == "<Step 'load' cursor=5 resumed=True>"
    assert a_step()[0].description == "at 'load', cursor None"


def test_outside_a_run_nothing_is_kept_and_nothing_stops() -> None:
    """The owner of a step outside a run does nothing."""
    step = Step("load", Nowhere(), start=Cursor(None))
    step.flag = True
    step.advance(1)
    step.checkpoint()
    assert (step.cursor, step.key, step.fence) == (2, "no-run:load:2", 0)


def test_errors_of_cursors_belong_to_the_continuation() -> None:
    """So a job that retries its own errors does not retry them."""
    assert issubclass(CursorError, ContinuationError) and issubclass(UnadvanceableCursorError, ContinuationError)
