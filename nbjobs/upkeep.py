"""What bodies leave behind in a child.

A child runs one body after the other, all of one user, as long as each leaves it as it was found: no timers, threads
or programs, the same state of the process (see `baseline`), memory in bounds, code as it is on disk. Else the worker
replaces it, which costs a few milliseconds and the imports.
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
from collections.abc import Callable, Iterator
from pathlib import Path

from . import birth
from .baseline import Baseline, stop_timers
from .vitals import memory_limit

LOOK = 2.0  # s between two looks whether the code of a body that runs has become newer


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
            file = _file_of(sys.modules.get(name))
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


def _file_of(module: object) -> object:
    """Return a module's file, without a question to the module itself: one that loads lazily would load, or raise."""
    try:
        return object.__getattribute__(module, "__dict__").get("__file__")
    except Exception:  # whatever stands there in a module's place
        return None


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
        self._rang = False

    def outdated(self) -> str:
        """The file that has changed since it was loaded here, or an empty string."""
        return self._code.changed()

    def lookout(self, began_ns: int, tell: Callable[[str], None]) -> Lookout:
        """What tells the attempt of a body of newer code on disk while it runs."""
        return Lookout(self._code, began_ns, tell)

    def over(self) -> None:
        """The body is over: what it has left to ring must not ring while its end is written."""
        self._rang = stop_timers() or self._rang

    def after(self, began_ns: int) -> list[str]:
        """Return what the bodies since `began_ns` left behind; put Python's own streams back."""
        try:
            self.over()
            try:
                birth.flush_output()
            finally:
                sys.stdout, sys.stderr = self._streams
            unsure = self._code.learn(began_ns)
            found = self._baseline.left_behind() + [f"loaded {file} while it changed" for file in unsure]
        except BaseException as error:  # what a body leaves may raise anything, and its run has ended
            return [f"{type(error).__name__} where it was looked at"]
        return ["a timer"] * self._rang + found
