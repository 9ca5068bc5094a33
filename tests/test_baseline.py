"""How a process was before its first body, and what is different since."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbjobs.baseline import Baseline, stop_timers
from nbjobs.vitals import MIB

LIMIT = 1 << 50


def test_a_process_as_it_was_has_nothing_left_behind() -> None:
    """Nothing is found where nothing changed."""
    assert Baseline(LIMIT).left_behind() == []


def test_threads_that_live_on_are_named() -> None:
    """A thread is left behind where it does not end within a moment."""
    baseline = Baseline(LIMIT)
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="poller")
    thread.start()
    assert baseline.left_behind() == ["thread poller"]
    go_on.set()
    assert baseline.left_behind() == []


def test_threads_of_progress_bars_are_none_of_the_body_s() -> None:
    """The one thread that tqdm keeps for the process does not cost a child."""
    tqdm = pytest.importorskip("tqdm")
    baseline = Baseline(LIMIT)
    with Path(os.devnull).open("w") as nowhere:
        for _ in tqdm.tqdm(range(2), file=nowhere):
            pass
    assert baseline.left_behind() == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list the children of a process")
def test_programs_that_live_on_are_named() -> None:
    """A program is left behind while it runs, not when it has ended and nobody asked for its code."""
    baseline = Baseline(LIMIT)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as program:
        try:
            assert baseline.left_behind() == [f"process {program.pid}"]
        finally:
            program.kill()
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        assert baseline.left_behind() == []


def test_directory_environment_and_memory_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed directory or environment, and memory out of bounds, are named."""
    baseline = Baseline(memory_limit=MIB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEW", "1")
    found = baseline.left_behind()
    assert found[:2] == ["changed directory", "changed environment"]
    assert sys.platform != "linux" or found[2].endswith("MiB")


def test_a_deleted_directory_is_a_changed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that deletes the directory it stands in harms nobody."""
    baseline = Baseline(LIMIT)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert baseline.left_behind() == ["changed directory"]


def _toggle_umask() -> Callable[[], Any]:
    old = os.umask(0o123)
    return lambda: os.umask(old)


def _handle() -> Callable[[], Any]:
    old = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    return lambda: signal.signal(signal.SIGUSR2, old)


def _block() -> Callable[[], Any]:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    return lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})


def _profile() -> Callable[[], Any]:
    old = sys.getprofile()
    sys.setprofile(lambda frame, event, arg: None)
    return lambda: sys.setprofile(old)


def _disable() -> Callable[[], Any]:
    gc.disable()
    return gc.enable


def _socket_timeout() -> Callable[[], Any]:
    socket.setdefaulttimeout(7)
    return lambda: socket.setdefaulttimeout(None)


def _recursion() -> Callable[[], Any]:
    old = sys.getrecursionlimit()
    sys.setrecursionlimit(old + 1)
    return lambda: sys.setrecursionlimit(old)


def _descriptors() -> Callable[[], Any]:
    opened = [os.dup(0) for _ in range(200)]
    return lambda: [os.close(one) for one in opened]


@pytest.mark.skipif(sys.platform == "win32", reason="a worker needs Unix processes")
@pytest.mark.weather("H10")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_toggle_umask, "changed umask"),
        (_handle, "changed signal handlers"),
        (_block, "changed blocked signals"),
        (_profile, "changed tracing"),
        (_disable, "changed garbage collection"),
        (_socket_timeout, "changed default timeout of sockets"),
        (_recursion, "changed recursion limit"),
        (_descriptors, "open descriptors"),
    ],
)
def test_what_a_process_has_once_is_looked_at(change: Callable[[], Callable[[], Any]], named: str) -> None:
    """What a body has changed is named, and nothing once it has put it back."""
    baseline = Baseline(LIMIT)
    undo = change()
    try:
        found = baseline.left_behind()
    finally:
        undo()
    assert len(found) == 1 and named in found[0]
    assert baseline.left_behind() == []


@pytest.mark.skipif(sys.platform == "win32", reason="a worker needs Unix processes")
@pytest.mark.timeout(method="thread")  # else it has a timer of its own
@pytest.mark.weather("H10")
def test_a_timer_that_a_body_left_does_not_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer is stopped and told of, and so is one that rings at this moment, whatever its handler raises."""
    assert not stop_timers()
    setitimer, rings = signal.setitimer, iter([signal.SIGALRM])

    def late(number: int, frame: object) -> None:
        raise TimeoutError

    def ringing(which: int, seconds: float) -> tuple[float, float]:
        for number in rings:
            signal.raise_signal(number)
        return setitimer(which, seconds)

    old = signal.signal(signal.SIGALRM, late)
    try:
        monkeypatch.setattr("nbjobs.baseline._signal.setitimer", ringing)
        assert stop_timers()
        setitimer(signal.ITIMER_REAL, 60)
        assert stop_timers() and signal.getitimer(signal.ITIMER_REAL) == (0, 0)
        signal.raise_signal(signal.SIGALRM)  # it had been on its way
    finally:
        signal.signal(signal.SIGALRM, old)
