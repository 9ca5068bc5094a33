"""Bodies that end in every way that ours must be able to tell."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

from nbjobs import Retry, interrupt, job, notify, step

from ..hostile import HOSTILE
from .jobs import write


def hostile_error(bad: str) -> Exception:
    """Return an error whose text, class, note and cause have this text."""
    made: Any = type("Made", (ValueError,), {})
    for name in ("__qualname__", "__module__"):
        setattr(made, name, bad)
    try:
        made.__name__ = bad
    except (ValueError, UnicodeEncodeError):  # what no class can be called
        made.__name__ = "Made"
    error: Exception = made(bad)
    error.__notes__ = [bad, bad]  # type: ignore[attr-defined]
    error.__cause__ = made(bad)
    return error


class NoText(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class NoInterrupt(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


_made: dict[str, Any] = {"__builtins__": {}, "type": type, "Exception": Exception}
exec("made = type('NoModule', (Exception,), {})", _made)  # in a world without a name
NoModule: type[Exception] = _made["made"]


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit(4)


class NoName(Exception, metaclass=Meta):
    pass


class NoAttributes(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise GeneratorExit(name)


class NoText2(str):
    def __getitem__(self, item: Any) -> str:
        raise SystemExit(5)

    __len__ = __str__ = __getitem__  # type: ignore[assignment]


class OddText(Exception):
    def __str__(self) -> str:
        return NoText2("odd")


ODD: dict[str, BaseException] = {
    "its text ends the process": NoText(),
    "its text interrupts": NoInterrupt(),
    "its class has no module": NoModule("x"),
    "its class has no name": NoName("x"),
    "it has no attributes": NoAttributes("x"),
    "its text is no plain one": OddText(),
    "its file is half a character": ValueError("cannot read " + os.fsdecode(b"caf\xe9.txt")),
    "it is 16 KiB of control characters": ValueError(bytes(16384).decode("latin1")),
    "it is one line of 100,000 quotation marks": ValueError('"' * 100_000),
    "it says that a generator is closed": GeneratorExit("x"),
    "it ends the process": SystemExit(7),
    "it ends an iteration": StopIteration("x"),
    "it has the same cause for ever": ValueError("x"),
}
ODD["it has the same cause for ever"].__cause__ = ODD["it has the same cause for ever"]


def ends(name: str) -> BaseException:
    """Return one of the errors above, by its name."""
    return ODD[name] if name in ODD else hostile_error(HOSTILE[name])


@job
def raises(name: str) -> None:
    raise ends(name)


@job
async def araises(name: str) -> None:
    await asyncio.sleep(0)
    raise ends(name)


@job(timeout=60)
async def araises_in_time(name: str) -> None:
    await asyncio.sleep(0)
    raise ends(name)


@job
def tells(name: str) -> str:
    """Tell of something by a name that is no text, and do an item after it."""
    notify(name)
    for _ in step.each("items", [1]):
        notify(name)
    return "done"


@job
def totals() -> str:
    """Give a step what is no total."""
    for total in ("\udcff", 10**30, float("nan"), object(), -1, True):
        for _ in step.each(f"of {type(total).__name__} {str(total)[:3]!a}", range(3)):
            step.current.total = total  # type: ignore[assignment]
    return "done"


class Lost:
    """A place in a loop that cannot be told, as items of foreign classes may make it."""

    def standing(self, done: int) -> Any:
        raise OSError("the file is closed")


@job(resume_errors_after_advancing=False)
def loses_its_place() -> None:
    for _ in step.each("items", range(3)):
        step.current.place = Lost()


# -- what nobody has asked for -----------------------------------------------------------------------------------


@job
async def awaits_its_cancelled_task(path: str) -> None:
    write(path, "began", 0)
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


@job
def cancelled(path: str) -> None:
    write(path, "began", 0)
    raise asyncio.CancelledError


@job
def interrupts_itself(path: str) -> None:
    write(path, "began", 0)
    raise KeyboardInterrupt


@job
async def ainterrupts_itself(path: str) -> None:
    write(path, "began", 0)
    raise KeyboardInterrupt


@job(timeout=60)
async def ainterrupts_a_task(path: str) -> None:
    """With a timeout it is a task of its own, where Python would end the loop of all bodies."""
    write(path, "began", 0)
    raise KeyboardInterrupt


@job
def lets_itself_go(path: str) -> None:
    """Ask for the next attempt, and get no further."""
    write(path, "began", 0)
    interrupt("once more")


@job
def kills_its_nursery(path: str) -> None:
    write(path, "began", 0)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@job
def beside(path: str, seconds: float) -> str:
    """Work for some seconds without a checkpoint."""
    write(path, "began", 0)
    time.sleep(seconds)
    return "through"


@job(retry_on=[Retry(OSError, wait=30)])
def fails(path: str) -> None:
    write(path, "began", 0)
    raise OSError("gone")


@job
def parent(path: str) -> list[int]:
    """Return the process of a run of its own, and its own."""
    return [child.enqueue().result(timeout=20), os.getpid()]


@job
def child() -> int:
    return os.getpid()
