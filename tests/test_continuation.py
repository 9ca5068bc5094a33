"""The state machine of a run: steps that ran are skipped, and what no longer fits pauses."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nbjobs import codec, values
from nbjobs.continuation import Continuation, active, current
from nbjobs.errors import CursorError, Fenced, Interrupt, InvalidStepError, StepsChanged
from nbjobs.progress import Progress, Saved
from nbjobs.stepping import step
from nbjobs.steps import Cursor

from .worlds import Died, World, attempt, done


def nothing() -> None:
    """A step that does nothing."""


def failing(error: BaseException | None = None) -> None:
    raise error or ValueError("no")


def refused(body: Callable[[], Any], progress: Progress | World | None = None) -> str:
    """The sentence with which a body is refused."""
    error = attempt(body, progress).error
    assert type(error) is InvalidStepError, error
    return str(error)


def changed(body: Callable[[], Any], progress: Progress | World | None = None) -> StepsChanged:
    error = attempt(body, progress).error
    assert isinstance(error, StepsChanged), error
    return error


# -- steps that run and steps that ran -----------------------------------------------------------------------


def test_a_step_that_ended_is_not_run_again() -> None:
    """Its value is remembered; code outside steps runs on every attempt."""
    ran: list[str] = []

    def body() -> list[Any]:
        ran.append("outside")
        return [step("a", lambda: ran.append("a") or 5), step("b", "{}{}".format, "x", 2)]

    first = attempt(body)
    second = attempt(body, first)
    assert first.value == second.value == [5, "x2"]
    assert ran == ["outside", "a", "outside"]
    assert second.names == ["step_skipped a", "step_skipped b"]


def test_each_step_is_told_when_it_begins_and_when_it_ends() -> None:
    """Begin: cursor, resumed, total. End: cursor, count, duration, interrupted. In this order, each once."""
    world = attempt(lambda: (step("a", nothing), step("b", nothing)))
    assert world.names == ["step_started a", "step a", "step_started b", "step b"]
    assert world.told("job.step_started")[0] == {
        "step": "a",
        "cursor": None,
        "resumed": False,
        "done": None,
        "total": None,
    }
    (told, _) = world.told("job.step")
    assert told["interrupted"] is False and told["duration"] >= 0 and "exception" not in told


def test_a_steps_end_is_durable_before_the_next_begins() -> None:
    """Beginning and end each make a checkpoint."""
    seen: list[list[str]] = []
    world = attempt(lambda: [step(name, lambda: seen.append(list(run_world().steps))) for name in "abc"])
    assert seen == [[], ["a"], ["a", "b"]]
    assert world.steps == ["a", "b", "c"]


def run_world() -> World:
    run = current()
    assert run is not None and isinstance(run._world, World)
    return run._world


def test_the_step_under_way_goes_on_at_its_cursor() -> None:
    """Its cursor and `resumed` are what the next attempt finds."""
    found: list[tuple[Any, bool]] = []

    def load() -> None:
        found.append((step.current.cursor, step.current.resumed))
        step.current.advance(41)
        if not step.current.resumed:
            step.current.checkpoint()

    stops = iter([None, "stopping"])
    first = attempt(lambda: step("load", load), stop=lambda: next(stops, None))
    assert isinstance(first.error, Interrupt) and first.progress.cursor.value == 42
    second = attempt(lambda: step("load", load), first)
    assert second.error is None and found == [(None, False), (42, True)]
    assert second.told("job.step_started")[0]["cursor"] == 42


def test_start_is_the_first_cursor_only() -> None:
    """`start=` is ignored once there is a stored cursor; a stored None is one, too."""
    found: list[Any] = []

    @step(start=100)
    def load() -> None:
        found.append(step.current.cursor)

    attempt(load)
    attempt(load, done(step="load", cursor=142))
    attempt(load, done(step="load", cursor=None))
    assert found == [100, 142, None]


def test_a_start_that_is_no_cursor_is_refused_before_the_step() -> None:
    """NaN is refused before anything changes."""
    world = attempt(step(start=float("nan"))(failing))
    assert isinstance(world.error, CursorError) and world.events == [] and world.progress == Progress()


def test_a_start_is_the_steps_own() -> None:
    """A list given as `start` is not shared by the runs of a process."""

    @step(start=[])
    def gather() -> list[int]:
        step.current.cursor.append(1)
        return list(step.current.cursor)

    assert [attempt(gather).value for _ in range(2)] == [[1], [1]]


def test_an_error_keeps_the_step_and_its_cursor() -> None:
    """It is told with the exception; the next attempt goes on there."""

    def load() -> None:
        step.current.set(7)
        failing()

    world = attempt(lambda: step("load", load))
    assert world.progress == done(step="load", cursor=7)
    (told,) = world.told("job.step")
    assert told["exception"] == {"type": "ValueError", "message": "no"} and told["interrupted"] is False
    assert world.run.advanced


def test_a_process_that_dies_keeps_its_last_checkpoint() -> None:
    """Progress is durable at each checkpoint, not only where the attempt ends in good order."""

    def load() -> None:
        step.current.set(7)
        step.current.checkpoint()
        step.current.set(8)
        raise Died

    world = attempt(lambda: (step("a", nothing), step("load", load)))
    assert world.progress == done("a", step="load", cursor=7)


# -- what is remembered --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, "x" * 60_000, {"a": (1, 2)}, {1, 2}])
def test_values_come_back_as_they_were(value: Any) -> None:
    """With their types."""
    again = attempt(lambda: step("a", failing), attempt(lambda: step("a", lambda: value)))
    assert again.value == value and type(again.value) is type(value)


@pytest.mark.parametrize("value", ["x" * 1_000_000, object()])
def test_a_value_that_cannot_be_kept_does_not_fail_the_step(value: Any) -> None:
    """One of 1 MB, or no data: it is returned, not kept, and the event says why."""
    world = attempt(lambda: step("a", lambda: value))
    assert world.value is value and world.progress.ended == (Saved("a", None),)
    (told,) = world.told("job.step")
    assert told["kept"] is False and "step 'a'" in told["note"]


def test_a_run_remembers_four_mib_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that values are not kept, over all attempts; a step without a value always is."""
    assert values.VALUES_LIMIT == 4 * 1024 * 1024
    monkeypatch.setattr(values, "VALUES_LIMIT", 64)
    before = Progress((Saved("a", codec.encode("x" * 60)),))

    def body() -> None:
        for name in "ab":
            step(name, lambda: "y" * 60)
        step("c", nothing)

    assert [saved.value is None for saved in attempt(body, before).progress.ended] == [False, True, False]


