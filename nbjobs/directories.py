"""The directories of the embedded daemon: where they are, and whether nobody else can get at them.

All that clients and daemon say to each other goes over Unix sockets, a client's environment variables included, and who
can write to Redis runs code as its user. So each directory must belong to this OS user alone, and what is above the
sockets must not let anybody put another directory into its place.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import EmbeddedError
from .settings import NbJobs

SOCKET_PATH_MAX = 103 if sys.platform == "darwin" else 107
REDIS_SOCKET, _DAEMON_SOCKET = "redis.sock", "daemon.sock"
_ELSEWHERE = "Set NBJOBS_RUNTIME_DIR to a directory that only you can enter."


@dataclass(frozen=True)
class Places:
    """Where the files of one daemon are.

    Attributes:
        runtime: directory of its sockets.
        data: directory of what outlives it.
    """

    runtime: Path
    data: Path

    @property
    def redis_socket(self) -> Path:
        """Unix socket of the private Redis."""
        return self.runtime / REDIS_SOCKET

    @property
    def daemon_socket(self) -> Path:
        """Unix socket on which the daemon answers."""
        return self.runtime / _DAEMON_SOCKET

    @property
    def log(self) -> Path:
        """What the daemon, Redis and the workers print."""
        return self.data / "daemon.log"

    @property
    def redis_data(self) -> Path:
        """Directory of the append-only file."""
        return self.data / "redis"

    @property
    def redis_url(self) -> str:
        """URL of the private Redis."""
        return f"unix://{self.redis_socket}"


def check_platform() -> None:
    """Raises EmbeddedError where no embedded Redis can run."""
    if sys.platform == "win32":
        raise EmbeddedError(
            "the embedded Redis and workers run on Linux and macOS only: use nbjobs inside WSL, or set "
            "NBJOBS_REDIS_URL to a Redis elsewhere (this Python is then a client: it can enqueue and follow runs)."
        )


def data_directory(settings: NbJobs) -> Path:
    """Return the directory of what outlives the daemon, and make it.

    Raises:
        EmbeddedError: it cannot be made or is not safe, or there is no embedded Redis on this platform.
    """
    check_platform()
    data = private(Path(settings.data_dir).expanduser().absolute())
    private(data / "redis")
    return data


def own_places(settings: NbJobs) -> Places:
    """Return where a daemon that is started with these settings lives, and make its directories.

    Sockets need a short path on a file system that has sockets. Where the runtime directory is none, a short directory
    under ``/tmp``, named after it, takes its place; so it does where others could replace a runtime directory that the
    settings do not name.

    Raises:
        EmbeddedError: a directory cannot be made or is not safe.
    """
    data = data_directory(settings)
    wanted = Path(settings.runtime_dir).expanduser().absolute()
    unfit = _unfit(wanted, named=settings.is_set("runtime_dir"))
    if not unfit:
        return Places(_settled(wanted), data)
    try:
        return Places(sheltered(_short(wanted)), data)
    except EmbeddedError as error:
        raise EmbeddedError(
            f"{unfit}, and the short directory instead of it cannot be used: {error} "
            "Set NBJOBS_RUNTIME_DIR to a shorter directory that only you can enter."
        ) from None


def _unfit(runtime: Path, *, named: bool) -> str:
    """Return why no socket can be in a directory; nothing where it can."""
    longest = max(len(os.fsencode(_settled(runtime) / name)) for name in (REDIS_SOCKET, _DAEMON_SOCKET))
    if longest > SOCKET_PATH_MAX:
        return (
            f"the path of a socket in {runtime} would have {longest} characters, a Unix socket's may have "
            f"{SOCKET_PATH_MAX}"
        )
    try:
        sheltered(runtime)
    except Replaceable as error:
        if named:
            raise
        return str(error)
    return "" if _has_sockets(runtime) else f"there are no Unix sockets on the file system of {runtime}"


def _has_sockets(directory: Path) -> bool:
    """Try it: file systems that are shared with another machine or system may have none."""
    trial = directory / f".{secrets.token_hex(2)}"
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.bind(str(trial))
        except OSError:
            return False
        finally:
            trial.unlink(missing_ok=True)
    return True


def _short(runtime: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(runtime)).hexdigest()[:8]
    return Path("/tmp") / f"nbjobs-{os.getuid()}-{digest}"


def _settled(path: Path) -> Path:
    """Return the path without links above it: they may be turned elsewhere between two looks."""
    return path.parent.resolve() / path.name


def private(path: Path) -> Path:
    """Make the directory; return it only if nobody but this OS user can enter it.

    Raises:
        EmbeddedError: somebody else can, or it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(
            f"the directory {path} cannot be made: {error.strerror or error}. "
            "Set NBJOBS_RUNTIME_DIR and NBJOBS_DATA_DIR to directories that you may write."
        ) from None
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        raise EmbeddedError(f"{path} is a link or a file, expected a directory.")
    if found.st_uid != os.getuid():
        raise EmbeddedError(f"{path} belongs to user number {found.st_uid}, expected {os.getuid()} (you).")
    if mode & 0o077:
        raise EmbeddedError(
            f"{path} has mode {mode:o}, expected 700, because who can enter it can run code as you: chmod 700 {path}"
        )
    return path


class Replaceable(EmbeddedError):
    """Somebody else could put another directory in the place of one."""


def sheltered(path: Path) -> Path:
    """Do as `private`, and return the directory only if nobody else can put another one into its place.

    What a group may write is its owner's decision: homes often belong to a common group.

    Raises:
        Replaceable: a directory above it belongs to another user, or everybody may write it.
        EmbeddedError: see `private`.
    """
    path = _settled(path)
    trusted = {0, os.getuid(), Path("/").stat().st_uid}  # root has another number where user namespaces are used
    for above in path.parents:
        with suppress(FileNotFoundError):  # it is made, and belongs to this user then
            found = above.stat()
            if found.st_uid not in trusted:
                raise Replaceable(
                    f"{above} belongs to user number {found.st_uid}, who could replace {path}, expected "
                    f"{os.getuid()} (you) or root. {_ELSEWHERE}"
                )
            if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
                raise Replaceable(
                    f"{above} has mode {stat.S_IMODE(found.st_mode):o}, so everybody could replace {path}. {_ELSEWHERE}"
                )
    return private(path)


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one at the same place; None where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def forget(*sockets: Path) -> None:
    """Remove sockets on which nobody listens any more."""
    for path in sockets:
        with suppress(OSError):
            path.unlink()
