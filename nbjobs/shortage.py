"""Whether the kernel ended a process because memory was short, and how much there was to have.

Linux counts such ends for each control group, and for the whole machine. Elsewhere, and where no count can be read, a
process that was killed with nearly all of the memory in use is taken for one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory.limit_in_bytes")  # of the second version and of the first
_COUNTS = ("memory.events", "memory.oom_control")
_NEARLY = 0.9


def memory_there_is() -> int:
    """Return the bytes that this process and those beside it may use: the machine's, or fewer by a control group.

    >>> memory_there_is() > 1 << 20
    True
    """
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        total = 8 << 30
    for folder in _groups():
        for name in _LIMITS:
            with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
                total = min(total, int((folder / name).read_bytes()))
    return total


class Shortage:
    """Counts the processes that were ended for want of memory; belongs to whoever reaps them."""

    def __init__(self) -> None:
        self._known = _killed()

    def explains(self, peak: int) -> int:
        """Return how much memory there was where a process that SIGKILL ended, with this peak, ran out of it; else 0.

        Each end that the kernel has counted explains one process.
        """
        counter, count = _killed()
        known = self._known[1] if self._known[0] == counter else 0
        limit = memory_there_is()
        if counter and count <= known:
            self._known = (counter, count)
            return 0
        self._known = (counter, known + 1)
        return limit if counter or peak >= _NEARLY * limit else 0


def _groups() -> Iterator[Path]:
    """The folders of the control groups that bound this process's memory, the innermost first."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            mount = _MOUNT / controllers
            group = mount / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder == mount or mount in folder.parents)


def _killed() -> tuple[str, int]:
    """Return where the kernel counts what it has ended for want of memory, and how many; no name where it does not."""
    files = [folder / name for folder in _groups() for name in _COUNTS]
    for file in (*files, Path("/proc/vmstat")):
        with contextlib.suppress(OSError):
            found = re.search(rb"^oom_kill (\d+)$", file.read_bytes(), re.MULTILINE)
            if found:
                return str(file), int(found[1])
    return "", 0
