"""What bodies leave behind in a child.

A child runs one body after the other as long as each leaves it as it was found: no threads or programs,
the same directory and environment, memory in bounds, code as it is on disk. Else the worker replaces it,
which costs a few milliseconds and the imports.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import birth
from .vitals import MIB, memory_limit, resident_bytes

LOOK = 2.0  # s between two looks whether the code of a body that runs has become newer
_THREAD_PATIENCE = 0.05
# Threads that libraries keep for the whole process and that run none of the body's code.
_KEPT_THREADS = {("tqdm._monitor", "TMonitor")}
_OWN_THREADS = {"nbjobs-ticker", "nbjobs-follower", "nbjobs-commit"}


class Baseline:
    """How this process was before its first body.

    Args:
        memory_limit: resident bytes that are still in bounds.
    """

    def __init__(self, memory_limit: int) -> None:
        self._memory_limit = memory_limit
        self._directory = _directory()
        self._environment = _environment()
        self._threads = set(threading.enumerate())
        self._programs = set(_programs())

    def left_behind(self) -> list[str]:
        """What differs now; empty where the process may be used again."""
        found = self._threads_left() + [one for one in _programs() if one not in self._programs]
        if _directory() != self._directory:
            found.append("changed directory")
        if _environment() != self._environment:
            found.append("changed environment")
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


def _directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - asked after each body
    except OSError:
        return "deleted"


def _environment() -> dict[Any, Any]:
    """A copy of the environment, as it is stored: to decode all of it takes fifty times as long."""
    stored: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
    return dict(stored)


def _programs() -> list[str]:
    """Living direct children; where the kernel does not list them, those of `multiprocessing`."""
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


class CodeWatch:
    """Knows whether a module's file has changed since it was loaded.

    Of installed packages only the folders they stand in are looked at, which change with an installation.
    What the nursery has loaded is never watched: a new child would be no newer.
    """

    def __init__(self) -> None:
        self._folders = _installed_folders()
        self._seen = set(sys.modules)
        self._latest = (0, "")
        self._stamps: dict[str, tuple[int, int]] = {}
        self._unsure: list[str] = []
        self._learning = threading.Lock()

    def open(self) -> None:
        """Begins to watch, at a child's birth."""
        for folder in self._folders:
            self._stamps[folder] = _stamp(folder)

    def learn(self, since_ns: int) -> list[str]:
        """Takes in modules loaded since the last call, where a body began at `since_ns`.

        Returns:
            Files that were written after that, now or before: nobody knows which version of them was loaded.
        """
        with self._learning:
            self._learn(since_ns)
            return list(self._unsure)

    def _learn(self, since_ns: int) -> None:
        latest = (len(sys.modules), next(reversed(sys.modules), ""))  # a module that is loaded becomes the last one
        if latest == self._latest:
            return
        self._latest = latest
        for name in set(sys.modules) - self._seen:
            self._seen.add(name)
            file = getattr(sys.modules.get(name), "__file__", None)
            if isinstance(file, str) and not file.startswith(self._folders):
                self._stamps[file] = stamp = _stamp(file)
                if stamp[0] >= since_ns:
                    self._unsure.append(file)

    def changed(self) -> str:
        """The first file that is not, or may not be, as it was when it was loaded; or an empty string."""
        with self._learning:
            return next(self._newer(), "")

    def changed_meanwhile(self, since_ns: int) -> str:
        """The same while a body runs that began at `since_ns`, of files outside of what is installed.

        May be called from another thread than `learn`.
        """
        with self._learning:
            self._learn(since_ns)
            return next((file for file in self._newer() if file not in self._folders), "")

    def _newer(self) -> Iterator[str]:
        yield from self._unsure  # for as long as this process lives: it has loaded who knows what
        yield from (file for file, stamp in self._stamps.items() if _stamp(file) != stamp)


def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    listed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    listed += [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(sorted({*listed, *(os.path.realpath(path) for path in listed)}))


def _stamp(file: str) -> tuple[int, int]:
    try:
        found = os.stat(file)  # noqa: PTH116 - asked for each file before each body, and half as dear as a Path
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


@functools.cache
def code_watch() -> CodeWatch:
    """The one of this process; the nursery makes it, so that its children need not."""
    return CodeWatch()


class Lookout:
    """Looks, while a body runs, whether the code on disk has become newer than what it runs; asked by the ticker.

    Args:
        code: knows what is loaded.
        began_ns: when the body began.
        tell: is given the file's name, once.
    """

    def __init__(self, code: CodeWatch, began_ns: int, tell: Callable[[str], None]) -> None:
        self._code = code
        self._began_ns = began_ns
        self._tell = tell
        self._next = time.monotonic() + LOOK

    def tick(self, now: float) -> None:
        """Look, where it is time to."""
        if now < self._next:
            return
        self._next = now + LOOK
        with contextlib.suppress(RuntimeError):  # the body loads a module at this moment: looked at next time
            file = self._code.changed_meanwhile(self._began_ns)
            if file:
                self._next = math.inf
                self._tell(Path(file).name)


class Upkeep:
    """Whether this child is still as it was when it was born.

    Args:
        children: how many children share the machine's memory.
    """

    def __init__(self, children: int) -> None:
        self._code = code_watch()
        self._code.open()
        self._baseline = Baseline(memory_limit(children))
        self._streams = (sys.stdout, sys.stderr)

    def outdated(self) -> str:
        """The file that has changed since it was loaded here, or an empty string."""
        return self._code.changed()

    def lookout(self, began_ns: int, tell: Callable[[str], None]) -> Lookout:
        """What tells the attempt of a body of newer code on disk while it runs."""
        return Lookout(self._code, began_ns, tell)

    def after(self, began_ns: int) -> list[str]:
        """What the bodies since `began_ns` left behind; puts Python's own streams back."""
        birth.flush_output()
        sys.stdout, sys.stderr = self._streams
        unsure = self._code.learn(began_ns)
        return self._baseline.left_behind() + [f"loaded {file} while it changed" for file in unsure]
