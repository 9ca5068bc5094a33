"""Jobs that the tests of the worker and the daemon run in other processes."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

from tqdm import tqdm

from nbjobs import Retry, job, notify, set_context, step


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
    """Note each item with the process that did it. Once the gate is open they cost nothing."""
    for item in step.each("items", range(count)):
        if not Path(path + ".gate").exists():
            work(seconds)
        note(path, item, os.getpid())
    return count


@job
def tells(path: str, count: int) -> None:
    """Do the items as `items` does, between two steps that have no cursor, and tell of each in a context of its own."""
    set_context(batch=7)
    step("prepare", notify, "import.prepared", total=count)
    for item in step.each("items", range(count)):
        notify("import.row", row=item)
        if not Path(path + ".gate").exists():
            work(0.005)
        note(path, item, os.getpid())
    step("finalize", notify, "import.finalized")


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


def wait_for_file(path: str) -> None:
    """Wait without a checkpoint."""
    while not Path(path).exists():
        time.sleep(0.005)


@job
def gated(path: str) -> str:
    """Three items, of which the second lasts until the gate is opened: a slow one, committed before the third."""
    for item in step.each("items", range(3)):
        note(path, item, os.getpid())
        if item == 1:
            time.sleep(0.2)
            wait_for_file(path + ".gate")
    return "done"


@job
def looks_again(path: str) -> str:
    """Checkpoints at which nothing has moved, until the gate is opened."""

    def look() -> None:
        note(path, "began", os.getpid())
        while not Path(path + ".gate").exists():
            time.sleep(0.02)
            if Path(path + ".check").exists():
                step.current.checkpoint()

    step("look", look)
    return "done"


@job
async def waits(path: str, name: str) -> str:
    """Wait for the gate in an event loop."""
    note(path, name, os.getpid())
    while not Path(path + ".gate").exists():
        await asyncio.sleep(0.01)
    return name


@job
async def steps_aside(path: str) -> None:
    """An async loop with a checkpoint after each item."""
    async for item in step.each("items", range(100_000)):
        note(path, item, os.getpid())
        await asyncio.sleep(0.005)


@job
async def stubborn(path: str) -> None:
    """Go on though it is cancelled."""
    note(path, "began", os.getpid())
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note(path, "refused", os.getpid())


def tell(number: int) -> None:
    """Print in each way there is, with an event in between."""
    print("stdout", number)
    notify(f"own.{number}")
    print("stderr", number, file=sys.stderr)
    logging.getLogger("shop.orders").info("logged %d", number)
    logging.getLogger("shop.orders").debug("not shown")


def warn_and_show_progress() -> None:
    warnings.warn("the disk is nearly full", stacklevel=1)
    for _ in tqdm(range(50), mininterval=0):
        pass


@job
def tells_everything() -> None:
    for number in range(3):
        tell(number)
        step(f"step {number}", print, "in step", number)
    warn_and_show_progress()


@job
async def atells_everything() -> None:
    for number in range(3):
        tell(number)
        await step(f"step {number}", print, "in step", number)
    warn_and_show_progress()
    await asyncio.to_thread(print, "in a thread")


@job
def tells_in_c() -> None:
    """Write beside Python: C code's own buffer, a descriptor, a program."""
    libc = ctypes.CDLL(None)
    print("before")
    libc.puts(b"C's buffer")
    libc.fflush(None)
    os.write(2, b"a descriptor\n")
    subprocess.run(["echo", "a program"], check=True)
    print("after")


@job
def logs_its_own_way() -> None:
    """Set logging up as in a script."""
    logging.basicConfig(format="mine: %(message)s", level=logging.DEBUG, force=False)
    logging.getLogger("shop").debug("a detail")


@job
def floods(lines: int) -> None:
    for number in range(lines):
        print("line", number)


@job
async def afloods(lines: int) -> None:
    for number in range(lines):
        print("line", number)


@job
def dies_talking() -> None:
    print("my last words", flush=True)
    print("without an end", end="", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


@job
async def blocks_the_loop(path: str) -> None:
    """Sync code where it does not belong."""
    note(path, "blocks", os.getpid())
    time.sleep(60)


@job
def tells_too_much(what: str) -> str:
    """Ten megabytes where less is allowed."""
    much = "x" * 10_000_000
    if what == "event":
        notify("own.much", text=much)
    elif what == "value":
        step("much", lambda: much)
    elif what == "cursor":
        step("much", lambda: step.current.set(much))
    elif what == "print":
        print(much)
    return much if what == "result" else "done"


@job(timeout=0.5, retry_on=[Retry(TimeoutError, wait=0, attempts=2)])
def stuck_in_c(path: str) -> None:
    """Hold the GIL far beyond the timeout."""
    note(path, "began", os.getpid())
    re.match(r"(a+)+$", "a" * 60 + "b")


@job(timeout=1.0, resume_wait=0)
def stuck_once(path: str) -> str:
    """Reach no checkpoint after two items, in the first attempt."""
    for item in step.each("items", range(4), every=1):
        note(path, item, os.getpid())
        if item == 2 and not Path(path + ".gate").exists():
            time.sleep(60)
    return "done"


@job(timeout=0.5, discard_on=[TimeoutError])
def cleans_up(path: str) -> None:
    """Take long to leave, once its time is up."""
    try:
        for item in step.each("items", range(100_000)):
            time.sleep(0.01)
            note(path, item, os.getpid())
    except TimeoutError:
        note(path + ".late", "late")
        wait_for_file(path + ".gate")
        note(path + ".late", "left")
        raise


@job(timeout=0.5)
async def stubborn_beyond_its_time(path: str) -> None:
    """Go on though its time is up."""
    await stubborn.fn(path)


@job
def remembers(path: str) -> str:
    """A value, then items, of which the second waits for the gate."""
    first = step("first", lambda: "kept")
    for item in step.each("items", range(4), every=1):
        note(path, item, os.getpid())
        if item == 1:
            wait_for_file(path + ".gate")
    return first


@job
def maps(path: str) -> list[int]:
    """Results of a long map, of which the second waits for the gate."""

    def twice(item: int) -> int:
        note(path, item, os.getpid())
        if item == 1:
            wait_for_file(path + ".gate")
        time.sleep(0.02)
        return 2 * item

    return step.map("twice", twice, range(1000), workers=1)


@job
def parent(path: str) -> int:
    """Wait for a run of its own making, in the second attempt."""
    return step("child", ask_child, path)


def ask_child(path: str) -> int:
    run = add.enqueue(20, 1)
    note(path, run.id, os.getpid())
    if not Path(path + ".died").exists():
        Path(path + ".died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return int(run.result(timeout=30))


@job(queue="gpu")
def occupies(path: str) -> None:
    """Hold what only one may have."""
    note(path, "in")
    wait_for_file(path + ".gate")
    note(path, "out")


@job(queue="gpu")
async def aoccupies(path: str) -> None:
    """The same, in an event loop."""
    note(path, "in")
    while not Path(path + ".gate").exists():
        await asyncio.sleep(0.01)
    note(path, "out")
