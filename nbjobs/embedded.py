"""The embedded Redis as its clients see it: find the daemon, start it where there is none, ask it.

The first client starts ``nbjobs up --detach``, a command with a process session of its own: a kernel's
interrupt and restart signal the kernel's process group, and must not reach Redis. Later clients find the
daemon by a socket in a directory that only this OS user can enter.

Each request is one JSON line, and so is the answer: ``hello`` (with the environment for which a worker is
wanted) answers the URL of Redis, ``status`` what runs, ``down`` ends all.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import EmbeddedError
from .settings import Environment, NbJobs, environment

SOCKET_PATH_MAX = 103 if sys.platform == "darwin" else 107
START_TIMEOUT = 90.0  # an append-only file of many GB takes that long to load
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from nbjobs.__main__ import main; sys.exit(main())"
)


_met: dict[str, tuple[Path, tuple[int, int] | None]] = {}


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
        return self.runtime / "redis.sock"

    @property
    def daemon_socket(self) -> Path:
        """Unix socket on which the daemon answers."""
        return self.runtime / "daemon.sock"

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


def places(settings: NbJobs) -> Places:
    """Returns where the daemon of these settings lives, and makes its directories.

    A runtime directory with a path too long for a Unix socket is replaced by a short one under ``/tmp``,
    named after it and used only if nobody else can enter it.

    Raises:
        EmbeddedError: a directory cannot be made or is not safe, or there is no embedded Redis on this platform.
    """
    check_platform()
    runtime = Path(settings.runtime_dir).expanduser().absolute()
    longest = max(len(os.fsencode(runtime / name)) for name in ("redis.sock", "daemon.sock"))
    if longest > SOCKET_PATH_MAX:
        try:
            runtime = _private(_short(runtime))
        except EmbeddedError as error:
            raise EmbeddedError(
                f"the path of a socket in {runtime} would have {longest} characters, a Unix socket's may have "
                f"{SOCKET_PATH_MAX}, and the short directory instead of it cannot be used: {error} "
                "Set NBJOBS_RUNTIME_DIR to a shorter directory that only you can enter."
            ) from None
    else:
        _private(runtime)
    data = Path(settings.data_dir).expanduser().absolute()
    found = Places(runtime, data)
    _make(data)
    _private(found.redis_data)
    return found


def check_platform() -> None:
    """Raises EmbeddedError where no embedded Redis can run."""
    if sys.platform == "win32":
        raise EmbeddedError(
            "the embedded Redis and workers run on Linux and macOS only: use nbjobs inside WSL, or set "
            "NBJOBS_REDIS_URL to a Redis elsewhere (this Python is then a client: it can enqueue and follow runs)."
        )


def url(settings: NbJobs, *, worker: bool = True) -> str:
    """Returns the URL of the embedded Redis, which is started if it does not run.

    Args:
        settings: say where the daemon's directories are.
        worker: whether a worker for this process's environment (interpreter, working directory, ``sys.path``)
            is wanted too. It is started in the background.

    Raises:
        EmbeddedError: the daemon cannot be started; the text says why and what to do.
    """
    found = places(settings)
    request = hello(settings, environment(), worker=worker)
    answer = ask_patiently(found, request)
    if answer is None:
        _start(settings, found)
        answer = ask_patiently(found, request)
    if answer is None:
        raise EmbeddedError(f"the nbjobs daemon has ended right after its start; what it printed is in {found.log}")
    _met[str(answer["redis"])] = found.daemon_socket, _identity(found.daemon_socket)
    return str(answer["redis"])


def is_as_met(url: str) -> bool:
    """Whether the daemon is still the one that `url` spoke to; if not, it must hear of this process again."""
    if url not in _met:
        return True
    path, identity = _met[url]
    return identity is not None and _identity(path) == identity


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def hello(settings: NbJobs, wanted: Environment, *, worker: bool = True, wait: bool = False) -> dict[str, Any]:
    """Returns the request of a client that wants Redis and, unless it says no, a worker.

    Args:
        settings: the client's; its `queue_name` is the worker's.
        wanted: the environment the worker is for.
        worker: whether a worker is wanted.
        wait: answer only when that worker is ready.
    """
    request: dict[str, Any] = {"op": "hello", "wait": wait}
    if worker:
        request["worker"] = {
            "python": wanted.python,
            "cwd": wanted.cwd,
            "path": list(wanted.path),
            "hash": wanted.hash,
            "queue": settings.queue_name,
            "variables": dict(os.environ),
        }
    return request


def ask(found: Places, request: dict[str, Any], *, timeout: float = START_TIMEOUT) -> dict[str, Any] | None:
    """Sends the daemon one request and returns its answer; None where no daemon is there.

    Raises:
        EmbeddedError: the daemon says that it cannot do it, or does not answer in time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(timeout)
        try:
            link.connect(str(found.daemon_socket))
            link.sendall(json.dumps(request).encode() + b"\n")
            line = link.makefile("rb").readline()
        except (FileNotFoundError, ConnectionError):
            return None
        except OSError as error:
            raise EmbeddedError(
                f"the nbjobs daemon at {found.daemon_socket} does not answer ({error}): "
                "end it with `nbjobs down`, then try again"
            ) from None
    if not line.endswith(b"\n"):  # it was just leaving
        return None
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise EmbeddedError(str(answer["error"]))
    return answer


