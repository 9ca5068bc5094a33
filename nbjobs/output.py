"""What a body prints, cut into lines for its run.

The worker reads a child's pipes. C code that writes with the interpreter locked would wait for ever on a
reader in its own process, and a reader in the worker still has the last words of a child that was killed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

if sys.platform != "win32":
    import fcntl

LINE_LIMIT = 16_384
"""A line longer than this many bytes is cut into several."""

READ_LIMIT = 65_536
"""At most this many bytes are read at a time, so that one chatty body does not hold the worker."""


class Line(NamedTuple):
    """One line of output.

    >>> Line("stderr", "disk nearly full").text
    'disk nearly full'
    """

    stream: str
    text: str


class LineCutter:
    r"""Cuts bytes into lines; of a line that redraws itself only the last state is kept.

    >>> cutter = LineCutter()
    >>> cutter.feed(b" 10%\r 50%\r100%\ndo")
    ['100%']
    >>> cutter.feed(b"ne\n"), cutter.flush()
    (['done'], [])
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes, without their line ends."""
        *lines, rest = (self._rest + data).split(b"\n")
        rest = _redrawn(rest, keep_return=True)
        while len(rest) > LINE_LIMIT:
            lines.append(rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
        self._rest = rest
        return [text for line in lines for text in _pieces(_redrawn(line))]

    def flush(self) -> list[str]:
        """What stands behind the last line end."""
        rest, self._rest = _redrawn(self._rest), b""
        return _pieces(rest) if rest else []


def _redrawn(line: bytes, *, keep_return: bool = False) -> bytes:
    shown = line.rstrip(b"\r")
    kept = shown[shown.rfind(b"\r") + 1 :]
    return kept + b"\r" if keep_return and len(shown) < len(line) else kept


def _pieces(line: bytes) -> list[str]:
    if len(line) <= LINE_LIMIT:
        return [line.decode("utf-8", "replace")]
    cuts = range(0, len(line), LINE_LIMIT)
    return [line[at : at + LINE_LIMIT].decode("utf-8", "replace") for at in cuts]


class Pipe:
    """The reading end of a child's stdout or stderr.

    Args:
        stream: ``stdout`` or ``stderr``.
        on_lines: called with the lines that a read completed.
    """

    def __init__(self, stream: str, on_lines: Callable[[list[Line]], None]) -> None:
        self.stream = stream
        self._on_lines = on_lines
        self._cutter = LineCutter()
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

    def drain(self) -> None:
        """Takes all that was written before now, and no endless stream of what is written meanwhile."""
        taken = 0
        while taken < self._capacity and (count := self.read()):
            taken += count

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

    def _hand_on(self, lines: list[str]) -> None:
        if lines:
            self._on_lines([Line(self.stream, line) for line in lines])


def _capacity(fd: int) -> int:
    get_size = getattr(fcntl, "F_GETPIPE_SZ", None)
    return fcntl.fcntl(fd, get_size) if get_size is not None else READ_LIMIT
