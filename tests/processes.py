"""A nursery and children to talk to by hand, message by message."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from nbjobs.child import Upbringing
from nbjobs.nurseryhandle import clean_environment
from nbjobs.wire import Channel, Message, pair

from .support import wait_until


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def busy(pid: int) -> bool:
    """Whether a child says by its name that a body is under way."""
    return Path(f"/proc/{pid}/comm").read_text() == "nbjobs body\n"


def children_of(pid: int) -> list[int]:
    """Direct children, zombies too."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class End:
    """One end of a socket, read message by message."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._waiting: list[Message] = []
        self.ended = False

    def send(self, **message: Any) -> None:
        self.channel.send(message)

    def next(self, op: str = "") -> Message:
        """The next message; of this `op`, those before it are passed over."""
        while True:
            message = wait_until(self._poll, 10, f"a message {op}")
            if op in ("", message["op"]):
                return message

    def reads_end(self) -> bool:
        self._fill()
        return self.ended

    def _poll(self) -> Message | None:
        if not self._waiting:
            self._fill()
        assert self._waiting or not self.ended, "the other side is gone"
        return self._waiting.pop(0) if self._waiting else None

    def _fill(self) -> None:
        messages = self.channel.read()
        self.ended = messages is None
        self._waiting += messages or []


class Child(End):
    """A child that was born by hand."""

    pid = 0

    def __init__(self, channel: Channel, stdout: int) -> None:
        super().__init__(channel)
        self._stdout = stdout
        self._printed = b""

    def run(self, body: str, *args: Any, owner: str = "w:1", kind: str = "sync") -> None:
        claim = {"owner": owner, "kind": kind, "body": body, "args": list(args)}
        self.send(op="run", claim=claim)

    def begin(self, body: str, *args: Any) -> None:
        """Has a body run; returns when it has begun."""
        self.run(body, *args)
        wait_until(lambda: busy(self.pid), 10, f"{body} has begun")

    def result(self, body: str, *args: Any, kind: str = "sync") -> Any:
        """Has a body run to its end; its value."""
        self.run(body, *args, kind=kind)
        return self.next("done")["outcome"]["value"]

    def printed(self) -> str:
        """What it has printed so far, without the times that it marks its lines with."""
        try:
            while data := os.read(self._stdout, 65536):
                self._printed += data
        except BlockingIOError:
            pass
        return re.sub(rb"\x1e[0-9a-f]{16}\n", b"\n", self._printed).decode()

    def close(self) -> None:
        self.channel.close()
        os.close(self._stdout)


class HandNursery(End):
    """A nursery that a test talks to."""

    def __init__(self, birth: str = "fork", performer: str = "tests.bodies:make") -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "nbjobs.nursery", "--socket", str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=clean_environment())
        ours.setblocking(False)
        super().__init__(Channel(ours))
        self.children: list[Child] = []
        self.send(op="init", birth=birth, **Upbringing({}, performer, list(sys.path), 2).to_wire())

    def bear(self, name: str = "one") -> Child:
        """A child that is up."""
        child = self.ask_for_child(name)
        answer = self.next("pid")
        assert answer["name"] == name
        child.pid = answer["pid"]
        assert child.next() == {"op": "up"}
        return child

    def ask_for_child(self, name: str) -> Child:
        ours, theirs = pair()
        os.set_blocking(ours.fileno(), False)
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self.channel.send({"op": "fork", "name": name}, [theirs.fileno(), writing, writing])
        theirs.close()
        os.close(writing)
        self.children.append(Child(ours, reading))
        return self.children[-1]

    def close(self) -> None:
        self.channel.close()
        self.process.wait(10)
        for child in self.children:
            child.close()
