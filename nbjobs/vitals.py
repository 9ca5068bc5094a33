"""What a body used: CPU seconds and peak memory, its own programs included."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from .shortage import memory_there_is

if sys.platform != "win32":
    import resource

_STATUS = "/proc/self/status"
_STATM = "/proc/self/statm"
_CLEAR_REFS = "/proc/self/clear_refs"
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
MIB = 1 << 20


class Usage(NamedTuple):
    """What a body used: CPU seconds with its own programs, and peak memory in bytes (0: unknown)."""

    cpu: float
    peak: int


class Meter:
    """Measures from its creation on; costs some 30 µs.

    >>> Meter().read().cpu < 1
    True
    """

    def __init__(self) -> None:
        # The kernel forgets the peak so far; `ru_maxrss` would never fall.
        with contextlib.suppress(OSError), _opened(_CLEAR_REFS, os.O_WRONLY) as file:
            os.write(file, b"5")
        self._cpu = _cpu_seconds()
        self._last: Usage | None = None

    def read(self) -> Usage:
        """What was used since the meter was made."""
        self._last = Usage(round(_cpu_seconds() - self._cpu, 6), status_bytes(b"VmHWM:") or _max_rss())
        return self._last

    def last(self) -> Usage:
        """What it read last, or reads now where nobody has asked yet: the kernel takes its time to tell."""
        return self._last or self.read()


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    """A file of the kernel, as a descriptor: Python's own file objects cost more than what is read here."""
    file = os.open(path, flags)
    try:
        yield file
    finally:
        os.close(file)


def _told(path: str) -> bytes:
    with _opened(path, os.O_RDONLY) as file:
        return os.read(file, 1 << 16)


def _cpu_seconds() -> float:
    if sys.platform == "win32":
        return time.process_time()
    own = resource.getrusage(resource.RUSAGE_SELF)
    programs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + programs.ru_utime + programs.ru_stime


def _max_rss() -> int:
    if sys.platform == "win32":
        return 0
    return peak_bytes(resource.getrusage(resource.RUSAGE_SELF))


def peak_bytes(used: resource.struct_rusage) -> int:
    """The peak memory in what the kernel tells of a process."""
    return used.ru_maxrss if sys.platform == "darwin" else used.ru_maxrss * 1024


def status_bytes(field: bytes) -> int:
    """A size that the kernel tells of this process, in bytes; 0 where it tells none."""
    try:
        status = _told(_STATUS)
    except OSError:
        return 0
    _, found, rest = status.partition(field)
    return int(rest.split(None, 1)[0]) * 1024 if found else 0


def resident_bytes(above: int = 0) -> int:
    """Memory of this process at present, in bytes; 0 where the kernel does not tell, or it never was `above`."""
    if _max_rss() <= above:  # a tenth of the price of the other question
        return 0
    try:
        return int(_told(_STATM).split()[1]) * _PAGE
    except OSError:
        return 0


def memory_limit(children: int) -> int:
    """Resident bytes above which an idle child is replaced: its share of half of the memory.

    >>> memory_limit(children=1) >= memory_limit(children=64) >= 256 * 1024 * 1024
    True
    """
    return max(256 * MIB, memory_there_is() // (2 * (children + 1)))
