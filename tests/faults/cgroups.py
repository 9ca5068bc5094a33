"""Control groups that bound the memory of a worker and all below it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ..support import wait_until

MOUNT = Path("/sys/fs/cgroup")
SECOND = (MOUNT / "cgroup.controllers").exists()  # of the two versions of control groups


@contextmanager
def bounded(limit: int) -> Iterator[Path]:
    """A group whose processes may use so many bytes together; a process that begins there stays there.

    The test is skipped where this user may make none on this machine.
    """
    folder = (MOUNT if SECOND else MOUNT / "memory") / f"nbjobs-test-{os.getpid()}"
    try:
        if SECOND:
            with suppress(OSError):  # it is on already, or must be
                (MOUNT / "cgroup.subtree_control").write_text("+memory")
        folder.mkdir()
        (folder / ("memory.max" if SECOND else "memory.limit_in_bytes")).write_text(str(limit))
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no control group with a limit of memory can be made here, which takes root on Linux: {error}")
    with suppress(OSError):  # where the kernel counts swap
        file, most = ("memory.swap.max", 0) if SECOND else ("memory.memsw.limit_in_bytes", limit)
        (folder / file).write_text(str(most))
    try:
        yield folder
    finally:
        wait_until(lambda: _removed(folder), 20, lambda: f"{folder} is empty")


def enter(folder: Path, pid: int) -> None:
    """Move a process into a group."""
    (folder / "cgroup.procs").write_text(str(pid))


def _removed(folder: Path) -> bool:
    with suppress(OSError):
        folder.rmdir()
    return not folder.exists()


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux' own")
