"""The guard: a small process that starts the daemon's programs and ends them when the daemon is gone.

The daemon starts no program itself. It asks the guard, over a socket that nobody else holds. Whatever ends
the daemon, SIGKILL included, ends that socket too: the guard then kills the workers (their nurseries kill
the bodies), ends Redis after them, and leaves. Nothing is orphaned, and nothing polls.

This file is run by its path, imports only the standard library and nothing of nbjobs, so it is small and is up
in some ten milliseconds. The messages are JSON lines::

    {"start": 1, "argv": […], "cwd": "…", "env": {…}, "soft": false}  →  {"started": 1, "pid": 4711}
                                                                       or  {"failed": 1, "error": "…"}
    {"signal": 15, "pid": 4711}                                        →  nothing
                                                                       ←  {"exit": 4711, "code": -15}
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

VARIABLE = "NBJOBS_GUARD"  # tells a program the process of its guard
SOFT_END = 1.0  # seconds that a program which was started `soft` (Redis) has to end by itself
HARD_END = 0.3  # seconds for the helpers of a killed worker to notice and leave


class Guard:
    """Starts, signals and reaps the programs of the daemon at the other end of `link`."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.programs: dict[int, subprocess.Popen[bytes]] = {}
        self.soft: set[int] = set()
        self._received: list[bytes] = []  # of a line whose end has not come

    def serve(self) -> None:
        """Does what the daemon asks for until its end of the socket closes; then ends everything."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        try:
            while True:
                ready, _, _ = select.select([self.link.fileno(), wake_read], [], [])
                if wake_read in ready:
                    os.read(wake_read, 4096)
                    self.reap()
                if self.link.fileno() in ready and not self.receive():
                    return
        finally:
            self.end()

    def receive(self) -> bool:
        """Reads what has come and does it; False at the end of the stream."""
        try:
            data = self.link.recv(1 << 16)
        except OSError:
            return False
        *ends, rest = data.split(b"\n")
        for end in ends:
            line = b"".join([*self._received, end])  # an environment may have megabytes
            self._received.clear()
            self.handle(json.loads(line))
        self._received.append(rest)
        return bool(data)

    def handle(self, message: dict[str, Any]) -> None:
        """Does one thing that the daemon asked for."""
        if "start" in message:
            self.start(message)
        elif message.get("pid") in self.programs:
            self.programs[message["pid"]].send_signal(message["signal"])

    def start(self, message: dict[str, Any]) -> None:
        """Starts a program in a process group of its own, and says its pid or what was wrong."""
        try:
            program = subprocess.Popen(
                message["argv"],
                cwd=message.get("cwd"),
                env={**(os.environ if (env := message.get("env")) is None else env), VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self.say({"failed": message["start"], "error": str(error)})
            return
        self.programs[program.pid] = program
        if message.get("soft"):
            self.soft.add(program.pid)
        self.say({"started": message["start"], "pid": program.pid})

    def reap(self) -> None:
        """Tells the daemon which programs have ended."""
        for pid, program in list(self.programs.items()):
            code = program.poll()
            if code is not None:
                del self.programs[pid]
                self.soft.discard(pid)
                self.say({"exit": pid, "code": code})

    def say(self, message: dict[str, Any]) -> None:
        """Sends one message; a daemon that is gone is noticed by `receive`."""
        with suppress(OSError):
            self.link.sendall(json.dumps(message).encode() + b"\n")

    def end(self) -> None:
        """Kills the workers, then asks Redis to end, then kills what is left of their process groups."""
        groups = list(self.programs)
        hard = [pid for pid in groups if pid not in self.soft]
        for pid in hard:
            self.programs[pid].kill()
        self._wait(hard, HARD_END)
        for pid in hard:
            _kill_group(pid)
        for pid in self.soft:
            self.programs[pid].terminate()
        self._wait(list(self.soft), SOFT_END)
        for pid in self.soft:
            _kill_group(pid)

    def _wait(self, pids: list[int], seconds: float) -> None:
        """Waits until the programs have ended and their groups are empty, or the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for pid in pids:
                self.programs[pid].poll()
            if not any(_group_lives(pid) for pid in pids):
                return
            time.sleep(0.005)


def _group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies
        return False
    return True


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _ignore(number: int, frame: object) -> None:
    """A handler in Python: SIG_IGN would be inherited by the programs."""


def main(argv: list[str]) -> None:
    """Runs the guard on the socket whose descriptor is the only argument."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ignore)
    with socket.socket(fileno=int(argv[0])) as link:
        Guard(link).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
