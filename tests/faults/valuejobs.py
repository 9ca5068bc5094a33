"""Jobs that tell and keep values of all kinds, and jobs that fork."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime
import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from nbjobs import connection, notify
from nbjobs.errors import CursorError
from nbjobs.jobs import job
from nbjobs.stepping import step

from .jobs import write


class Hostile:
    """Whatever is asked of it raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class Celsius(float):
    """A class of its own, that would come back as its base."""


class NotATime(datetime.datetime):
    """As pandas' NaT is: a datetime by its class, and no time."""


@dataclasses.dataclass
class Page:
    number: int
    seen: tuple[str, ...]


def _cycle() -> list[Any]:
    found: list[Any] = [1]
    found.append(found)
    return found


def _deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(2000):
        found = [found]
    return found


BAD: dict[str, Callable[[], Any]] = {
    "nan": lambda: math.nan,
    "nan inside": lambda: {"rows": [1, math.nan]},
    "decimal nan": lambda: Decimal("NaN"),
    "hostile": Hostile,
    "subclass": lambda: Celsius(3.5),
    "not a time": lambda: NotATime(2026, 1, 1),
    "function": lambda: len,
    "generator": lambda: (n for n in ()),
    "cycle": _cycle,
    "depth 2,000": _deep,
    "9 KiB": lambda: "x" * 9 * 1024,
}
"""What is no cursor."""

GOOD: dict[str, Callable[[], Any]] = {
    "int": lambda: 7,
    "2**70": lambda: 2**70,
    "str": lambda: "seven",
    "lone surrogate": lambda: "a\udc80b",
    "nul and bidi": lambda: "a\x00b\u202ec",
    "infinity": lambda: -math.inf,
    "list": lambda: [1, "a", None],
    "dict": lambda: {"page": 2, "rows": [1, 2]},
    "int keys": lambda: {1: "a", 2: "b"},
    "tuple": lambda: (1, ("a", 2)),
    "none": lambda: None,
    "bool": lambda: True,
    "bytes": lambda: b"\x00\xff",
    "decimal": lambda: Decimal("1.10"),
    "uuid": lambda: UUID(int=7),
    "set": lambda: {1, 2},
    "path": lambda: Path("/a/b"),
    "date": lambda: datetime.date(2026, 1, 31),
    "datetime": lambda: datetime.datetime(2026, 1, 31, 8, tzinfo=datetime.timezone.utc),
    "dataclass": lambda: Page(2, ("a",)),
}
"""What is one: it comes back equal in value and type, or it is refused."""


@job
def tells() -> dict[str, str]:
    """Notify each value, and try each as a cursor behind a good one; returns what was said of those refused."""
    said: dict[str, str] = {}
    for name, make in {**BAD, **GOOD}.items():
        notify(f"own.{name}", value=make(), nested={"deep": [make()]})
    for name, make in BAD.items():
        step(f"keep {name}", _try, name, make, said)
    return said


def _try(name: str, make: Callable[[], Any], said: dict[str, str]) -> None:
    step.current.set(1)
    try:
        step.current.set(make())
    except CursorError as error:
        said[name] = str(error)
    assert step.current.cursor == 1, "what was refused has changed nothing"


@job
def carries(path: str, name: str) -> str:
    """Keep a cursor, die, and say what has come back of it."""
    return step("keep", _carry, path, name)


def _carry(path: str, name: str) -> str:
    value = GOOD[name]()
    if step.current.resumed:
        found = step.current.cursor
        return "equal" if (type(found), found) == (type(value), value) else f"{type(found)} {found!r}"
    step.current.set(1)  # the next one must not be what there was at first
    step.current.set(value)
    step.current.checkpoint()
    write(path, "carry", 0)
    os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def double(number: int) -> int:
    """Work of a forked process, which has a copy of all that the body has."""
    notify("own.forked", number=number)
    if step.current.name:
        step.current.set(1000 + number)
        step.current.checkpoint()
    return 2 * number


@job
def forks(path: str) -> list[int]:
    """Processes in each way, from inside a step, with connections in use."""
    found = step("fork", _fork, path)
    for item in step.each("count", range(30), every=1):
        write(path, "count", item)
    return found


def _fork(path: str) -> list[int]:
    mine = connection.client().client_id()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            double(1)
            os.write(writing, str(connection.client().client_id()).encode())
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    other = int(os.read(reading, 100))
    assert other != mine, "the forked process has a connection of its own"
    assert connection.client().client_id() == mine
    fork = multiprocessing.get_context("fork")
    with fork.Pool(2) as pool:
        found = pool.map(double, range(4))
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as executor:
        found += executor.map(double, range(4))
    step.current.checkpoint()
    return found
