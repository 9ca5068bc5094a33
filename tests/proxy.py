"""A proxy between a client and Redis that can lose answers, delay them, or cut the connection."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Proxy:
    """Listens on a unix-domain Redis' behalf on a port of localhost; each connection has two threads.

    Attributes:
        lose: how many answers to lose: Redis did the call, the client sees its connection cut.
        delay: seconds that each answer waits.
        refuse: whether new connections are cut at once.
    """

    def __init__(self, target: str) -> None:
        self.lose = 0
        self.delay = 0.0
        self.refuse = False
        self.lost = 0
        self._target = target
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut all connections there are."""
        for one in list(self._open):
            self._end(one)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.refuse:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                self._open |= {client, server}
                threading.Thread(target=self._copy, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._copy, args=(server, client, True), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and self.delay:
                    time.sleep(self.delay)
                if answers and self.lose and not data.startswith((b"+OK", b"-ERR")):  # handshake
                    self.lose -= 1
                    self.lost += 1
                    break
                target.sendall(data)
        self._end(source)
        self._end(target)

    def _end(self, one: socket.socket) -> None:
        self._open.discard(one)
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