def test_a_step_whose_value_was_not_kept_runs_again() -> None:
    """In its place, as itself; it does not end twice."""
    ran: list[str] = []

    def body() -> Any:
        value = step("a", lambda: ran.append("a") or object)
        step("b", lambda: ran.append("b"))
        return value

    first = attempt(body)
    second = attempt(body, first)
    assert ran == ["a", "b", "a"] and second.value is object
    assert second.names == ["step_started a", "step a", "step_skipped b"]
    assert second.steps == ["a", "b"]


def test_a_step_that_runs_again_leaves_the_step_under_way_alone() -> None:
    """The later step keeps its cursor, also where the process dies while the earlier one runs again."""
    before = Progress((Saved("a", None),), "b", codec_cursor(5))
    died = attempt(lambda: step("a", failing, Died()), before)
    assert died.progress == before

    found: list[Any] = []
    again = attempt(lambda: (step("a", object), step("b", lambda: found.append(step.current.cursor))), died)
    assert found == [5] and again.steps == ["a", "b"]
    assert again.told("job.step_started")[0]["step"] == "a"


def codec_cursor(value: Any) -> Cursor:
    return Cursor(value)


def test_running_again_is_no_progress() -> None:
    """Else an attempt that fails behind such a step would be resumed for ever."""
    world = attempt(lambda: (step("a", object), step("b", failing)), Progress((Saved("a", None),)))
    assert isinstance(world.error, ValueError) and not world.run.advanced

    def advancing() -> None:
        step.current.advance(5)
        failing()

    assert not attempt(lambda: step("a", advancing), Progress((Saved("a", None),))).run.advanced


# -- the five checks -----------------------------------------------------------------------------------------


def test_1_a_name_is_a_str() -> None:
    """The sentence has the name and its type."""
    assert refused(lambda: step(5, nothing)) == "Step '5' must be a str, found 'int'"
    assert refused(lambda: step("", nothing)) == "Step '' must be a str, and not empty"
    assert "200 at most" in refused(lambda: step("x" * 201, nothing))


def test_2_a_name_is_met_once() -> None:
    """Also where the step was skipped, and where its body failed and the error was caught."""
    sentence = "Step 'a' has already been encountered"
    assert refused(lambda: (step("a", nothing), step("a", nothing))).startswith(sentence)
    assert refused(lambda: (step("a", nothing), step("a", nothing)), done("a")).startswith(sentence)

    def catching() -> None:
        with contextlib.suppress(ValueError):
            step("a", failing)
        step("a", nothing)

    assert refused(catching).startswith(sentence)


