"""What waits for Redis beside an event loop: the loop turns meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nbjobs import connection
from nbjobs.beside import NAME, THREADS, beside, beside_to_the_end
from nbjobs.jobs import job
from nbjobs.settings import configure, set_current
from nbjobs.stepping import step

from .support import RedisServer
from .worlds import World, aattempt

AWAY = 2.0  # seconds without Redis
told: dict[str, Any] = {}
place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="")


# -- the threads ---------------------------------------------------------------------------------------------


async def test_a_call_is_made_in_a_thread_of_its_own_with_this_context() -> None:
    """And its value comes back."""
    place.set("here")
    assert await beside(lambda: (threading.current_thread().name, place.get())) == (NAME, "here")


async def test_an_error_comes_back_too() -> None:
    """Whatever it is."""
    with pytest.raises(ZeroDivisionError):
        await beside(lambda: 1 / 0)


async def test_there_are_few_threads_and_all_calls_are_made() -> None:
    """More calls than threads wait for one another."""
    seen = set()

    def call() -> None:
        seen.add(threading.get_ident())

    await asyncio.gather(*(beside(call) for _ in range(50)))
    assert 1 <= len(seen) <= THREADS


async def test_a_cancelled_task_goes_on_at_once_and_the_call_to_its_end() -> None:
    """What is written is written whole."""
    gate, done = threading.Event(), threading.Event()
    task = asyncio.create_task(beside(lambda: (gate.wait(10), done.set())))
    await asyncio.sleep(0)
    task.cancel()
    (found,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(found, asyncio.CancelledError) and not done.is_set()
    gate.set()
    assert done.wait(10)


async def test_the_end_of_an_attempt_is_waited_for_however_often_it_is_cancelled() -> None:
    """Who writes how it ended is not stopped in it."""
    gate = threading.Event()
    task = asyncio.create_task(beside_to_the_end(lambda: gate.wait(10)))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    gate.set()
    assert await task is True


def test_a_fork_makes_threads_of_its_own() -> None:
    """Those of its parent are not there."""
    asyncio.run(beside(int))
    pid = os.fork()
    if not pid:
        os._exit(0 if asyncio.run(asyncio.wait_for(beside(lambda: True), 5)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# -- a continuation's checkpoints ----------------------------------------------------------------------------


class Telling(World):
    """Notes in which thread it was asked for a checkpoint."""

    threads: list[str]

    def checkpoint(self) -> str | None:
        self.__dict__.setdefault("threads", []).append(threading.current_thread().name)
        return super().checkpoint()


async def numbers(count: int) -> Any:
    for number in range(count):
        yield number


async def test_the_checkpoints_of_an_async_body_are_made_beside_its_loop() -> None:
    """Those of a step's beginning and end, and of loops; also where the body left one."""

    async def nothing() -> None:
        pass

    async def body() -> None:
        await step("a", nothing)
        async for _ in step.each("b", [1, 2], every=1):
            pass
        async for _ in step.each("c", numbers(3), every=1):
            break
        async for _ in step.each("d", numbers(3), key=str, every=1):
            pass

    world = await aattempt(body, kind=Telling)
    assert world.error is None and world.steps == ["a", "b", "c", "d"]
    assert len(world.threads) > 12 and set(world.threads) == {NAME}  # type: ignore[attr-defined]


async def test_a_step_that_is_cancelled_while_it_begins_is_left() -> None:
    """Nobody could end it: what the body does next is not nested in it."""
    gate = threading.Event()

    class Slow(World):
        def checkpoint(self) -> str | None:
            gate.wait(10)
            return super().checkpoint()

    async def body() -> str:
        waiting = asyncio.ensure_future(step("a", lambda: None))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        gate.set()
        return "" if world_of().running is None else "runs"

    def world_of() -> Any:
        from nbjobs.continuation import current

        return current()

    world = await aattempt(body, kind=Slow)
    assert world.value == "" and world.progress.step == "a"


# -- with a Redis that stands still --------------------------------------------------------------------------


@pytest.fixture
def standing() -> Iterator[Callable[[], None]]:
    """A Redis of its own that stands still for two seconds whenever that is asked for."""
    with RedisServer() as server:
        configure(redis_url=server.url, user="ada", queue="test", adapter="inline")
        timers = []

        def stand() -> None:
            os.kill(server.pid, signal.SIGSTOP)
            timers.append(threading.Timer(AWAY, os.kill, (server.pid, signal.SIGCONT)))
            timers[-1].start()

        yield stand
        for timer in timers:
            timer.join()
        set_current(None)
        connection.drop_client()


async def turning(gaps: list[float]) -> None:
    """Note how long the loop takes to come back here."""
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.01)
        gaps.append(time.monotonic() - last)
        last = time.monotonic()


@job
async def through_an_outage(kind: str) -> None:
    gaps: list[float] = []
    beat = asyncio.create_task(turning(gaps))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    told["stand"]()
    if kind == "step":
        await step("a", lambda: None)
    elif kind == "loop":
        async for _ in step.each("a", numbers(3), every=1):
            pass
    else:
        async for _ in step.each("a", [1, 2, 3], every=1):
            pass
    told.update(took=time.monotonic() - began, gap=max(gaps), turns=len(gaps))
    beat.cancel()


@pytest.mark.parametrize("kind", ["step", "loop", "plain"])
def test_the_loop_turns_while_redis_stands_still(standing: Callable[[], None], kind: str) -> None:
    """A step of an async body waits for its commit, and nobody else does."""
    told["stand"] = standing
    run = through_an_outage.enqueue(kind)
    assert run.state == "completed"
    assert told["took"] > AWAY * 0.8 and told["gap"] < AWAY / 2 and told["turns"] > 20
