"""Starts the daemon, once per OS user: in this terminal, or detached from it. And ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import redis_server
from .daemon import Daemon
from .directories import Places, data_directory, own_places
from .embedded import ask, ask_patiently, hello, places
from .environment import environment
from .errors import EmbeddedError, NbjobsError
from .keeper import Wanted
from .lock import Busy, Holder, Lock, holder
from .settings import NbJobs

_UP_TIMEOUT = 90.0
_DOWN_TIMEOUT = 10.0
_AGAIN = 1.0
_LOG_LIMIT = 1_000_000


def up(settings: NbJobs, *, worker: bool = True) -> str | None:
    """Runs the daemon here until it ends; where one runs already, returns what it says of itself.

    Args:
        settings: where its directories are.
        worker: whether to start a worker for this process's environment at once.
    """
    request = hello(settings, environment(), worker=worker, wait=True)
    if (status := _visit(settings, request)) is not None:
        return status
    found = own_places(settings)
    with Lock(found) as lock:
        print(f"nbjobs: Redis at {found.redis_url}. Ctrl-C ends it, `nbjobs down` too.", file=sys.stderr)
        asyncio.run(Daemon(settings, lock, ready=_starter(request)).run())
    return None


def up_detached(settings: NbJobs, *, worker: bool = True) -> str:
    """Makes sure that a daemon runs, in a process session of its own; returns what it says of itself.

    Raises:
        EmbeddedError: it cannot be started, or its worker does not get ready.
    """
    request = hello(settings, environment(), worker=worker, wait=True)
    until = time.monotonic() + _UP_TIMEOUT
    while (status := _visit(settings, request)) is None:
        said = _fork(settings, found := own_places(settings))
        if said not in ("ready", "busy"):
            raise EmbeddedError(said or f"the daemon ended before it was ready, see {found.log}")
        if time.monotonic() > until:
            raise EmbeddedError(_silent(settings, found.data))
        if said == "busy":
            time.sleep(0.05)
    return status


def status(settings: NbJobs) -> str | None:
    """Return what the daemon says of itself; None where none runs.

    Raises:
        EmbeddedError: one runs, and does not answer.
    """
    if (said := _visit(settings, {"op": "status"})) is not None:
        return said
    data = data_directory(settings)
    if holder(data) is not None:
        raise EmbeddedError(_silent(settings, data))
    return None


def _silent(settings: NbJobs, data: Path) -> str:
    return (
        f"the nbjobs daemon of {data} ({holder(data) or 'which has just ended'}) runs, but does not answer at "
        f"{places(settings).daemon_socket}: try again in a moment, or end it with `nbjobs down`"
    )


def down(settings: NbJobs) -> bool:
    """Ends the daemon, Redis and the workers; False where none runs.

    A daemon that cannot be reached is found by its lock, and gets a signal.

    Raises:
        EmbeddedError: it does not end.
    """
    found = places(settings)
    told = _told_to_end(found)
    if not told and holder(found.data) is None:
        return _end_orphans(settings)
    until, next_signal = time.monotonic() + _DOWN_TIMEOUT, time.monotonic()
    while held_by := holder(found.data) or holder(found.runtime):
        now = time.monotonic()
        if now > until:
            raise EmbeddedError(
                f"the daemon ({held_by}) has not ended after {_DOWN_TIMEOUT:g} s, see {found.log}: "
                "wait, or kill that process with SIGKILL, which ends all that it has started"
            )
        if not told and now >= next_signal and held_by.pid:
            _signal(found.data, held_by)
            next_signal = now + _AGAIN  # the second signal ends the time that bodies have
        time.sleep(0.01)
    return True


def _end_orphans(settings: NbJobs) -> bool:
    """End what a daemon left that was killed together with its guard; return whether there was something."""
    with Lock(own_places(settings)) as lock:
        runtime = lock.before or lock.places.runtime
        return asyncio.run(redis_server.end_orphan(runtime, patience=_DOWN_TIMEOUT))


def _told_to_end(found: Places) -> bool:
    try:
        return ask(found, {"op": "down"}, timeout=_AGAIN) is not None
    except EmbeddedError:
        return False


def _signal(data: Path, held_by: Holder) -> None:
    if not held_by.here:
        raise Busy(data, held_by)
    with suppress(ProcessLookupError):
        os.kill(held_by.pid, signal.SIGTERM)


def _visit(settings: NbJobs, request: dict[str, Any]) -> str | None:
    """Asks a daemon that runs for what is wanted; returns its description, None where none answers."""
    found = places(settings)
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
        with Lock(found) as lock:
            _leave_terminal(found)
            asyncio.run(Daemon(settings, lock, ready=lambda daemon: say("ready")).run())
        code = 0
    except Busy as error:
        say("busy" if error.holder.here else str(error))  # who is here answers in a moment
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
    try:
        log = os.open(found.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise EmbeddedError(f"the log {found.log} cannot be written: {error.strerror}") from None
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    os.chdir(found.data)
