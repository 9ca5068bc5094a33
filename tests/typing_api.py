"""The public names as a user's type checker sees them. mypy reads this file; nothing runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from typing_extensions import assert_type

import nbjobs
from nbjobs import Run, job, step


@job
def add(x: int, y: int = 1) -> int:
    return x + y


@job(queue="gpu", max_resumptions=3)
def train(path: str) -> None: ...


@job
async def fetch(url: str) -> bytes:
    async for part in step.each("parts", parts()):
        assert_type(part, bytes)
    return await step("last", fetch_last, url)


async def fetch_last(url: str) -> bytes:
    return url.encode()


async def parts() -> AsyncIterator[bytes]:
    yield b""


@step
def load(path: str) -> list[float]:
    return [float(len(path))]


def calls() -> None:
    """A job is called and enqueued with the arguments of its function, and a mistake is seen."""
    assert_type(add(1, y=2), int)
    assert_type(add.enqueue(1), Run)
    assert_type(train.options(delay=5).enqueue("x.csv"), Run)
    add("1")  # type: ignore[arg-type]
    add.enqueue()  # type: ignore[call-arg]
    train.enqueue("x", 2)  # type: ignore[call-arg]
    train.options(later=5)  # type: ignore[call-arg]


def steps() -> None:
    """Steps give what their functions and items give."""
    assert_type(step("total", sum, [1, 2]), int)
    assert_type(load("x"), list[float])
    for row in step.each("rows", ["a", "b"], every=1):
        assert_type(row, str)
    step.current.advance()
    step.current.set({"page": 3})


def reading(run: Run) -> None:
    """A run is read, waited for and ended."""
    assert_type(run.state, str)
    assert_type(run.wait(timeout=5.0), Run)
    for event in run.events():
        assert_type(event.name, str)
        assert_type(event.n, int | None)
    run.cancel()
    assert_type(nbjobs.attach(run.id), Run)
    assert_type(nbjobs.runs(), list[Run])
    nbjobs.notify("import.prepared", total=3)
    with nbjobs.tagged(source="crm"):
        nbjobs.set_context(notebook="01")
