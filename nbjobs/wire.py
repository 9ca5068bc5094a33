"""Messages between worker, nursery and children: JSON lines over a Unix socket.

A message is a dict with an ``op``, one line of JSON. Descriptors travel beside it (SCM_RIGHTS) and are
taken in the order in which they were sent, so a stream socket serves, which macOS has too::

    >>> ours, theirs = pair()
    >>> ours.send({"op": "stop", "reason": "cancel"})
    >>> theirs.read()
    [{'op': 'stop', 'reason': 'cancel'}]
    >>> ours.close()
    >>> theirs.read() is None
    True
    >>> theirs.close()

`Channel` blocks and belongs to nursery and child; `Link` is the worker's end, on its event loop.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

Message = dict[str, Any]

_CHUNK = 65_536
_CLOEXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_FDS = 16
_FDS_SPACE = 256  # room for one message's descriptors on every platform

_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


def encode(message: Message) -> bytes:
    """The line that stands for `message`."""
    return _encode(message) + b"\n"


class Lines:
    """Cuts what a socket delivers into messages, however it was split on the way."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes."""
        self._rest.append(data)
        if b"\n" not in data:
            return []  # a long message is put together once
        *lines, rest = b"".join(self._rest).split(b"\n")
        self._rest = [rest]
        return [_decode(line) for line in lines if line]


def _rights(fds: Sequence[int]) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []


def _fds_in(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    for fd in found:
        os.set_inheritable(fd, False)
    return found.tolist()


class Channel:
    """One end of a socket that carries messages; blocks unless the socket does not.

    Any thread may send. One thread reads.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lines = Lines()
        self._fds: deque[int] = deque()
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """The socket's descriptor, -1 once closed."""
        return self._socket.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Sends a message and the descriptors that belong to it.

        Raises:
            OSError: nobody reads any more.
        """
        data = encode(message)
        with self._sending:
            sent = self._socket.sendmsg([data], _rights(fds)) if fds else 0
            self._socket.sendall(data[sent:])

    def read(self, *, wait: bool = True) -> list[Message] | None:
        """The messages that one look at the socket gives: perhaps none, None where it was closed."""
        flags = _CLOEXEC if wait else _CLOEXEC | socket.MSG_DONTWAIT
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_CHUNK, _FDS_SPACE, flags)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        self._fds.extend(_fds_in(ancillary))
        return self._lines.feed(data) if data else None

    def take_fds(self, count: int) -> list[int]:
        """The next `count` descriptors that came with messages; the caller closes them."""
        return [self._fds.popleft() for _ in range(count)]

    def close(self) -> None:
        """Closes the socket and the descriptors that nobody took."""
        self._socket.close()
        while self._fds:
            os.close(self._fds.popleft())


def pair() -> tuple[Channel, Channel]:
    """Two connected channels."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), Channel(theirs)


class Link:
    """The worker's end of a socket: calls back with each message, never blocks its event loop.

    Args:
        sock: becomes non-blocking; the link closes it.
        on_message: called with each message, in order.
        on_end: called once, when the other side is gone or the link was closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_message: Callable[[Message], None],
        on_end: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._channel = Channel(sock)
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_end = on_end
        self._backlog: deque[tuple[bytes, Sequence[int], bool]] = deque()
        self._loop.add_reader(sock, self.read)

    @property
    def closed(self) -> bool:
        """Whether the other side is gone, or the link was closed."""
        return self._socket.fileno() < 0

    def send(self, message: Message, fds: Sequence[int] = (), *, close_fds: bool = False) -> None:
        """Sends now or as soon as there is room; into a closed link, nothing.

        `close_fds` closes our copies of the descriptors once they are on their way.
        """
        self._backlog.append((encode(message), fds, close_fds))
        if len(self._backlog) == 1:
            self._flush()

    def half_close(self) -> None:
        """Tells the other side that no more messages come; its own still arrive."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def read(self) -> bool:
        """Handles what has arrived; whether something had."""
        if self.closed:
            return False
        messages = self._channel.read()
        if messages is None:
            self.close()
            return False
        for message in messages:
            self._on_message(message)
        return bool(messages)

    def close(self) -> None:
        """Closes this end; drops what has not been sent."""
        if self.closed:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._channel.close()
        self._drop_backlog()
        self._on_end()

    def _flush(self) -> None:
        while self._backlog and not self.closed:
            data, fds, close_fds = self._backlog[0]
            try:
                sent = self._socket.sendmsg([data], _rights(fds))
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._socket, self._flush)
                return
            except OSError:
                break  # the reader sees the end of it, after what was still to be read
            if close_fds:
                _close_all(fds)
            if sent < len(data):
                self._backlog[0] = (data[sent:], (), False)
            else:
                self._backlog.popleft()
        self._drop_backlog()
        if not self.closed:
            self._loop.remove_writer(self._socket)

    def _drop_backlog(self) -> None:
        while self._backlog:
            _, fds, close_fds = self._backlog.popleft()
            if close_fds:
                _close_all(fds)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
