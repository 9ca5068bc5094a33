"""The helper that makes children and ends them: all of them, at the latest when the worker is gone.

The worker forks nothing itself: it has threads and connections. It starts this process with
``python -m nbjobs.nursery --socket FD`` and asks it for children. One thread, no user code, and nobody else
reaps here, so that a process id never means two processes.

What it is told: ``init`` with the `Upbringing`; ``fork {name}`` with three descriptors (socket, stdout,
stderr); ``kill {pid}``; ``signal {pid, number}``. What it answers: ``pid {name, pid}`` or
``failed {name, why}``; later ``exit {pid, code, signal, busy, peak, out_of}``, when it has also killed what was left of
that child's process group; `busy` where a body was under way, `out_of` how much memory there was where the child has
probably died for want of it.
At the end of the socket it kills whatever lives. It sets no parent-death signal on itself: it would die of
it before it had killed anybody.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from . import birth
from .child import Upbringing, live
from .shortage import Shortage
from .vitals import peak_bytes
from .wire import Channel, Message

_CHILD_SOCKET = 3  # of an executed child


@dataclass(frozen=True)
class Newborn:
    """A forked process that has yet to become a child."""

    name: str
    nursery: int
    fds: Sequence[int]


class Nursery:
    """Obeys one worker.

    Args:
        channel: the socket to it.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._children: dict[int, str] = {}
        self._init: Message = {}
        self._shortage = Shortage()

    def serve(self) -> tuple[Newborn, Upbringing] | None:
        """Returns None when the worker is gone and every child dead; in a forked child, what it shall be."""
        with _child_deaths() as deaths:
            poller = select.poll()
            for fd in (deaths, self._channel.fileno()):
                poller.register(fd, select.POLLIN)
            while True:
                ready = [fd for fd, _ in poller.poll()]
                if deaths in ready:
                    os.read(deaths, 4096)
                    self._reap()
                if self._channel.fileno() in ready:
                    messages = self._channel.read()
                    if messages is None:
                        break
                    for message in messages:
                        newborn = self._obey(message)
                        if newborn is not None:
                            return newborn, Upbringing.from_wire(self._init)
        self._end_all()
        return None

    def _obey(self, message: Message) -> Newborn | None:
        op = message["op"]
        if op == "init":
            self._init = message
            if message["birth"] == "fork":
                Upbringing.from_wire(message).apply()
                birth.freeze_memory()
        elif op == "fork":
            return self._bear(message["name"])
        elif op == "kill":
            self._signal_group(message["pid"], signal.SIGKILL)
        elif op == "signal" and message["pid"] in self._children:
            os.kill(message["pid"], message["number"])
        return None

    def _bear(self, name: str) -> Newborn | None:
        fds = self._channel.take_fds(3)
        me = os.getpid()
        try:
            pid = self._spawn(name, fds) if self._init["birth"] == "spawn" else os.fork()
        except OSError as error:
            self._tell({"op": "failed", "name": name, "why": str(error)})
        else:
            if pid == 0:
                self._channel.close()
                return Newborn(name, me, fds)
            with contextlib.suppress(OSError):  # it may have done so, or be gone
                os.setpgid(pid, pid)
            self._children[pid] = name
            self._tell({"op": "pid", "name": name, "pid": pid})
        for fd in fds:
            os.close(fd)
        return None

    def _spawn(self, name: str, fds: Sequence[int]) -> int:
        """Where forking without executing is no option (macOS): a new interpreter."""
        reading, writing = os.pipe()
        os.write(writing, msgspec.json.encode(self._init))  # a pipe takes it at once: some KB
        os.close(writing)
        sources = [reading, fds[1], fds[2], fds[0]]
        actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(sources)]
        command = [sys.executable, "-m", "nbjobs.nursery", "--child", name, "--nursery", str(os.getpid())]
        try:
            return os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setpgroup=0)
        finally:
            os.close(reading)

    def _reap(self) -> None:
        while (death := self._next_death()) is not None:
            pid, status, peak, busy = death
            name = self._children.pop(pid, None)
            self._kill_orphans()
            if name is not None:
                code = os.waitstatus_to_exitcode(status)
                how = {"code": None, "signal": -code} if code < 0 else {"code": code, "signal": None}
                out_of = self._shortage.explains(peak) if code == -signal.SIGKILL else 0
                self._tell({"op": "exit", "pid": pid, "busy": busy, "peak": peak, "out_of": out_of, **how})

    def _next_death(self) -> tuple[int, int, int, bool] | None:
        """Reaps one dead child and answers its status, its peak memory and whether it was busy; kills its group."""
        try:
            if sys.platform == "linux":
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None:
                    return None
                # Not reaped yet, so the group's id is still its own.
                self._signal_group(found.si_pid, signal.SIGKILL)
                busy = birth.was_busy(found.si_pid)
                pid, status, used = os.wait4(found.si_pid, 0)
                return pid, status, peak_bytes(used), busy
            pid, status, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        self._signal_group(pid, signal.SIGKILL)
        return (pid, status, peak_bytes(used), False) if pid else None

    def _kill_orphans(self, *, all_of_them: bool = False) -> None:
        """Kills programs that left their child's group and outlived it."""
        living = set(self._children.values())
        for pid in _adopted(self._children):
            origin = _origin(pid)
            if all_of_them or (origin and origin not in living):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _signal_group(self, pid: int, number: int) -> None:
        if pid in self._children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)

    def _end_all(self) -> None:
        for pid in self._children:
            self._signal_group(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                self._kill_orphans(all_of_them=True)
                os.waitpid(-1, 0)

    def _tell(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # the worker is gone: the next read says so
            self._channel.send(message)


@contextlib.contextmanager
def _child_deaths() -> Iterator[int]:
    """A descriptor that becomes readable when a child has died."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reading)
        os.close(writing)


def _adopted(children: dict[int, str]) -> list[int]:
    """Processes that became ours when their parent died."""
    me = os.getpid()
    try:
        listed = Path(f"/proc/{me}/task/{me}/children").read_bytes()
    except OSError:
        return []
    return [pid for pid in map(int, listed.split()) if pid not in children]


def _origin(pid: int) -> str:
    """The name of the child that started a program; empty where it cannot be told."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    prefix = f"{birth.CHILD_VARIABLE}=".encode()
    return next((entry[len(prefix) :].decode() for entry in environment if entry.startswith(prefix)), "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the processes that run bodies; started by a worker."""
    parser = argparse.ArgumentParser(prog="python -m nbjobs.nursery", description=main.__doc__)
    parser.add_argument("--socket", type=int)
    parser.add_argument("--child")
    parser.add_argument("--nursery", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.child:
        _be_executed_child(given.child, given.nursery)
        return
    birth.stay_on_signals()
    birth.adopt_orphans()
    born = Nursery(Channel(socket.socket(fileno=given.socket))).serve()
    if born is not None:
        _be_forked_child(*born)


def _be_forked_child(newborn: Newborn, upbringing: Upbringing) -> None:
    birth.settle(nursery=newborn.nursery, name=newborn.name)
    birth.redirect(newborn.fds[1], newborn.fds[2])
    for fd in newborn.fds[1:]:
        os.close(fd)
    live(Channel(socket.socket(fileno=newborn.fds[0])), upbringing)


def _be_executed_child(name: str, nursery: int) -> None:
    birth.settle(nursery=nursery, name=name)
    with Path("/dev/stdin").open("rb") as given:
        upbringing = Upbringing.from_wire(msgspec.json.decode(given.read()))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    birth.redirect(1, 2)
    upbringing.apply()
    os.set_inheritable(_CHILD_SOCKET, False)
    live(Channel(socket.socket(fileno=_CHILD_SOCKET)), upbringing)


if __name__ == "__main__":
    main()
