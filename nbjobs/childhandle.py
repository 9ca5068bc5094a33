"""The worker's end of one child: its socket, its pipes, the runs it has.

A child is dead when the nursery says so, which is also when its last words have been read. The end of the
socket alone is no proof (a body may close it) and may never come (a program of the body may hold it).
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections import deque
from dataclasses import replace
from typing import Protocol

import msgspec

from . import birth
from .lines import Line
from .output import READ_LIMIT, Pipe
from .running import LAST_LINES, Claim, End, OnOutput, PoolError, Running
from .wire import Link, Message

_EOF_PATIENCE = 0.1  # between the end of a socket and the nursery's word that the process is dead
_PACE = 0.005  # between two reads of a pipe that is full: a terminal takes no more in that time
_STACK_PATIENCE = 0.1  # for a process to print its stack


class Owner(Protocol):
    """Whom a child's handle tells what happens: the pool."""

    def request(self, message: Message) -> None:
        """Passes a request on to the nursery."""

    def on_idle(self, child: ChildHandle, dirty: list[str]) -> None:
        """A run of the child has ended."""

    def on_over(self, child: ChildHandle) -> None:
        """A body is over; its end is still to be written."""

    def on_lend(self, child: ChildHandle, running: Running, lending: bool) -> None:
        """A body waits for another run, or no longer does."""

    def on_gone(self, child: ChildHandle) -> None:
        """The child is dead."""


