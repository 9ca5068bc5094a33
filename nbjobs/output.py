"""What a body prints, cut into lines for its run.

The worker reads a child's pipes. C code that writes with the interpreter locked would wait for ever on a
reader in its own process, and a reader in the worker still has the last words of a child that was killed.

Two pipes and the events of a run would lose their order among each other, so Python's streams mark the end of each
line with the time, and the reader takes the mark away. What others write there, C code and programs, has no mark
and gets the time of what follows it. A body can write such marks itself, so whoever takes the lines believes no time
outside of its attempt.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from io import TextIOWrapper
from typing import ClassVar

from .lines import MARK, Line, LineCutter, timed

if sys.platform != "win32":
    import fcntl

READ_LIMIT = 65_536
"""At most this many bytes are read at a time, so that one chatty body does not hold the worker."""


class MarkingStream(TextIOWrapper):
    """Python's stdout or stderr in a child: line by line, each with the time at which it was complete.

    Args:
        fd: where it writes. Where a body has put something else in its place, nothing is marked.
    """

    wrote: ClassVar[int] = 0
    """How often any of them was written to."""

    def __init__(self, fd: int) -> None:
        raw = os.fdopen(fd, "wb", closefd=False)
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self._pipe = _identity(fd)

    def write(self, text: str, /) -> int:
        """Writes text; returns how many characters that were."""
        MarkingStream.wrote += 1
        if isinstance(text, str) and "\n" in text and _identity(self.fileno()) == self._pipe:
            super().write(text.replace("\n", f"{MARK}{time.time_ns():016x}\n"))
            return len(text)
        return super().write(text)


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


class BodyLog(logging.Handler):
    """Takes what a body logs to stderr, where it has not said itself where to."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:
            self.handleError(record)


def show_logging() -> None:
    """Shows in this process what is logged from INFO on, in the format of `logging.basicConfig`.

    Not by a handler of the root logger, beside which `basicConfig` would do nothing.
    """
    handler = BodyLog()
    handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    logging.lastResort = handler
    logging.getLogger().setLevel(logging.INFO)


class Pipe:
    """The reading end of a child's stdout or stderr.

    Args:
        stream: ``stdout`` or ``stderr``.
        on_lines: called with the lines that a read completed.
    """

    def __init__(self, stream: str, on_lines: Callable[[list[Line]], None]) -> None:
        self.stream = stream
        self._on_lines = on_lines
        self._cutter = LineCutter(stream)
        self.fd, self.child_end = os.pipe()
        os.set_blocking(self.fd, False)
        self.ended = False
        self._capacity = _capacity(self.fd)

    def read(self, limit: int = READ_LIMIT) -> int:
        """Takes up to `limit` bytes; the number taken, 0 where nothing waits or the pipe has ended."""
        if self.ended:
            return 0
        try:
            data = os.read(self.fd, limit)
        except (BlockingIOError, InterruptedError):
            return 0
        self.ended = not data
        self._hand_on(self._cutter.feed(data))
        return len(data)

    @property
    def waiting(self) -> bool:
        """Whether lines wait that were too many at once."""
        return self._cutter.waiting

    def go_on(self) -> None:
        """Hand on what waits, as far as that may be now."""
        self._hand_on(self._cutter.cut())

    def drain(self) -> None:
        """Takes all that was written before now, and no endless stream of what is written meanwhile."""
        taken = 0
        while taken < self._capacity and (count := self.read()):
            taken += count
        self._hand_on(self._cutter.cut(all=True))

    def finish_line(self) -> None:
        """Hands on a last line that has no line end."""
        self._hand_on(self._cutter.flush())

    def close(self) -> None:
        """Closes our end."""
        self.ended = True
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self.fd)
            self.fd = -1

    def _hand_on(self, lines: list[Line]) -> None:
        if lines:
            self._on_lines(timed(lines))


def _capacity(fd: int) -> int:
    get_size = getattr(fcntl, "F_GETPIPE_SZ", None)
    return fcntl.fcntl(fd, get_size) if get_size is not None else READ_LIMIT