def test_3_a_step_is_not_nested() -> None:
    """The sentence names both."""
    assert refused(lambda: step("a", lambda: step("b", nothing))).startswith("Step 'b' is nested inside step 'a'")


def test_4_the_step_under_way_comes_first() -> None:
    """Another step in its place is changed code: it pauses with both lists."""
    error = changed(lambda: (step("a", nothing), step("c", nothing)), done("a", step="b", cursor=5))
    assert str(error) == "Step 'c' found, expected to resume from 'b'"
    assert (error.stored, error.found) == (("a", "b"), ("a", "c"))


def test_5_the_steps_that_ended_come_in_their_order() -> None:
    """Inserted, renamed, reordered, removed: the first mismatch pauses with both lists."""
    stored = done("a", "b", "c")
    for names in ("axbc", "axc", "acb", "ac"):
        error = changed(lambda names=names: [step(name, nothing) for name in names], stored)
        assert str(error) == f"Step '{names[1]}' found, expected to see 'b'"
        assert error.stored == ("a", "b", "c") and error.found == ("a", names[1])


def test_steps_may_be_appended() -> None:
    """What ended stays ended, what is new runs."""
    world = attempt(lambda: [step(name, nothing) for name in "abcd"], done("a", "b"))
    assert world.error is None and world.steps == ["a", "b", "c", "d"]


def test_a_body_that_ends_earlier_is_not_refused() -> None:
    """As in Rails, leaving steps out at the end is no error."""
    assert attempt(nothing, done("a", step="b", cursor=5)).error is None


def test_the_checks_come_in_the_order_of_rails() -> None:
    """Type before repetition, repetition before nesting, nesting before order."""
    assert "already been encountered" in refused(lambda: step("a", lambda: step("a", nothing)))
    assert "must be a str" in refused(lambda: step("a", lambda: step(5, nothing)))
    assert "is nested" in refused(lambda: step("a", lambda: step("x", nothing)), done(step="a"))
    assert "expected to resume" in str(changed(lambda: step("x", nothing), done("b", step="a")))


def test_no_step_follows_one_that_failed() -> None:
    """A caught failure of a step leaves it the current one: what follows is a mistake, no changed code."""

    def body() -> None:
        with contextlib.suppress(ValueError):
            step("a", failing)
        step("b", nothing)

    for progress in (None, done(step="a", cursor=5)):
        sentence = refused(body, progress)
        assert sentence.startswith("Step 'b' found, expected to resume from 'a'") and "failed" in sentence


def test_changed_steps_hold_where_they_are_caught() -> None:
    """The run pauses all the same: at the next step and at the body's end."""

    def swallowing(then: Callable[[], Any]) -> Callable[[], Any]:
        def body() -> None:
            with contextlib.suppress(Exception):
                step("x", nothing)
            then()

        return body

    assert "expected to see 'a'" in str(changed(swallowing(lambda: step("a", nothing)), done("a")))
    assert "expected to see 'a'" in str(changed(swallowing(nothing), done("a")))


# -- stopping ------------------------------------------------------------------------------------------------


def test_interrupt_is_no_exception() -> None:
    """A body's `except Exception` does not swallow it."""
    assert not issubclass(Interrupt, Exception)

    def body() -> None:
        with contextlib.suppress(Exception):
            step("a", lambda: step.current.checkpoint())

    world = attempt(body, stop=iter([None, "cancel", "cancel"]).__next__)
    assert isinstance(world.error, Interrupt) and world.error.reason == "cancel"
    assert world.error.description == "at 'a', cursor None"


def test_a_stop_is_heard_before_the_next_step_and_not_after_the_last() -> None:
    """What was asked for while a step ran ends the attempt between the two."""
    world = attempt(lambda: (step("a", nothing), step("b", nothing)), stop=lambda: "stopping")
    assert isinstance(world.error, Interrupt) and world.steps == ["a"]
    assert world.error.description == "after 'a'"
    last = attempt(lambda: (step("a", nothing), step("b", nothing)), world, stop=lambda: "stopping")
    assert last.error is None and last.steps == ["a", "b"]


def test_a_stop_is_heard_behind_a_step_that_ran_again() -> None:
    """That is no progress, but it may have taken long."""
    world = attempt(lambda: (step("a", object), step("b", failing)), Progress((Saved("a", None),)), stop=lambda: "stop")
    assert isinstance(world.error, Interrupt) and world.error.reason == "stop"


