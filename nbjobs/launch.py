"""Starts the daemon, once per OS user: in this terminal, or detached from it. And ends it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .daemon import Daemon
from .embedded import Places, ask, ask_patiently, hello, places
from .environment import environment
from .errors import EmbeddedError, NbjobsError
from .keeper import Wanted
from .settings import NbJobs

_DOWN_TIMEOUT = 10.0
_LOG_LIMIT = 1_000_000


class Busy(EmbeddedError):
    """Another daemon has the same directories."""


def up(settings: NbJobs, *, worker: bool = True) -> str | None:
    """Runs the daemon here until it ends; where one runs already, returns what it says of itself.

    Args:
        settings: where its directories are.
        worker: whether to start a worker for this process's environment at once.
    """
    found = places(settings)
    request = hello(settings, environment(), worker=worker, wait=True)
    if (status := _visit(found, request)) is not None:
        return status
    print(f"nbjobs: Redis at {found.redis_url}. Ctrl-C ends it, `nbjobs down` too.", file=sys.stderr)
    with only_one(found):
        asyncio.run(Daemon(settings, found, ready=_starter(request)).run())
    return None


def up_detached(settings: NbJobs, *, worker: bool = True) -> str:
    """Makes sure that a daemon runs, in a process session of its own; returns what it says of itself.

    Raises:
        EmbeddedError: it cannot be started, or its worker does not get ready.
    """
    found = places(settings)
    request = hello(settings, environment(), worker=worker, wait=True)
    until = time.monotonic() + 90
    while (status := _visit(found, request)) is None:
        said = _fork(settings, found)
        if said not in ("ready", "busy"):
            raise EmbeddedError(said or f"the daemon ended before it was ready, see {found.log}")
        if time.monotonic() > until:
            raise EmbeddedError(f"the daemon that holds {found.runtime} does not answer: end it, then try again")
        if said == "busy":
            time.sleep(0.02)
    return status


def down(settings: NbJobs) -> bool:
    """Ends the daemon, Redis and the workers; False where none runs.

    Raises:
        EmbeddedError: it does not end.
    """
    found = places(settings)
    if ask(found, {"op": "down"}) is None:
        return False
    until = time.monotonic() + _DOWN_TIMEOUT
    while time.monotonic() < until:
        try:
            with only_one(found):
                return True
        except Busy:
            time.sleep(0.01)
    raise EmbeddedError(f"the daemon has not ended after {_DOWN_TIMEOUT:g} s, see {found.log}")


@contextmanager
def only_one(found: Places) -> Iterator[None]:
    """Holds the locks of a daemon: on its sockets, and on its data (a home may be shared by several hosts).

    Raises:
        Busy: another daemon holds one of them.
    """
    with ExitStack() as stack:
        for directory in (found.runtime, found.data):
            stack.enter_context(_locked(directory / "daemon.lock"))
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise Busy(
                f"another nbjobs daemon uses {path.parent} ({file.read().strip() or 'it has just started'}): "
                "use that one, end it there, or set NBJOBS_DATA_DIR and NBJOBS_RUNTIME_DIR to other directories"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _visit(found: Places, request: dict[str, Any]) -> str | None:
    """Asks a daemon that runs for what is wanted; returns its description, None where none runs."""
    if ask_patiently(found, request) is None:
        return None
    status = ask_patiently(found, {"op": "status"})
    return None if status is None else describe(status)


def describe(status: dict[str, Any]) -> str:
    """Returns what `nbjobs up` says of a daemon that runs."""
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(status["since"]))
    runs = ", ".join(f"{count} {state}" for state, count in sorted(status["runs"].items())) or "none unfinished"
    lines = [f"nbjobs is up (process {status['pid']}, since {since})", f"  Redis   {status['redis']}"]
    lines += [
        f"  worker  {f'process {pid}' if (pid := worker['pid']) else 'is being started'}, "
        f"queue {worker['queue']}, {worker['python']} in {worker['cwd']}"
        for worker in status["workers"]
    ]
    return "\n".join([*lines, f"  runs    {runs}"])


def _starter(request: dict[str, Any]) -> Callable[[Daemon], None]:
    """Returns what a daemon does when it is ready: it starts the worker that its own terminal wants."""

    def start(daemon: Daemon) -> None:
        if "worker" in request:
            daemon.spawn(daemon.want(Wanted.of(request["worker"])))

    return start


def _fork(settings: NbJobs, found: Places) -> str:
    """Starts a daemon without a terminal and returns its first word: ready, busy, or what is wrong."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() == 0:
        os.close(reading)
        _be_daemon(settings, found, writing)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        return pipe.read()


def _be_daemon(settings: NbJobs, found: Places, writing: int) -> None:
    """Is the forked process; never returns."""
    said = False

    def say(text: str) -> None:
        nonlocal said
        if not said:
            said = True
            os.write(writing, text.encode(errors="replace"))
            os.close(writing)

    code = 1
    try:
        os.setsid()
        with only_one(found):
            _leave_terminal(found)
            asyncio.run(Daemon(settings, found, ready=lambda daemon: say("ready")).run())
        code = 0
    except Busy as error:
        mine = str(found.runtime) in str(error)  # the sockets are another's: it answers in a moment
        say("busy" if mine else str(error))
    except NbjobsError as error:
        logging.getLogger("nbjobs.daemon").error("%s", error)
        say(str(error))
    except BaseException:
        logging.getLogger("nbjobs.daemon").exception("the daemon has failed")
    finally:
        logging.shutdown()
        os._exit(code)


def _leave_terminal(found: Places) -> None:
    """Puts the log in the place of stdin, stdout and stderr, and works in the data directory."""
    if found.log.exists() and found.log.stat().st_size > _LOG_LIMIT:
        found.log.replace(found.log.with_suffix(".log.1"))
    log = os.open(found.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    os.chdir(found.data)
