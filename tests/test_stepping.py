"""`step`: what a body writes, inside a run and outside."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import pickle
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nbjobs.errors import ContinuationError, Interrupt, InvalidStepError
from nbjobs.stepping import Stepping, step

from .worlds import aattempt, attempt, done

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="red")


@step
def double(x: int) -> int:
    """Twice x."""
    return 2 * x


@step(name="load rows")
def load(rows: list[int]) -> Any:
    return step.current.name, rows


@step
async def adouble(x: int) -> int:
    """Twice x, later."""
    await asyncio.sleep(0)
    return 2 * x


async def later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


def thread_id() -> int:
    return threading.get_ident()


def refused(body: Callable[[], Any]) -> str:
    error = attempt(body).error
    assert type(error) is InvalidStepError, error
    return str(error)


async def arefused(body: Callable[[], Coroutine[Any, Any, Any]]) -> str:
    error = (await aattempt(body)).error
    assert type(error) is InvalidStepError, error
    return str(error)


# -- step(name, fn, ...) -------------------------------------------------------------------------------------


def test_a_step_gets_its_arguments_and_gives_its_value() -> None:
    """Positional and by keyword, also one called `name`."""
    world = attempt(lambda: step("a", lambda *args, **named: (args, named), 1, 2, name="x", start=3))
    assert world.value == ((1, 2), {"name": "x", "start": 3})


def test_the_current_step_is_current_in_its_body_only() -> None:
    """Before and after there is none, and the message says what it is for."""
    names: list[str] = []

    def body() -> None:
        step("a", lambda: names.append(step.current.name))
        _ = step.current

    world = attempt(body)
    assert names == ["a"]
    assert isinstance(world.error, ContinuationError) and "No step is running here" in str(world.error)


@pytest.mark.parametrize(("args", "found"), [(("a",), "nothing"), (("a", 5), "int"), ((double, 5), "int")])
def test_a_step_needs_a_function(args: tuple[Any, ...], found: str) -> None:
    """The message says what was found in its place, and both forms."""
    with pytest.raises(InvalidStepError, match=rf"found {found} in its place.*step\.each"):
        step(*args)  # type: ignore[call-overload]


def test_an_async_function_needs_an_async_job() -> None:
    """In a plain one the message says what to do."""
    assert "Make the job `async def`" in refused(lambda: step("a", later, 5))
    assert "Make the job `async def`" in refused(lambda: adouble(5))


def test_step_is_pickled_by_reference() -> None:
    """A job sent by value refers to it."""
    assert pickle.loads(pickle.dumps(step)) is step and isinstance(step, Stepping)
    assert repr(step) == "<nbjobs.step>"


# -- @step ---------------------------------------------------------------------------------------------------


def test_a_decorated_function_is_a_step_in_a_run() -> None:
    """Of its own name, or of the name that was given."""
    world = attempt(lambda: (double(2), load([1])))
    assert world.value == (4, ("load rows", [1])) and world.steps == ["double", "load rows"]
    assert attempt(lambda: double(5), done("double")).value is None  # remembered


def test_named_calls_it_twice_in_a_run() -> None:
    """Under a name for each call; what else was declared stays."""

    @step(start=2000)
    def year(add: int) -> int:
        return step.current.cursor + add

    world = attempt(lambda: [year.named(f"load {y}")(y) for y in (1, 2)])  # type: ignore[attr-defined]
    assert world.value == [2001, 2002] and world.steps == ["load 1", "load 2"]
    assert "already been encountered" in refused(lambda: (year(1), year(2)))


def test_a_decorated_function_keeps_its_signature() -> None:
    """Name, docstring, parameters, and whether it is async."""
    assert (double.__name__, double.__doc__) == ("double", "Twice x.")
    assert str(inspect.signature(double)) == "(x: 'int') -> 'int'"
    assert asyncio.iscoroutinefunction(adouble) and not asyncio.iscoroutinefunction(double)
    assert adouble.__doc__ == "Twice x, later."


def test_a_decorated_method_is_a_step() -> None:
    """It is bound as any method is."""

    class Loader:
        rows = 3

        @step
        def load(self) -> int:
            return self.rows

    world = attempt(lambda: Loader().load())
    assert world.value == 3 and world.steps == ["load"]


def test_what_is_declared_wrongly_is_refused_where_it_is_declared() -> None:
    """An unknown option is a TypeError of Python's."""
    with pytest.raises(TypeError, match="nmae"):
        step(nmae="a")(double)  # type: ignore[call-overload]


# -- outside a run -------------------------------------------------------------------------------------------


def test_outside_a_run_a_step_is_a_function_call() -> None:
    """In any order, nested, twice; with a current step whose cursor begins at `start`."""

    @step(start=5)
    def where() -> Any:
        step.current.advance()
        step.current.checkpoint()
        return step.current.cursor, step.current.key

    assert [double(2), double(2), load([1])] == [4, 4, ("load rows", [1])]
    assert step("a", lambda: step("a", double, 4)) == 8
    assert where() == (6, "no-run:where:6")
    with pytest.raises(ContinuationError):
        _ = step.current


