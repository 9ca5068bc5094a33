"""Jobs that leave something in the process that ran them."""

from __future__ import annotations

import gc
import locale
import os
import resource
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

from nbjobs import context, notify
from nbjobs.jobs import job
from nbjobs.stepping import step

from .jobs import write

CHUNK, MOST = 1 << 22, 1 << 30  # bytes that `hungry` takes
RINGS = 0.5  # seconds until a timer rings that a job has left

setting: ContextVar[str] = ContextVar("setting", default="unset")
setting.set("as loaded")


def _late(number: int, frame: Any) -> None:
    raise TimeoutError("a timer of another run rang here")


def _alarm() -> None:
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, RINGS)


def _redirect() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _trace(frame: Any, event: str, arg: Any) -> None:
    return None


WAYS: dict[str, Callable[[], Any]] = {
    "an alarm with a handler": _alarm,
    "an alarm that kills": lambda: signal.setitimer(signal.ITIMER_REAL, RINGS),
    "a timer of its CPU time": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, RINGS / 4),
    "a timer of all CPU time": lambda: signal.setitimer(signal.ITIMER_PROF, RINGS / 4),
    "a umask": lambda: os.umask(0),
    "a limit of memory": lambda: resource.setrlimit(
        resource.RLIMIT_AS, (1 << 36, resource.getrlimit(resource.RLIMIT_AS)[1])
    ),
    "a priority": lambda: os.nice(1),
    "open descriptors": lambda: [os.dup(0) for _ in range(200)],
    "a closed descriptor": lambda: os.close(0),
    "a redirected stdout": _redirect,
    "a trace": lambda: sys.settrace(_trace),
    "a trace of threads": lambda: threading.settrace(_trace),
    "a default timeout": lambda: socket.setdefaulttimeout(5),
    "no garbage collection": gc.disable,
    "a locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
}


@job
def leave(way: str) -> int:
    """Leave something behind; return the process's id."""
    WAYS[way]()
    return os.getpid()


@job
def pid() -> int:
    """Return the process's id."""
    return os.getpid()


@job
def linger() -> int:
    """Be there while a timer rings that an earlier job has left: wait and work."""
    time.sleep(RINGS * 1.2)
    until = time.process_time() + RINGS / 3
    while time.process_time() < until:
        pass
    return os.getpid()


@job
def set_context(value: str) -> tuple[int, str]:
    """Set a context variable; return the process's id and what the variable was before."""
    before = setting.get()
    setting.set(value)
    return os.getpid(), before


@job
def lazy(path: str, seconds: float, gate: str) -> int:
    """Load a module that raises where it is asked for anything; tell something after so many seconds of one item."""
    for item in step.each("lazy", range(1), every=1):
        module = types.ModuleType("lazy_and_missing")
        vars(module)["__getattr__"] = _missing
        sys.modules["lazy_and_missing"] = module
        time.sleep(seconds)
        notify("still.here")
        while not Path(gate).exists():
            time.sleep(0.01)
        write(path, "lazy", item)
    return os.getpid()


def _missing(name: str) -> Any:
    raise ImportError(f"no {name}: the library behind it is not installed")


@job
def hungry(path: str, total: int, at: int, seconds: float) -> int:
    """A loop whose item `at` takes all memory there is, in the first attempt."""
    for item in step.each("count", range(total)):
        time.sleep(seconds)
        if item == at and context.carrier()._claim.attempt == 1:
            taken = [b"x" * CHUNK for _ in range(MOST // CHUNK)]
            raise AssertionError(f"{len(taken) * CHUNK} bytes could be had")
        write(path, "count", item)
    return total


@job
def deaf() -> None:
    """Close every descriptor that a tidy program of old would."""
    os.closerange(3, 256)
    time.sleep(60)


@job
def forks(count: int, patience: float) -> int:
    """Fork while another thread holds the attempt's lock, most of the time; return how many forks hung."""
    over, around = threading.Event(), copy_context()

    def tell() -> None:
        while not over.is_set():
            notify("from.a.thread", text="x" * 1000)

    threads = [threading.Thread(target=copy.run, args=(tell,)) for copy in (around, around.copy())]
    for thread in threads:
        thread.start()
    hung = sum(_hangs(patience) for _ in range(count))
    over.set()
    for thread in threads:
        thread.join()
    return hung


def _hangs(patience: float) -> bool:
    pid = os.fork()
    if pid == 0:
        notify("from.a.fork")
        step("in a fork", os._exit, 0)
    until = time.monotonic() + patience
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return True
        time.sleep(0.001)
    return False


@job
def everything() -> list[str]:
    """Use each kind of step; return which modules of nbjobs were loaded for it."""
    before = set(sys.modules)
    step("first", len, [])
    step.map("rows", abs, range(3))
    list(step.each("rows of a loop", range(3)))
    notify("all.done", at=time.time())
    pid.options(delay=3600, id="a-child").enqueue().cancel()
    return sorted(name for name in set(sys.modules) - before if name.startswith("nbjobs"))