def test_a_stop_comes_before_a_mistake() -> None:
    """A stopping worker interrupts before an invalid step is noticed."""
    world = attempt(lambda: (step("a", nothing), step("a", nothing)), stop=lambda: "stopping")
    assert isinstance(world.error, Interrupt)


def test_a_swallowed_interrupt_holds_at_the_next_step() -> None:
    """Also where the world no longer asks for it."""
    ran: list[str] = []

    def careless() -> None:
        with contextlib.suppress(BaseException):
            step.current.checkpoint()

    stops = iter([None, "stopping"])
    world = attempt(lambda: (step("a", careless), step("b", lambda: ran.append("b"))), stop=lambda: next(stops, None))
    assert isinstance(world.error, Interrupt) and ran == [] and world.steps == ["a"]
    (told,) = world.told("job.step")
    assert told["interrupted"] is False


def test_a_swallowed_interrupt_holds_at_the_end() -> None:
    """A body that returns all the same is not done."""

    def body() -> None:
        with contextlib.suppress(BaseException):
            step("a", lambda: step.current.checkpoint())

    stops = iter([None, "stopping"])
    world = attempt(body, stop=lambda: next(stops, None))
    assert isinstance(world.error, Interrupt) and world.progress.step == "a" and world.steps == []


def test_an_interrupted_step_says_so() -> None:
    """Its event has `interrupted` and no exception."""
    stops = iter([None, "stopping"])
    world = attempt(lambda: step("a", lambda: step.current.advance(5)), stop=lambda: next(stops, None))
    assert world.error is None  # no flag: nothing was asked

    def advancing() -> None:
        step.current.flag = True
        step.current.advance(5)

    stops = iter([None, "stopping"])
    world = attempt(lambda: step("a", advancing), stop=lambda: next(stops, None))
    (told,) = world.told("job.step")
    assert told["interrupted"] is True and told["cursor"] == 6 and "exception" not in told


def test_an_attempt_that_lost_its_run_is_fenced() -> None:
    """Its interrupt is one that writes nothing."""
    stops = iter([None, "fenced"])
    world = attempt(lambda: step("a", lambda: step.current.checkpoint()), stop=lambda: next(stops, None))
    assert isinstance(world.error, Fenced)


def test_a_body_may_interrupt_itself() -> None:
    """With a reason of its own, also outside a step."""

    def body() -> None:
        step("a", nothing)
        run = current()
        assert run is not None
        run.interrupt("waiting")

    world = attempt(body)
    assert isinstance(world.error, Interrupt)
    assert (world.error.reason, world.error.description) == ("waiting", "after 'a'")


def test_the_flag_is_down_before_the_commit() -> None:
    """Who raises it while a commit is under way is heard at the next item."""

    def body() -> None:
        now = step.current
        now.flag = True
        asked.append(now)
        now.advance(1)
        assert now.flag
        now.advance(2)

    asked: list[Any] = []

    def stop() -> str | None:
        if asked and len(reached) < 1:
            reached.append(1)
            asked[0].flag = True
        elif asked:
            return "stopping"
        return None

    reached: list[int] = []
    world = attempt(lambda: step("a", body), stop=stop)
    assert isinstance(world.error, Interrupt) and world.progress.cursor.value == 3


def test_a_step_that_has_ended_cannot_be_gone_on_with() -> None:
    """Who kept `step.current` is told, instead of writing into nothing."""
    kept: list[Any] = []

    def body() -> None:
        step("a", lambda: kept.append(step.current))
        kept[0].advance(5)

    assert "Step 'a' has ended" in refused(body)
    kept.clear()
    assert "Step 'a' has ended" in refused(lambda: (step("a", lambda: kept.append(step.current)), kept[0].checkpoint()))


# -- isolated steps ------------------------------------------------------------------------------------------


def isolating(ran: list[str]) -> Callable[[], None]:
    def body() -> None:
        step("a", lambda: ran.append("a"))
        step(name="b", isolated=True)(lambda: ran.append("b"))()
        step("c", lambda: ran.append("c"))

    return body


def test_an_isolated_step_has_an_attempt_of_its_own() -> None:
    """The attempt ends before it, and before the step after it."""
    ran: list[str] = []
    worlds = [attempt(isolating(ran))]
    while worlds[-1].error is not None:
        assert isinstance(worlds[-1].error, Interrupt) and worlds[-1].error.reason == "isolating"
        ran.append("|")
        worlds.append(attempt(isolating(ran), worlds[-1]))
    assert ran == ["a", "|", "b", "|", "c"]
    assert worlds[1].names == ["step_skipped a", "step_started b", "step b"]


