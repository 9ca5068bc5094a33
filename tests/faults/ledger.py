"""A file to which every item of a job appends itself: what was really done, by whom and when."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Line:
    """One item, done once.

    Attributes:
        ns: when, on the monotonic clock that all processes share.
        key: `step.current.key`, which names the item on every attempt.
        note: whatever the job adds.
    """

    run: str
    step: str
    item: int
    attempt: int
    pid: int
    ns: int
    key: str = ""
    fence: int = 0
    note: str = ""


class Ledger:
    """The file; lines of several processes do not mix, since each is one write to its end."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._known: dict[str, list[Line]] = defaultdict(list)
        self._read_to = 0

    def append(self, line: Line) -> None:
        """Add a line, whole."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, (json.dumps(asdict(line)) + "\n").encode())
        finally:
            os.close(fd)

    def lines(self, run: str, step: str = "", attempt: int = 0) -> list[Line]:
        """Return a run's lines, oldest first; of one step or attempt where that is named."""
        return [
            line
            for line in self._read()[run]
            if line.step == (step or line.step) and line.attempt == (attempt or line.attempt)
        ]

    def times(self, run: str, step: str) -> dict[int, list[Line]]:
        """Return for each item of a step the lines that say it was done, by attempt."""
        found = defaultdict(list)
        for line in sorted(self.lines(run, step), key=lambda line: (line.attempt, line.ns)):
            found[line.item].append(line)
        return found

    def repeats(self, run: str, step: str, attempt: int = 0) -> list[Line]:
        """Return the lines of items that were done again by a later attempt; of one attempt where that is named."""
        return [
            line
            for done in self.times(run, step).values()
            for line in done[:-1]
            if line.attempt == (attempt or line.attempt)
        ]

    def _read(self) -> dict[str, list[Line]]:
        """Return all lines by run; only what is new is read."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read_to)
                whole, end, _ = file.read().rpartition(b"\n")
            self._read_to += len(whole) + len(end)
            for line in (Line(**json.loads(text)) for text in whole.splitlines()):
                self._known[line.run].append(line)
        return self._known


def now_ns() -> int:
    """Return the time that the ledger's lines carry."""
    return time.monotonic_ns()
