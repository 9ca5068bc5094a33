"""Jobs whose items write themselves into a ledger. Children that load them obey the fail points."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from nbjobs import context
from nbjobs.jobs import job
from nbjobs.retries import Retry
from nbjobs.stepping import step

from . import failpoints
from .ledger import Ledger, Line, now_ns

failpoints.install()


def write(path: str, name: str, item: int, note: str = "") -> None:
    """Write an item of the running body into the ledger."""
    carrier: Any = context.carrier()
    claim, key = carrier._claim, ""
    if carrier.continuation.running is not None:
        key = step.current.key
    Ledger(path).append(Line(claim.run, name, item, claim.attempt, os.getpid(), now_ns(), key, claim.fence, note))


def work(seconds: float) -> None:
    """Be busy for that long; longer than 20 ms: wait for something outside."""
    if seconds > 0.02:
        time.sleep(seconds)
        return
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


@job
def count(path: str, total: int, seconds: float = 0.0, every: int | None = None, hurry: str = "") -> int:
    """A step that runs once, then a loop; once the file ``hurry`` is there its items take no time."""
    step("prepare", write, path, "prepare", 0)
    for item in step.each("count", range(total), every=every):
        if not (hurry and Path(hurry).exists()):
            work(seconds)
        write(path, "count", item)
    return total


@job
def hold(path: str, seconds: float) -> float:
    """A step whose one item keeps the interpreter for so long that no thread of the process gets a turn."""
    longest = 0.0
    for item in step.each("hold", range(1), every=1):
        longest = catastrophe(seconds)
        write(path, "hold", item, note=str(longest))
    return longest


def catastrophe(seconds: float) -> float:
    """Match a regular expression that takes at least so long, in one piece; return how long it took."""
    size, took = 16, 0.0
    while took < seconds:
        size += 1 if took < 0.05 else math.ceil(math.log2(seconds / took))
        began = time.perf_counter()
        re.match(r"(a+)+$", "a" * size + "b")
        took = time.perf_counter() - began
    return took


@job
def poison(path: str) -> None:
    """Ends its process each time, in the middle of a step: that it began is no progress."""
    step("die", _die, path)


def _die(path: str) -> None:
    write(path, "start", 0)
    os.kill(os.getpid(), signal.SIGKILL)


@job
def gated(path: str, gate: str) -> str:
    """No step at all: waits for a file, then returns."""
    write(path, "start", 0)
    while not Path(gate).exists():
        time.sleep(0.01)
    return "through"


@job
def rugged(path: str, total: int) -> int:
    """Ends its process at each tenth item, when it comes there for the first time."""
    for item in step.each("count", range(total), every=1):
        first = not any(line.item == item for line in Ledger(path).lines(context.carrier()._claim.run, "count"))
        write(path, "count", item)
        if first and item % 10 == 9:
            os.kill(os.getpid(), signal.SIGKILL)
    return total


def walk(path: str, names: list[str], hurry: str) -> str:
    """Steps of these names; the one called ``load`` is a loop, which takes no time once the file ``hurry`` is there."""
    for name in names:
        if not name.startswith("load"):
            step(name, write, path, name, 0)
            continue
        for item in step.each(name, range(1000), every=1):
            if not Path(hurry).exists():
                work(0.03)
            write(path, name, item)
    return "done"


@job(retry_on=[Retry(OSError, wait=1.0, jitter=0)])
def fails_once(path: str) -> None:
    """Fails in its first attempt, and is tried again after a second."""
    write(path, "start", 0)
    if len(Ledger(path).lines(context.carrier()._claim.run, "start")) == 1:
        raise OSError("the disk was busy")
