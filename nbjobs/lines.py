"""Lines of output: cut out of bytes, each with its time, and no more of them than anybody can read.

A flood of short lines costs its reader far more than its bytes would: each line is decoded, timed, merged and packed.
So a stream has an allowance of lines. What goes beyond it is counted in bytes, which costs next to nothing, and
dropped, the oldest first; the body that prints is not held up.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from .allowance import Allowance

LINE_LIMIT = 16_384
"""A line longer than this many bytes is cut into several."""

MARK = "\x1e"
"""Stands before the time in ns, 16 hexadecimal digits, at the end of a line that Python's streams wrote."""

_MARK_LENGTH = 17
_marked = re.compile(rb"\x1e([0-9a-f]{16})\Z").match

_RATE = 5_000.0  # lines a second of one stream: more than twice what its log keeps
_BURST = 20_000.0
_AT_ONCE = 250  # lines that are cut before others have their turn
_LEAST = 200  # of the newest lines, which wait for the allowance where it is used up
_BYTES = 1 << 20  # of one piece of output


class Line(NamedTuple):
    """One line of output.

    Attributes:
        stream: ``stdout`` or ``stderr``.
        text: without its end.
        ns: the time at which it was complete, by the clock of its process; 0 if unknown.
        missed: how many lines just before it were dropped.

    >>> Line("stderr", "disk nearly full").text
    'disk nearly full'
    """

    stream: str
    text: str
    ns: int = 0
    missed: int = 0


class LineCutter:
    r"""Cuts bytes into lines; of a line that redraws itself only the last state is kept.

    >>> cutter = LineCutter("stdout")
    >>> [line.text for line in cutter.feed(b" 10%\r 50%\r100%\ndo")]
    ['100%']
    >>> [line.text for line in cutter.feed(b"ne\n")], cutter.flush()
    (['done'], [])
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._allowance = Allowance(_RATE, _BURST)
        self._waiting: list[bytes] = []
        self._missed = 0
        self._rest = b""

    @property
    def waiting(self) -> bool:
        """Whether complete lines wait for the allowance."""
        return bool(self._waiting)

    def feed(self, data: bytes) -> list[Line]:
        """Return the lines that `data` completes, without their line ends, as far as the allowance goes."""
        if len(data) > _BYTES:
            older, data = self._rest + data[:-_BYTES], data[-_BYTES:]
            self._missed += older.count(b"\n")
            self._rest = b"" if older.endswith(b"\n") else "…".encode()
        lines, end, rest = (self._rest + data).rpartition(b"\n")
        if end:
            self._add(lines)
        rest = _redrawn(rest, keep_return=True)
        while len(rest) > LINE_LIMIT + _MARK_LENGTH:  # a mark that has half arrived is not cut
            self._add(rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
        self._rest = rest
        return self.cut()

    def cut(self, *, all: bool = False) -> list[Line]:
        """Return complete lines that wait: so many that they hold up nobody, where the allowance permits, or all."""
        count = len(self._waiting) if all else min(len(self._waiting), _AT_ONCE)
        if not count or not (self._allowance.take(count) or all):
            return []
        lines, self._waiting = self._waiting[:count], self._waiting[count:]
        found = []
        for line in lines:
            text, ns = _unmarked(line)
            if len(text) <= LINE_LIMIT and b"\r" not in text:
                found.append(Line(self._stream, text.decode("utf-8", "replace"), ns))
            else:
                found += [Line(self._stream, piece, ns) for piece in _pieces(_redrawn(text))]
        found[0] = found[0]._replace(missed=self._missed)
        self._missed = 0
        return found

    def flush(self) -> list[Line]:
        """Return the complete lines that wait, and what stands behind the last line end."""
        lines = self.cut(all=True)
        rest, self._rest = _redrawn(self._rest), b""
        return lines + [Line(self._stream, piece) for piece in _pieces(rest)] if rest else lines

    def _add(self, text: bytes) -> None:
        """Let complete lines wait, of all that do the newest ones; the rest is counted."""
        room = max(int(self._allowance.left), _LEAST)
        lines = text.rsplit(b"\n", room)
        if len(lines) > room:
            self._missed += lines.pop(0).count(b"\n") + 1
        self._waiting += lines
        beyond = max(0, len(self._waiting) - room)
        self._missed += beyond
        del self._waiting[:beyond]


def timed(lines: list[Line]) -> list[Line]:
    """Return the lines, each with a time: who has none gets that of the one behind, and the last ones that of now.

    >>> [line.ns for line in timed([Line("stdout", "in C"), Line("stdout", "in Python", 7)])]
    [7, 7]
    """
    following = 0
    found = []
    for line in reversed(lines):
        stream, text, ns, missed = line
        following = ns or following or time.time_ns()
        found.append(line if ns else Line(stream, text, following, missed))
    return found[::-1]


def _unmarked(line: bytes) -> tuple[bytes, int]:
    """Return the line without its mark, and the time that it told."""
    mark = _marked(line, len(line) - _MARK_LENGTH) if len(line) >= _MARK_LENGTH else None
    return (line[:-_MARK_LENGTH], int(mark[1], 16)) if mark else (line, 0)


def _redrawn(line: bytes, *, keep_return: bool = False) -> bytes:
    shown = line.rstrip(b"\r")
    kept = shown[shown.rfind(b"\r") + 1 :]
    return kept + b"\r" if keep_return and len(shown) < len(line) else kept


def _pieces(line: bytes) -> list[str]:
    if len(line) <= LINE_LIMIT:
        return [line.decode("utf-8", "replace")]
    cuts = range(0, len(line), LINE_LIMIT)
    return [line[at : at + LINE_LIMIT].decode("utf-8", "replace") for at in cuts]