def ask_patiently(found: Places, request: dict[str, Any]) -> dict[str, Any] | None:
    """Does what `ask` does, and waits for the end of a daemon that drains: nobody is there then."""
    until = time.monotonic() + START_TIMEOUT
    while (answer := ask(found, request)) is not None and answer.get("ending"):
        if time.monotonic() > until:
            raise EmbeddedError("the nbjobs daemon is about to end, but does not: `nbjobs down` ends it at once")
        time.sleep(0.05)
    return answer


def command(python: str, path: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Returns the command that runs ``nbjobs <arguments>`` in another interpreter with the given ``sys.path``.

    ``python -m nbjobs`` would find neither an nbjobs nor a job that a notebook reaches by a changed ``sys.path``.
    """
    return [python, "-c", _BOOT, json.dumps(list(path)), *arguments]


def _start(settings: NbJobs, found: Places) -> None:
    """Runs ``nbjobs up --detach`` and waits until it says that Redis answers."""
    here = environment()
    variables = {
        **os.environ,
        "NBJOBS_RUNTIME_DIR": str(settings.runtime_dir),
        "NBJOBS_DATA_DIR": str(settings.data_dir),
        "NBJOBS_IDLE_EXIT": str(settings.idle_exit),
    }
    with tempfile.TemporaryFile() as said:  # not a pipe: nothing that the daemon starts may hold it open
        try:
            code = subprocess.run(
                command(here.python, here.path, ["up", "--detach", "--no-worker"]),
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
                timeout=START_TIMEOUT,
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedError(f"`nbjobs up --detach` could not be run: {error}") from None
        if code != 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1].removeprefix("nbjobs: ") if lines else f"it ended with code {code}"
            raise EmbeddedError(f"the embedded Redis could not be started: {reason} (log: {found.log})")


def _short(runtime: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(runtime)).hexdigest()[:8]
    return Path("/tmp") / f"nbjobs-{os.getuid()}-{digest}"


def _make(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(
            f"the directory {path} cannot be made: {error.strerror or error}. "
            "Set NBJOBS_RUNTIME_DIR and NBJOBS_DATA_DIR to directories that you may write."
        ) from None


def _private(path: Path) -> Path:
    """Makes the directory; returns it only if nobody but this OS user can enter it."""
    _make(path)
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


def forget(*sockets: Path) -> None:
    """Removes sockets on which nobody listens any more."""
    for path in sockets:
        path.unlink(missing_ok=True)
