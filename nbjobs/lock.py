"""The lock of an embedded daemon: one daemon on one data directory, and who it is.

The lock's file in the data directory names the daemon's process and its sockets, so that clients find it whatever their
own variables say, and `nbjobs down` can reach it when its sockets are gone. A second lock, in the runtime directory,
keeps daemons with other data away from the sockets.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from .directories import Places, private, sheltered
from .errors import EmbeddedError

NAME = "daemon.lock"
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_PATIENCE = 0.2  # seconds: whoever asks who holds a lock holds it for a moment
_WORDS = re.compile(r"process (\d+) on (.*)\n(?s:(.+)\n)?")


class Holder(NamedTuple):
    """What the file of a lock says of who holds it.

    Attributes:
        pid: the process; 0 where it has not said so yet.
        host: where it runs.
        runtime: the directory of its sockets.
    """

    pid: int = 0
    host: str = ""
    runtime: Path | None = None

    @classmethod
    def of(cls, text: str) -> Holder:
        """Read the file's text."""
        if (found := _WORDS.fullmatch(text)) is None:
            return cls()
        return cls(int(found[1]), found[2], Path(found[3]) if found[3] else None)

    @property
    def here(self) -> bool:
        """Whether it can be reached from this process: it runs on this host, and is seen here."""
        if not self.pid:
            return True  # it has just started
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.host == socket.gethostname()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "it has just started"


class Busy(EmbeddedError):
    """Another daemon has the same directories.

    Attributes:
        holder: who that is.
    """

    def __init__(self, directory: Path, holder: Holder) -> None:
        self.holder = holder
        super().__init__(
            f"another nbjobs daemon uses {directory} ({holder}): "
            "use that one, end it there, or set NBJOBS_DATA_DIR and NBJOBS_RUNTIME_DIR to other directories"
        )


def holder(directory: Path) -> Holder | None:
    """Return who holds the lock of a directory; None where nobody does."""
    try:
        fd = os.open(directory / NAME, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return Holder.of(_text(fd)) if error.errno in _TAKEN else None
    finally:
        os.close(fd)
    return None


def left_behind(data: Path) -> Path | None:
    """Return where the sockets were of a daemon that could not tidy up; None where the last one did."""
    try:
        fd = os.open(data / NAME, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return Holder.of(_text(fd)).runtime
    finally:
        os.close(fd)


class Lock:
    """Holds the directories of a daemon as long as its block lasts.

    Args:
        places: whose.

    Attributes:
        before: where the sockets were of an earlier daemon that could not tidy up.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.before: Path | None = None
        self._held: dict[Path, int] = {}

    def __enter__(self) -> Lock:
        """Take the lock.

        Raises:
            Busy: another daemon holds it.
            EmbeddedError: files cannot be locked there.
        """
        self.before = left_behind(self.places.data)
        try:
            for directory in dict.fromkeys((self.places.runtime, self.places.data)):
                self._take(directory)
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._held.values():
            os.truncate(fd, 0)
        self._let_go()

    def keep(self) -> None:
        """Take it again where its file, or its directory, was removed; without a file another daemon could start.

        Raises:
            EmbeddedError: that cannot be done.
        """
        for directory, make in ((self.places.runtime, sheltered), (self.places.data, private)):
            try:
                kept = os.path.samestat((directory / NAME).lstat(), os.fstat(self._held[directory]))
            except FileNotFoundError:
                kept = False
            if not kept:
                make(directory)
                self._take(directory)

    def _take(self, directory: Path) -> None:
        path = directory / NAME
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise EmbeddedError(f"the lock {path} cannot be opened: {error.strerror}") from None
        try:
            _lock(fd, directory)
            os.truncate(fd, 0)
            os.write(fd, os.fsencode(f"process {os.getpid()} on {socket.gethostname()}\n{self.places.runtime}\n"))
        except BaseException:
            os.close(fd)
            raise
        if directory in self._held:
            os.close(self._held[directory])
        self._held[directory] = fd

    def _let_go(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])


def _lock(fd: int, directory: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise EmbeddedError(
                    f"files in {directory} cannot be locked: {error.strerror}. "
                    "Set NBJOBS_DATA_DIR to a directory on a file system that has locks, such as a local disk."
                ) from None
            if time.monotonic() > until:
                raise Busy(directory, Holder.of(_text(fd))) from None
            time.sleep(0.01)


def _text(fd: int) -> str:
    return os.fsdecode(os.pread(fd, 1 << 14, 0))