def test_outside_a_run_a_step_shares_the_callers_context() -> None:
    """What it sets stays set, as in any call."""

    def paint() -> None:
        context = contextvars.copy_context()
        context.run(inner)

    def inner() -> None:
        step("a", colour.set, "blue")
        seen.append(colour.get())

    seen: list[str] = []
    paint()
    assert seen == ["blue"]


def test_outside_a_run_an_error_leaves_no_step_behind() -> None:
    """The current step ends with its body."""
    with pytest.raises(ZeroDivisionError):
        step("a", lambda: 1 / 0)
    with pytest.raises(ContinuationError):
        _ = step.current


async def test_outside_a_run_an_async_body_awaits_its_steps() -> None:
    """Async functions and plain ones, as in a run; a plain function under @step is called."""

    async def body() -> list[Any]:
        return [
            await step("a", later, 1),
            await step("b", lambda: (step.current.name, thread_id() != here)),
            await adouble(2),
            double(3),
        ]

    here = thread_id()
    assert await body() == [1, ("b", True), 4, 6]
    with pytest.raises(ContinuationError):
        _ = step.current
    assert (await aattempt(body)).value == [1, ("b", True), 4, 6]


def test_outside_a_run_a_plain_function_in_a_running_loop_is_plain() -> None:
    """A notebook's cell always stands in one."""

    def cell() -> Any:
        return step("a", double, 2)

    async def kernel() -> Any:
        return cell()

    assert asyncio.run(kernel()) == 4


# -- async jobs ----------------------------------------------------------------------------------------------


async def test_an_async_step_runs_once() -> None:
    """Its value is remembered."""
    ran: list[int] = []

    async def work() -> str:
        ran.append(1)
        return "x"

    async def body() -> Any:
        return await step("a", work), await adouble(3)

    first = await aattempt(body)
    second = await aattempt(body, first)
    assert first.value == second.value == ("x", 6) and ran == [1]
    assert second.names == ["step_skipped a", "step_skipped adouble"]


async def test_a_plain_function_of_an_async_job_runs_in_a_thread() -> None:
    """With the current step and the context; under @step it is called where it stands."""

    async def body() -> Any:
        colour.set("green")
        in_thread = await step("a", lambda: (thread_id() != here, step.current.name, colour.get()))
        return in_thread, step(thread_id)() == here

    here = thread_id()
    assert (await aattempt(body)).value == ((True, "a", "green"), True)


async def test_a_function_that_returns_a_coroutine_is_awaited() -> None:
    """A lambda around an async call is an async step."""

    async def body() -> Any:
        return await step("a", lambda: later(5))

    assert (await aattempt(body)).value == 5


async def test_an_async_step_is_interrupted_and_goes_on() -> None:
    """At its cursor."""

    async def work() -> Any:
        if step.current.resumed:
            return step.current.cursor
        step.current.set(7)
        step.current.checkpoint()

    async def body() -> Any:
        return await step("a", work)

    stops = iter([None, "stopping"])
    first = await aattempt(body, stop=lambda: next(stops, None))
    assert isinstance(first.error, Interrupt)
    assert (await aattempt(body, first)).value == 7


async def test_a_cancelled_task_keeps_its_step() -> None:
    """Cancelling is no end of the step."""

    async def work() -> None:
        step.current.set(7)
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.sleep(0)

    async def body() -> None:
        await step("a", work)

    world = await aattempt(body)
    assert isinstance(world.error, asyncio.CancelledError) and world.progress == done(step="a", cursor=7)


@pytest.mark.parametrize("call", [lambda: step("a", later, 1), lambda: step("a", thread_id), adouble.named("a")])
async def test_a_step_that_is_not_awaited_is_an_error(call: Any) -> None:
    """At the next step, at the next loop, and at the body's end."""
    calls: list[Any] = []

    async def going_on() -> None:
        calls.append(call() if call.__name__ == "<lambda>" else call(1))
        await step("b", later, 2)

    async def looping() -> None:
        calls.append(call() if call.__name__ == "<lambda>" else call(1))
        for _ in step.each("b", [1]):
            pass

    async def ending() -> None:
        calls.append(call() if call.__name__ == "<lambda>" else call(1))

    for body in (going_on, looping, ending):
        sentence = await arefused(body)
        assert sentence.startswith("Step 'a' was called and not awaited.") and "await step('a', …)" in sentence
        calls.pop().close()
    close_all()


def close_all() -> None:
    """Coroutines that a refused body never came to await are no warning here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        gc.collect()


async def test_steps_may_be_called_first_and_awaited_in_order() -> None:
    """What counts is that each is awaited before a later one begins."""

    async def body() -> Any:
        first, second = step("a", later, 1), step("b", later, 2)
        return await first, await second

    assert (await aattempt(body)).value == (1, 2)


async def test_steps_are_not_awaited_side_by_side() -> None:
    """In `gather` the second is nested in the first."""

    async def body() -> None:
        await asyncio.gather(step("a", later, 1), step("b", later, 2))

    assert (await arefused(body)).startswith("Step 'b' is nested inside step 'a'")


async def test_a_step_that_still_runs_at_the_bodys_end_is_an_error() -> None:
    """A task that nobody awaited."""
    tasks: list[Any] = []

    async def body() -> None:
        tasks.append(asyncio.create_task(step("a", asyncio.sleep, 10)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert "Step 'a' is still running at the end of the job" in await arefused(body)
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
