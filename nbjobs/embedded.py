"""The embedded Redis as its clients see it: find the daemon, start it where there is none, ask it.

The first client starts ``nbjobs up --detach``, a command with a process session of its own: a kernel's
interrupt and restart signal the kernel's process group, and must not reach Redis. Later clients find the
daemon by a socket in a directory that only this OS user can enter.

Each request is one JSON line, and so is the answer: ``hello`` (with the environment for which a worker is
wanted) answers the URL of Redis, ``status`` what runs, ``down`` ends all.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import lock
from .directories import Places, check_platform, data_directory, identity, own_places
from .errors import EmbeddedError
from .settings import Environment, NbJobs, environment

START_TIMEOUT = 90.0  # an append-only file of many GB takes that long to load
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1  # of macOS
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from nbjobs.__main__ import main; sys.exit(main())"
)

__all__ = [
    "Places",
    "ask",
    "ask_patiently",
    "check_platform",
    "command",
    "hello",
    "is_as_met",
    "places",
    "url",
]

_met: dict[str, tuple[Path, tuple[int, int] | None]] = {}


def places(settings: NbJobs) -> Places:
    """Return where the daemon is that has the data of these settings, or where a new one would be.

    A daemon is found by the lock of its data: its sockets may be elsewhere than this process's variables say.

    Raises:
        EmbeddedError: a directory cannot be made or is not safe, or there is no embedded Redis on this platform.
    """
    data = data_directory(settings)
    found = lock.holder(data)
    if found is None or found.runtime is None or not found.here:
        return own_places(settings)
    return Places(found.runtime, data)


def url(settings: NbJobs, *, worker: bool = True) -> str:
    """Returns the URL of the embedded Redis, which is started if it does not run.

    Args:
        settings: say where the daemon's directories are.
        worker: whether a worker for this process's environment (interpreter, working directory, ``sys.path``)
            is wanted too. It is started in the background.

    Raises:
        EmbeddedError: the daemon cannot be started; the text says why and what to do.
    """
    request = hello(settings, environment(), worker=worker)
    answer = ask_patiently(found := places(settings), request)
    if answer is None:
        _start(settings, found)
        answer = ask_patiently(found := places(settings), request)
    if answer is None:
        raise EmbeddedError(f"the nbjobs daemon has ended right after its start; what it printed is in {found.log}")
    _met[str(answer["redis"])] = found.daemon_socket, identity(found.daemon_socket)
    return str(answer["redis"])


def is_as_met(url: str) -> bool:
    """Whether the daemon is still the one that `url` spoke to; if not, it must hear of this process again."""
    if url not in _met:
        return True
    path, socket = _met[url]
    return socket is not None and identity(path) == socket


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
            _check_listener(link, found)
            link.sendall(json.dumps(request).encode() + b"\n")
            line = link.makefile("rb").readline()
        except (FileNotFoundError, NotADirectoryError, ConnectionError):
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


def _check_listener(link: socket.socket, found: Places) -> None:
    """Refuse to tell another user's process what the environment variables hold.

    Raises:
        EmbeddedError: the socket is one.
    """
    if sys.platform == "darwin":  # struct xucred begins with its version and the user's number
        user = struct.unpack_from("2I", link.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76))[1]
    else:
        user = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    if user != os.getuid():
        raise EmbeddedError(
            f"user number {user} listens on {found.daemon_socket}, expected {os.getuid()} (you). "
            "Set NBJOBS_RUNTIME_DIR to a directory that only you can enter."
        )


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
        "NBJOBS_DATA_DIR": str(settings.data_dir),
        "NBJOBS_IDLE_EXIT": str(settings.idle_exit),
    }
    if settings.is_set("runtime_dir"):
        variables["NBJOBS_RUNTIME_DIR"] = str(settings.runtime_dir)
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
