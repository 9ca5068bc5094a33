"""Jobs that the tests of the worker and the daemon run in other processes."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from nbjobs import job, step


def note(path: str, *words: object) -> None:
    """Append one line to a ledger, whole even beside other processes."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, (" ".join(map(str, words)) + "\n").encode())
    os.close(fd)


def work(seconds: float) -> None:
    """Use CPU for about so long."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


@job
def add(a: int, b: int) -> int:
    return a + b


@job
async def aadd(a: int, b: int) -> int:
    return a + b


@job
def items(path: str, count: int, seconds: float = 0.005) -> int:
    """Note each item with the process that did it."""
    for item in step.each("items", range(count)):
        work(seconds)
        note(path, item, os.getpid())
    return count


@job
def endless(path: str) -> None:
    """One item that reaches no checkpoint."""
    note(path, "began", os.getpid())
    while True:
        time.sleep(60)


@job
def poison(path: str) -> None:
    """Kill the process each time."""
    note(path, "began", os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)


@job
def hold_interpreter(path: str, length: int) -> None:
    """Hold the GIL in C code for some seconds."""
    note(path, "began", os.getpid())
    re.match(r"(a+)+$", "a" * length + "b")
    note(path, "ended", os.getpid())


@job
def fail_once(path: str) -> str:
    """Fail after progress in the first attempt."""
    for item in step.each("items", range(3)):
        note(path, item, os.getpid())
        if item == 1 and not Path(path + ".failed").exists():
            note(path + ".failed", "now")
            raise OSError("the disk was busy")
    return "done"


@job
def say(words: str) -> None:
    print(words, flush=True)
