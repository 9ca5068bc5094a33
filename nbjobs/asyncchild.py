"""The child that async bodies share: one event loop, many attempts.

A `beat` each second tells the worker that the loop turns. What bodies print can be told apart as far as it
goes through Python's streams; what C code writes belongs to nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import sys
import threading
import time
from typing import Any

from . import birth
from .beside import beside
from .desk import Claim, Desk, current_owner, done, tell_error, to_wire
from .lines import Line, LineCutter, timed
from .ticker import ticker
from .upkeep import Upkeep
from .vitals import Meter, Usage

BEAT_SECONDS = 1.0


class SplitStream(io.TextIOBase):
    """A stdout or stderr that sends whole lines under the name of the attempt that wrote them."""

    def __init__(self, stream: str, desk: Desk, plain: io.TextIOBase) -> None:
        self._stream = stream
        self._desk = desk
        self._plain = plain
        self._cutters: dict[str, LineCutter] = {}
        self._lock = threading.Lock()  # a body's threads print under its name too

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream behind."""
        return "utf-8"

    def fileno(self) -> int:
        """The descriptor behind, for programs that a body starts."""
        return self._plain.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Sends what is complete; keeps an open line until it is."""
        owner = current_owner.get()
        if not owner or self._desk.left:
            return self._plain.write(text)
        with self._lock:
            cutter = self._cutters.setdefault(owner, LineCutter(self._stream))
            self._send(owner, cutter.feed(text.encode("utf-8", "backslashreplace")))
        return len(text)

    def flush(self) -> None:
        """Of the stream behind: an open line waits for its end."""
        self._plain.flush()

    def go_on(self) -> None:
        """Sends lines that were too many at once, as far as that may be now."""
        with self._lock:
            for owner, cutter in self._cutters.items():
                self._send(owner, cutter.cut())

    def has_printed(self, owner: str) -> bool:
        """Whether an attempt that has not ended has written anything."""
        return owner in self._cutters

    def finish_line(self, owner: str) -> None:
        """Sends the open line of an attempt that has ended."""
        with self._lock:
            cutter = self._cutters.pop(owner, None)
            if cutter is not None:
                self._send(owner, cutter.flush())

    def _send(self, owner: str, lines: list[Line]) -> None:
        if lines:
            told = [(line.text, line.ns, line.missed) for line in timed(lines)]
            self._desk.report({"op": "print", "owner": owner, "stream": self._stream, "lines": told})


class AsyncChild:
    """Runs async bodies side by side until the worker closes the socket."""

    def __init__(self, desk: Desk, upkeep: Upkeep) -> None:
        self._desk = desk
        self._upkeep = upkeep
        self._inbox: asyncio.Queue[Claim | None] = asyncio.Queue()
        self._running: set[asyncio.Task[object]] = set()
        self._begun: dict[str, asyncio.Task[object]] = {}
        self._own: set[asyncio.Task[object]] = set()
        self._began_ns = 0
        self._alone = True

    async def serve(self, first: Claim) -> None:
        """Begins with `first`."""
        loop = asyncio.get_running_loop()
        self._inbox.put_nowait(first)

        def put(claim: Claim | None) -> None:
            loop.call_soon_threadsafe(self._inbox.put_nowait, claim)

        def cancel(owner: str) -> None:
            loop.call_soon_threadsafe(self._cancel, owner)

        self._desk.send_runs_to_loop(put, cancel)
        beat = asyncio.create_task(self._beat(), name="nbjobs-beat")
        self._own = {beat, asyncio.current_task()}  # type: ignore[arg-type]
        while (claim := await self._inbox.get()) is not None:
            self._start(claim)
        beat.cancel()

    def _start(self, claim: Claim) -> None:
        if not self._running:
            self._began_ns = time.time_ns()
            self._alone = True
        outdated = self._upkeep.outdated()
        if outdated:
            self._desk.refuse(claim, outdated)
            return
        self._alone = self._alone and not self._running
        task = asyncio.create_task(self._run(claim), name=f"nbjobs-{claim['owner']}")
        self._running.add(task)

    def _cancel(self, owner: str) -> None:
        """Cancels a body. One that has not begun has been told to stop, and hears of that at its first checkpoint."""
        if owner in self._begun:
            self._desk.expect_cancel(owner)
            self._begun[owner].cancel()

    async def _run(self, claim: Claim) -> None:
        current_owner.set(claim["owner"])
        began_ns, meter = time.time_ns(), Meter()

        def usage() -> Usage | None:
            # What several bodies used together cannot be told apart.
            return meter.read() if self._alone else None

        outcome: Any = None
        error = ""
        try:
            attempt = await beside(functools.partial(self._desk.begin, claim, usage))  # it asks Redis
            self._begun[claim["owner"]] = asyncio.current_task()  # type: ignore[assignment]
            with ticker.ticking(self._upkeep.lookout(began_ns, attempt.outdated)):
                outcome = to_wire(await attempt.aperform())
        except BaseException as caught:
            error = tell_error(caught)
        self._begun.pop(claim["owner"], None)
        self._desk.end(claim)
        used = usage()
        self._running.discard(asyncio.current_task())
        self._finish_lines(claim["owner"])
        dirty = [] if self._running else self._left_behind()
        self._desk.report(done(claim, outcome, error=error, usage=used, dirty=dirty))

    def _finish_lines(self, owner: str) -> None:
        for stream in _split():
            stream.finish_line(owner)
        birth.flush_output()

    def _left_behind(self) -> list[str]:
        this = asyncio.current_task()
        own = self._own | {this} if this is not None else self._own
        streams = sys.stdout, sys.stderr
        dirty = _tasks_left(own) + self._upkeep.after(self._began_ns)
        sys.stdout, sys.stderr = streams
        return dirty

    async def _beat(self) -> None:
        while True:
            self._desk.report({"op": "beat"})
            for stream in _split():
                stream.go_on()
            await asyncio.sleep(BEAT_SECONDS)


def serve(first: Claim, desk: Desk, upkeep: Upkeep) -> None:
    """Turns this child into one for async bodies, until its worker closes the socket."""
    plain = sys.stdout, sys.stderr
    sys.stdout = SplitStream("stdout", desk, plain[0])  # type: ignore[arg-type]
    sys.stderr = SplitStream("stderr", desk, plain[1])  # type: ignore[arg-type]
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            asyncio.run(AsyncChild(desk, upkeep).serve(first))
    finally:
        sys.stdout, sys.stderr = plain


def has_printed(owner: str) -> bool:
    """Return whether an attempt that has not ended has written anything."""
    return any(stream.has_printed(owner) for stream in _split())


def _split() -> list[SplitStream]:
    return [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, SplitStream)]


def _tasks_left(own: set[asyncio.Task[object]]) -> list[str]:
    return [f"task {task.get_name()}" for task in asyncio.all_tasks() - own if not task.done()]
