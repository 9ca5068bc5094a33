"""What Redis was asked and what it did, in its own order: the witness that nobody can talk round.

MONITOR shows each call of a script with its arguments, and behind it what the script wrote. So a call that wrote
nothing was refused, or was one that had been done before.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from nbjobs.keys import Keys
from nbjobs.scripts import SCRIPTS

from ..support import wait_until

_LINE = re.compile(rb'\+[\d.]+ \[\d+ (\S+)\] (".*")$')
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_FIELDS = ("state", "c", "n", "fence", "owner", "attempt", "crashes", "lease_until", "step", "cursor", "done")
_FIELDS += ("steps", "view", "view_id", "last_id")
_WRITING = (b"HSET", b"XADD", b"HSETNX", b"HINCRBY", b"HDEL", b"DEL", b"XTRIM", b"SET")
_PLAIN = (b"missing_since",)  # the one field that is not written by a script
_KEYS_AND_LIMITS = 4  # arguments before a script's own: id and three limits
REMEMBERED = "(remembered)"
_C = {"commit": 2, "finish": 7}  # place of the commit number among a script's own arguments


@dataclass
class Asked:
    """One call of a script.

    Attributes:
        args: the script's own arguments.
        wrote: fields of the run's hash that it wrote, as far as the checker looks at them.
        life: which life of the server saw it.
    """

    script: str
    run: str
    args: list[str]
    life: int
    wrote: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """Who asked; of scripts that name an owner first."""
        return self.args[0]

    @property
    def c(self) -> str:
        """The number of its commit; empty where it has none."""
        return self.args[_C[self.script]] if self.script in _C else ""


class Recorder:
    """Listens to one server from now on, over its restarts too."""

    def __init__(self, path: Path, user: str) -> None:
        self.calls: list[Asked] = []
        self.strangers: list[str] = []  # commands about runs that change them past the scripts
        self.life = 0
        self._path = path
        self._prefix = Keys(user).run("")
        self._names = {script.sha: name for name, script in SCRIPTS.items()}
        self._echoed: set[str] = set()
        self._follows = False
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._count = 0
        self.listen()

    def listen(self, remembered: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Begin to listen, again after a restart.

        Args:
            remembered: hashes of runs, with which this life of the server begins; they are noted as if they had been
                written by a call `REMEMBERED`.
        """
        self.life += 1
        for run, fields in (remembered or {}).items():
            kept = {name: fields[name] for name in _FIELDS if name in fields}
            self.calls.append(Asked(REMEMBERED, run, [""], self.life, kept))
        self._thread = threading.Thread(target=self._run, args=(self._connect(),), name="recorder", daemon=True)
        self._thread.start()

    def know(self, names: Mapping[str, str]) -> None:
        """Know the scripts of another version too.

        Args:
            names: of the scripts, by their SHA-1.
        """
        self._names |= names

    def follow(self) -> None:
        """From now on listen to each life of the server, as soon as it begins: for those that others start."""
        self._follows = True

    def _connect(self) -> socket.SocketIO:
        link = self._socket = socket.socket(socket.AF_UNIX)  # at once: `close` ends a wait for the answer
        try:
            link.connect(str(self._path))
            link.sendall(b"MONITOR\r\n")
            stream = link.makefile("rb")
            if (line := stream.readline()) != b"+OK\r\n":
                stream.close()
                raise ConnectionError(f"Redis answers {line!r} to MONITOR")
        except OSError:
            link.close()
            raise
        return stream

    def _listen_to(self, stream: socket.SocketIO) -> None:
        link = self._socket
        self._read(stream, self.life)
        if link is not None:
            link.close()

    def _run(self, stream: socket.SocketIO) -> None:
        self._listen_to(stream)
        while self._follows:
            try:
                stream = self._connect()
            except OSError:
                time.sleep(0.002)
                continue
            self.life += 1
            self._listen_to(stream)

    def catch_up(self, client: redis.Redis) -> None:
        """Return when all that was asked before is here."""
        self._count += 1
        token = f"recorder-{self.life}-{self._count}"
        client.echo(token)
        wait_until(lambda: token in self._echoed, 10, "the recorder has caught up")

    def of(self, run: str, script: str = "") -> list[Asked]:
        """Return the calls about a run, of one script where that is named."""
        return [call for call in list(self.calls) if call.run == run and call.script == (script or call.script)]

    def refused(self, run: str) -> list[Asked]:
        """Return the commits and finishes that wrote nothing since another, or nobody, held the run."""
        holder, found = "", []
        for call in self.of(run):
            if call.script in ("commit", "finish") and not call.wrote and call.owner != holder:
                found.append(call)
            holder = call.wrote.get("owner", holder)
        return found

    def close(self) -> None:
        """Listen no longer."""
        self._follows = False
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        if self._thread is not None:
            self._thread.join(5)

    def _read(self, stream: socket.SocketIO, life: int) -> None:
        last: Asked | None = None
        with suppress(OSError), stream:
            for line in stream:
                found = _LINE.match(line.rstrip(b"\r\n"))
                if found is None:
                    continue
                words = _WORD.findall(found[2])
                if found[1] == b"lua":
                    if last is not None and words[0].upper() == b"HSET":
                        self._wrote(last, words)
                elif words[0].upper() == b"EVALSHA":
                    last = self._asked(words, life)
                elif words[0].upper() == b"ECHO":
                    self._echoed.add(words[1].decode())
                elif self._is_strange(words):
                    self.strangers.append(" ".join(_text(word) for word in words[:3]))

    def _is_strange(self, words: list[bytes]) -> bool:
        if words[0].upper() not in _WRITING or not _text(words[1]).startswith(self._prefix):
            return False
        return not _text(words[1]).endswith(":log") and not any(field in words for field in _PLAIN)

    def _asked(self, words: list[bytes], life: int) -> Asked | None:
        args = [_text(word) for word in words[3 + int(words[2]) :]]
        script = self._names.get(words[1].decode())
        if script is None or not _text(words[3]).startswith(self._prefix):
            return None
        call = Asked(script, args[0], args[_KEYS_AND_LIMITS:], life)
        self.calls.append(call)
        return call

    def _wrote(self, call: Asked, words: list[bytes]) -> None:
        for name, value in zip(words[2::2], words[3::2], strict=True):
            if (text := name.decode()) in _FIELDS:
                call.wrote[text] = _text(value)


def _text(word: bytes) -> str:
    return word.decode("unicode_escape") if b"\\" in word else word.decode("latin-1")
