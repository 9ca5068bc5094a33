"""The worker's end of the nursery: starts it, talks to it, sees it end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from .child import Upbringing
from .settings import NAMES
from .wire import Link, Message

_END_SECONDS = 5.0


def clean_environment() -> dict[str, str]:
    """The environment for bodies: settings, which may hold passwords, do not travel this way."""
    settings = {f"NBJOBS_{name.upper()}" for name in NAMES}
    return {name: value for name, value in os.environ.items() if name not in settings}


class NurseryHandle:
    """A running nursery.

    Args:
        upbringing: what its children get along.
        birth: ``fork`` or ``spawn``.
        on_message: called with each of its messages.
        on_end: called when it is gone, unless it was closed.
    """

    def __init__(
        self,
        upbringing: Upbringing,
        *,
        birth: str,
        on_message: Callable[[Message], None],
        on_end: Callable[[], None],
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = _start(theirs.fileno())
        self._on_end = on_end
        self._closing = False
        self._link = Link(ours, on_message=on_message, on_end=self._ended)
        self.send({"op": "init", "birth": birth, **upbringing.to_wire()})

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Asks for something; the descriptors change hands."""
        self._link.send(message, fds, close_fds=True)

    async def close(self) -> None:
        """Ends it, which ends all children, and waits until they are dead."""
        self._closing = True
        self._link.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _END_SECONDS)
        self._make_sure()

    def _ended(self) -> None:
        if not self._closing:
            self._make_sure()
            self._on_end()

    def _make_sure(self) -> None:
        # Ours to reap, so the id is still its own.
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def _start(fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "nbjobs.nursery", "--socket", str(fd)],
        stdin=subprocess.DEVNULL,
        pass_fds=[fd],
        env=clean_environment(),
        start_new_session=True,  # a terminal's Ctrl-C is the worker's to hear
    )
