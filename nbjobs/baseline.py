"""How a process was before its first body, and what is different since.

What a body may change is all that Linux or Python keeps once for a whole process. Modules and what they hold are
left alone: they are why a child is used again.
"""

from __future__ import annotations

import gc
import locale
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .vitals import MIB, resident_bytes

if sys.platform != "win32":
    # The functions of `signal` make an Enum of each answer, which takes thirty times as long.
    import _signal  # type: ignore[import-not-found]
    import resource

_THREAD_PATIENCE = 0.05
_DESCRIPTORS = 64  # more than a body's libraries keep for all of a process, and far from the 1,024 it may have
# Threads that libraries keep for the whole process and that run none of the body's code.
_KEPT_THREADS = {("tqdm._monitor", "TMonitor")}
_OWN_THREADS = {"nbjobs-ticker", "nbjobs-follower", "nbjobs-commit"}
if sys.platform != "win32":
    _SIGNALS = sorted(int(number) for number in signal.valid_signals())
    _TIMERS = {
        signal.ITIMER_REAL: signal.SIGALRM,
        signal.ITIMER_VIRTUAL: signal.SIGVTALRM,
        signal.ITIMER_PROF: signal.SIGPROF,
    }
    _LIMITS = [
        getattr(resource, f"RLIMIT_{name}")
        for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK")
        if hasattr(resource, f"RLIMIT_{name}")
    ]


class Baseline:
    """How this process is now.

    Args:
        memory_limit: resident bytes that are still in bounds.
    """

    def __init__(self, memory_limit: int) -> None:
        self._memory_limit = memory_limit
        self._threads = set(threading.enumerate())
        self._programs = set(_programs())
        self._next_descriptor = _next_descriptor()
        self._state = _state()

    def left_behind(self) -> list[str]:
        """Return what differs now; nothing where the process may be used again."""
        found = self._threads_left() + [one for one in _programs() if one not in self._programs]
        state = _state()
        found += [f"changed {what}" for what, was in self._state.items() if state[what] != was]
        descriptors = _next_descriptor() - self._next_descriptor
        if descriptors < 0:
            found.append("closed descriptors")
        elif descriptors > _DESCRIPTORS:
            found.append(f"{descriptors} open descriptors")
        memory = resident_bytes(above=self._memory_limit)
        if memory > self._memory_limit:
            found.append(f"holds {memory // MIB} MiB")
        return found

    def _threads_left(self) -> list[str]:
        deadline = time.monotonic() + _THREAD_PATIENCE
        left = []
        for thread in set(threading.enumerate()) - self._threads:
            if (type(thread).__module__, type(thread).__name__) in _KEPT_THREADS or thread.name in _OWN_THREADS:
                continue
            if not isinstance(thread, threading._DummyThread):
                thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                left.append(f"thread {thread.name}")
        return left


def stop_timers() -> bool:
    """Stop what a body that is over has left to ring; return whether there was something.

    What has rung already is heard here, whatever its handler does.
    """
    if sys.platform == "win32":
        return False
    rang = False
    for _ in _TIMERS:  # each may raise once
        try:
            left = [rings for timer, rings in _TIMERS.items() if _signal.setitimer(timer, 0)[0]]
            for number in left:  # it may be on its way, by another thread of this process
                signal.signal(number, lambda number, frame: None)
        except BaseException:  # by the handler of a body that no longer hears of it
            rang = True
        else:
            return rang or bool(left)
    return True


def _state() -> dict[str, Any]:
    """Return by its name whatever can be told with one call."""
    found: dict[str, Any] = {
        "directory": _directory(),
        "environment": _environment(),
        "tracing": _tracing(),
        "garbage collection": (gc.isenabled(), gc.get_threshold(), gc.get_debug()),
        "recursion limit": sys.getrecursionlimit(),
        "default timeout of sockets": socket.getdefaulttimeout(),
        "locale": locale.setlocale(locale.LC_ALL, None),
    }
    if sys.platform != "win32":
        found |= {
            "signal handlers": [_signal.getsignal(number) for number in _SIGNALS],
            "blocked signals": _signal.pthread_sigmask(_signal.SIG_BLOCK, ()),
            "umask": _umask(),
            "resource limits": [resource.getrlimit(which) for which in _LIMITS],
            "priority": os.getpriority(os.PRIO_PROCESS, 0),
            "standard streams": [_identity(number) for number in (1, 2)],
        }
    return found


def _directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - asked after each body
    except OSError:
        return "deleted"


def _environment() -> dict[Any, Any]:
    """Return a copy of the environment, as it is stored: to decode all of it takes fifty times as long."""
    stored: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
    return dict(stored)


def _tracing() -> tuple[Any, ...]:
    tools = getattr(sys, "monitoring", None)  # since Python 3.12, where profilers no longer call `sys.setprofile`
    found = [tools.get_tool(number) for number in range(6)] if tools is not None else []
    return (sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile(), *found)


def _umask() -> int:
    found = os.umask(0o077)
    os.umask(found)
    return found


def _identity(descriptor: int) -> tuple[int, int]:
    """Return which file an open descriptor stands for."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return (-1, -1)
    return (found.st_dev, found.st_ino)


def _next_descriptor() -> int:
    """Return the number that the next descriptor will have: none below it is free."""
    try:
        found = os.dup(0)
    except OSError:  # closed, or there are as many as there may be
        return -1
    os.close(found)
    return found


def _programs() -> list[str]:
    """Return living direct children; where the kernel does not list them, those of `multiprocessing`."""
    if not _has_children():  # nearly always, and one call of the kernel where the lists below take a dozen
        return []
    try:
        tasks = [(task / "children").read_bytes() for task in Path("/proc/self/task").iterdir()]
    except OSError:
        processes = sys.modules.get("multiprocessing.process")
        return [f"process {child.pid}" for child in processes.active_children()] if processes else []
    pids = [int(pid) for task in tasks for pid in task.split()]
    return [f"process {pid}" for pid in pids if not _is_zombie(pid)]


def _has_children() -> bool:
    """Whether there may be children, living or not."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True
    return stat.rpartition(b")")[2].split()[0] == b"Z"