def test_an_isolated_step_that_is_first_or_resumed_runs_at_once() -> None:
    """Skipping is no progress; and a step half done needs no hop."""
    ran: list[str] = []
    attempt(isolating(ran), done("a"))
    attempt(isolating(ran), done("a", step="b", cursor=1))
    assert ran == ["b", "b"]


def test_an_isolated_last_step_ends_the_run() -> None:
    """No attempt comes behind it."""

    def body() -> None:
        step("a", nothing)
        step(name="b", isolated=True)(nothing)()

    first = attempt(body)
    assert isinstance(first.error, Interrupt)
    second = attempt(body, first)
    assert second.error is None and second.steps == ["a", "b"]


def test_isolation_lasts_to_the_end_of_the_attempt() -> None:
    """Also where a plain step follows, and behind a step that was skipped it is not armed."""
    ran: list[str] = []

    def body() -> None:
        step(name="a", isolated=True)(lambda: ran.append("a"))()
        step("b", lambda: ran.append("b"))
        step("c", lambda: ran.append("c"))

    first = attempt(body)
    assert isinstance(first.error, Interrupt) and ran == ["a"]
    assert attempt(body, first).error is None and ran == ["a", "b", "c"]


def test_a_step_that_runs_again_does_not_isolate_for_ever() -> None:
    """Behind one whose value is never kept, an isolated step still gets its turn."""
    ran: list[str] = []

    def body() -> None:
        step("a", object)
        step(name="b", isolated=True)(lambda: ran.append("b"))()

    world = attempt(body)
    assert isinstance(world.error, Interrupt)
    assert attempt(body, world).error is None and ran == ["b"]


# -- what is known of an attempt -----------------------------------------------------------------------------


def test_where_a_run_stands_in_words() -> None:
    """Not started, after a step, or at one."""

    def words(progress: Progress | None) -> str:
        return Continuation(World(), progress).description

    assert words(None) == "not started"
    assert words(done("a", "b")) == "after 'b'"
    assert words(done("a", step="b", cursor=[1])) == "at 'b', cursor [1]"
    assert [Continuation(World(), p).started for p in (None, done("a"), done(step="a"))] == [False, True, True]


def test_progress_is_of_this_attempt() -> None:
    """Skipping is none; a step that ends or a cursor that moves is."""
    assert not attempt(lambda: step("a", nothing), done("a")).run.advanced
    assert not attempt(lambda: step("a", failing), done(step="a", cursor=5)).run.advanced
    assert attempt(lambda: step("a", nothing)).run.advanced
    assert attempt(lambda: (step("a", nothing), failing())).run.advanced


def test_a_step_that_ended_and_is_stored_as_under_way_has_ended() -> None:
    """The list of ended steps is the truth."""
    assert attempt(lambda: step("a", failing), done("a", step="a", cursor=5)).error is None


def test_a_step_is_resumed_for_the_whole_attempt() -> None:
    """Also after it has moved, and where it was stored without a cursor."""
    found: list[bool] = []

    def load() -> None:
        found.append(step.current.resumed)
        step.current.advance(1)
        found.append(step.current.resumed)

    attempt(lambda: step("load", load), done(step="load", cursor=None))
    attempt(lambda: step("load", load))
    assert found == [True, True, False, False]


def test_a_continuation_is_current_in_its_own_context() -> None:
    """Not after it, and not in a thread that a body starts."""
    seen: list[Continuation | None] = []

    def body() -> None:
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
        seen.append(current())

    world = attempt(body)
    assert seen == [None, world.run] and current() is None


def test_another_thread_sees_a_steps_end_and_its_event_or_neither() -> None:
    """The lock is held while both change."""
    world = World()
    run = world.run = Continuation(world)
    seen: list[tuple[int, int]] = []

    def happened(name: str, payload: dict[str, Any]) -> None:
        World.happened(world, name, payload)
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(0.02)

    def look() -> None:
        with run.lock:
            seen.append((len(run.ended) + len(world.progress.ended), len(world.told("job.step"))))

    world.happened = happened  # type: ignore[method-assign]
    with active(run):
        step("a", nothing)
        run.finish()
    assert set(seen) <= {(0, 0), (1, 1)}


def test_messages_say_what_to_do() -> None:
    """Found, expected, and the way out."""
    assert re.search("name of its own", refused(lambda: (step("a", nothing), step("a", nothing))))
    assert re.search("follow one another", refused(lambda: step("a", lambda: step("b", nothing))))
