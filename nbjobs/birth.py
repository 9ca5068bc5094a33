"""The first microseconds of a child: whatever happens to its nursery, it must not outlive it.

Linux only knows `PR_SET_PDEATHSIG` and ``/proc``; elsewhere a child has its own process group and the end
of its socket, which is enough as long as the body lets Python run.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import gc
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .output import MarkingStream

CHILD_VARIABLE = "NBJOBS_CHILD"
"""Environment variable by which the nursery knows whose program an orphan is."""

_IDLE, _BUSY = b"nbjobs idle", b"nbjobs body"

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_OOM_SCORE = 500
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

_libc = ctypes.CDLL(None) if sys.platform != "win32" else None


def settle(*, nursery: int, name: str) -> None:
    """Makes this process a child: own group, bound to the nursery's life, deaf to the terminal.

    Ends the process at once where the nursery is gone already.
    """
    with contextlib.suppress(PermissionError):  # the nursery may have done it, from its side
        os.setpgid(0, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != nursery:
        os._exit(0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stay_on_signals()
    os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals, after_in_child=_hear_signals)
    os.environ[CHILD_VARIABLE] = name
    show_busy(False)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    _reseed()


def show_busy(busy: bool) -> bool:
    """Names this process, called from its main thread, by whether it runs a body; whether the name can be told.

    It is what ``top`` shows, and the nursery reads it of a dead child.
    """
    if sys.platform != "linux" or _libc is None:
        return False
    return bool(_libc.prctl(_PR_SET_NAME, _BUSY if busy else _IDLE, 0, 0, 0) == 0)


def was_busy(pid: int) -> bool:
    """Whether a dead child, not reaped yet, ran a body. One that has changed its name did."""
    try:
        return Path(f"/proc/{pid}/comm").read_bytes().strip() != _IDLE
    except OSError:
        return False


def is_ending(pid: int) -> bool:
    """Return whether a process has given up its memory or is gone; False where this system cannot tell."""
    try:
        return Path(f"/proc/{pid}/statm").read_bytes().startswith(b"0 ")
    except (FileNotFoundError, ProcessLookupError):  # it was reaped; or this system has no /proc
        return Path("/proc/self/statm").exists()
    except OSError:
        return False


def stay_on_signals() -> None:
    """SIGINT, SIGTERM and SIGHUP do nothing: the worker decides, over the socket.

    By handlers and not by SIG_IGN, which the programs that a body starts would inherit; its forks are set right.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _nothing)


def _hold_signals() -> None:
    """Before a fork: one that reaches the fork too early would meet the handler that does nothing."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


def _let_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _hear_signals() -> None:
    """In a fork that a body makes: `multiprocessing` ends its processes by SIGTERM."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    _let_signals()


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def adopt_orphans() -> None:
    """Makes descendants whose parent has died children of this process (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def redirect(stdout: int, stderr: int) -> None:
    """Puts two descriptors in the place of stdout and stderr, and Python's streams line by line on them."""
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    # New streams: the old ones remember whether what they stood on could seek.
    out, err = MarkingStream(1), MarkingStream(2)
    vars(sys).update(stdout=out, __stdout__=out, stderr=err, __stderr__=err)


def watch_for_crashes() -> None:
    """A crash in C code, and SIGUSR1, print the Python stack to stderr."""
    faulthandler.enable(file=2, all_threads=False)
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)


def flush_output() -> None:
    """Writes out what Python and C still buffer, so that it is there before the next message."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    if _libc is not None:
        _libc.fflush(None)


def leave(code: int) -> NoReturn:
    """Ends this process as `multiprocessing` ends its own: with exit handlers, without tearing Python down.

    Taking some 900 modules apart costs 50 ms of CPU and changes nothing.
    """
    atexit._run_exitfuncs()
    flush_output()
    os._exit(code)


def freeze_memory() -> None:
    """Lets what is loaded now be shared with forked children: the collector no longer touches it."""
    gc.collect()
    gc.freeze()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux" and _libc is not None:
        _libc.prctl(option, *(ctypes.c_ulong(argument) for argument in (value, 0, 0, 0)))


def _reseed() -> None:
    """A fork copies the state of random generators; Python's own is reseeded by Python."""
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.seed()