class ChildHandle:
    """One child, from the request for it to its death.

    Args:
        name: unique in the pool.
        owner: is told what happens.
        on_output: gets what is printed.
    """

    def __init__(self, name: str, owner: Owner, on_output: OnOutput) -> None:
        self.name = name
        self.pid = 0
        self.up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.runs: dict[str, Running] = {}
        self.served = 0
        self.kind = "sync"
        self.user = ""  # whose bodies it has run; empty: nobody's
        self.alone = False
        self.retiring = False
        self.dead = asyncio.Event()
        self.heard = time.monotonic()
        self.reason = ""
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._owner = owner
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._pipes = [Pipe(stream, self._printed) for stream in ("stdout", "stderr")]
        self._link = Link(ours, on_message=self._handle, on_end=self._on_eof)
        for pipe in self._pipes:
            self._loop.add_reader(pipe.fd, self._on_printed, pipe)

    @property
    def gone(self) -> bool:
        """Whether it is dead."""
        return self.dead.is_set()

    @property
    def usable(self) -> bool:
        """Whether it can be given a run."""
        return not (self.gone or self.retiring or self._link.closed)

    @property
    def shared(self) -> bool:
        """Whether its runs are not alone in it, as a rule."""
        return self.kind == "async" and not self.alone

    def give_fds(self) -> list[int]:
        """The child's descriptors, once: who takes them closes them."""
        return [self._theirs.detach(), *(pipe.child_end for pipe in self._pipes)]

    def begin(self, claim: Claim) -> Running:
        """Gives it a run."""
        running = Running(claim, self._on_output)
        if not self.runs:
            self.last_lines.clear()  # what was printed before is not for this run's owner
        self.runs[claim.owner] = running
        self.served += 1
        self.kind = claim.kind
        self.user = claim.user
        self.heard = time.monotonic()
        self._link.send({"op": "run", "claim": msgspec.to_builtins(claim)})
        return running

    def send(self, message: Message) -> None:
        """Sends a message to the child."""
        self._link.send(message)

    def kill(self, reason: str) -> None:
        """Has the nursery kill the child and its programs; the ends of its runs say why."""
        self.retiring = True
        self.reason = self.reason or reason
        if self.pid:
            self._owner.request({"op": "kill", "pid": self.pid})

    def retire(self) -> None:
        """Lets it end as a Python program ends; then the nursery kills what is left."""
        self.retiring = True
        self._link.half_close()

    def exited(
        self, code: int | None, number: int | None, *, busy: bool = False, peak: int | None = None, out_of: int = 0
    ) -> None:
        """It is dead, perhaps in a body: reads what it still had to say, then ends its runs."""
        if self.gone:
            return
        while self._link.read():
            pass
        self._drain()
        self.dead.set()
        for pipe in self._pipes:
            pipe.finish_line()
            self._loop.remove_reader(pipe.fd)
            pipe.close()
        self._link.close()
        self._fail(self._stillborn(code, number))
        for running in self._take_runs():
            running.started = running.started or busy
            running.end(replace(self._death(running, code, number), peak=peak, out_of=0 if self.reason else out_of))
        self._owner.on_gone(self)

    def failed(self, why: str) -> None:
        """It was never born."""
        self._fail(f"no new process for bodies: {why}")
        self.exited(None, None)

    def _fail(self, why: str) -> None:
        if not self.up.done():
            self.up.set_exception(PoolError(why))
            self.up.exception()  # whoever waited for it may have given up

    def _stillborn(self, code: int | None, number: int | None) -> str:
        if self.reason == "nursery":
            return "the nursery ended before a new child was up; its own error is in the worker's stderr"
        how = f"by signal {number}" if number else f"with exit code {code}" if code is not None else "unseen"
        last = f": {self.last_lines[-1]}" if self.last_lines else ""
        return f"a process for bodies ended {how} before it was up{last}"

    def _death(self, running: Running, code: int | None, number: int | None) -> End:
        return End(
            died=True,
            code=code,
            signal=number,
            started=running.started,
            shared=self.shared,
            reason=self.reason,
            overdue=running.overdue,
            last_lines=list(running.last_lines or self.last_lines),
        )

    def _take_runs(self) -> list[Running]:
        runs, self.runs = list(self.runs.values()), {}
        return runs

    def _handle(self, message: Message) -> None:
        self.heard = time.monotonic()
        op = message["op"]
        if op == "up":
            if not self.up.done():
                self.up.set_result(None)
            return
        running = self.runs.get(message.get("owner", ""))
        if running is None:
            return  # a beat
        if op == "started":
            running.started = True
        elif op == "print":
            running.printed([Line(message["stream"], *told) for told in message["lines"]])
        elif op == "limit":
            running.limit(message["timeout"], message["within"], self._end_late)
        elif op == "over":
            running.unlimit()
            self._owner.on_over(self)
        elif op in ("lend", "unlend"):
            self._owner.on_lend(self, running, op == "lend")
        elif op in ("done", "refused"):
            self._end(running, message)

    def _end_late(self, running: Running) -> None:
        """A body has overrun its time: its process prints where it is, then it is ended."""
        self._owner.request({"op": "signal", "pid": self.pid, "number": int(signal.SIGUSR1)})
        self._loop.call_later(_STACK_PATIENCE, self._kill_late, running)

    def _kill_late(self, running: Running) -> None:
        if running.overdue and not running.ended.done():
            self.kill("killed")

    def _end(self, running: Running, message: Message) -> None:
        self._drain()
        if len(self.runs) == 1:
            for pipe in self._pipes:
                pipe.finish_line()
        del self.runs[running.claim.owner]
        if message["op"] == "refused":
            self.retiring = True
            self._owner.on_idle(self, [message["why"]])
            running.end(None)
            return
        self._owner.on_idle(self, message["dirty"])
        running.end(
            End(
                died=False,
                outcome=message["outcome"],
                error=message["error"],
                started=True,
                shared=self.shared,
                cpu=message["cpu"],
                peak=message["peak"],
                last_lines=list(running.last_lines),
            )
        )

    def _printed(self, lines: list[Line]) -> None:
        if len(self.runs) == 1:
            next(iter(self.runs.values())).printed(lines)
            return
        self.last_lines.extend(line.text for line in lines)
        if self.runs:
            self._on_output(None, lines)

    def _on_printed(self, pipe: Pipe) -> None:
        full = pipe.read() >= READ_LIMIT
        if pipe.ended or full or pipe.waiting:
            self._loop.remove_reader(pipe.fd)
        if not pipe.ended and (full or pipe.waiting):
            self._loop.call_later(_PACE, self._go_on, pipe)

    def _go_on(self, pipe: Pipe) -> None:
        if not pipe.ended:
            pipe.go_on()
            self._loop.add_reader(pipe.fd, self._on_printed, pipe)

    def _drain(self) -> None:
        for pipe in self._pipes:
            pipe.drain()

    def _on_eof(self) -> None:
        if not self.gone:
            self._loop.call_later(_EOF_PATIENCE, self._kill_if_alive)

    def _kill_if_alive(self) -> None:
        # It cannot hear us any more. A retiring one is given the time that its owner gives it.
        if not self.gone and not self.retiring and self.pid:
            self.kill("" if birth.is_ending(self.pid) else "unheard")
