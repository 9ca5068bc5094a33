"""The last lines of the output of runs whose cards are open: one thread reads for all of them.

It lives only while a card is open whose run may still write.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from .. import connection
from ..details import Output
from ..errors import NbjobsError
from ..history import Tail
from ..keys import Keys
from ..plain import clean_text

__all__ = ["Following", "follow"]

logger = logging.getLogger("nbjobs.widgets")

EVERY, SELDOM = 0.3, 1.2  # s between two looks; more where nothing comes
LAST_WORDS = 2.0  # s of looks after a run's end, as its worker writes what the body printed at last
LINES, WIDTH, ALL = 200, 500, 32_768  # how many are shown, characters of one, characters of all

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


class Following:
    """The output of one run while its card is open.

    Args:
        user: whose run it is.
        run: its id.
        changed: called, in another thread, when there is more.
        ended: whether the run has ended.

    Attributes:
        output: what is shown of it.
    """

    def __init__(self, user: str, run: str, changed: Callable[[], object], ended: Callable[[], bool]) -> None:
        self._tail = Tail(Keys(user), run, LINES)
        self._changed = changed
        self._ended = ended
        self._until = 0.0
        self._complete = self._closed = False
        self.output = Output(0, ())

    def begin(self) -> None:
        """Be read from now on, or again where the run goes on behind its end."""
        self._complete, self._until = False, 0.0

    def close(self) -> None:
        """Be read no longer, for good."""
        self._closed = True

    @property
    def over(self) -> bool:
        """Whether nobody wants more, or no more will come."""
        return self._closed or self._complete

    def look(self, client: Any) -> bool:
        """Read what has come; return whether anything has."""
        now = time.monotonic()
        self._until = (self._until or now + LAST_WORDS) if self._ended() else 0.0
        last = bool(self._until) and now > self._until
        came = self._tail.read(client)
        if came:
            self.output = _output(self._tail)
            self._changed()
        self._complete = last
        return came


def _output(tail: Tail) -> Output:
    shown: list[tuple[str, str]] = []
    room = ALL
    for line in reversed(tail.lines):
        text = _clean(line.text)
        room -= len(text) + 1
        if room < 0:
            break
        shown.append((line.stream, text))
    return Output(max(0, tail.seen - len(shown)), tuple(reversed(shown)))


def _clean(text: str) -> str:
    """One line without what a terminal would obey."""
    line = clean_text(_ESCAPES.sub("", text[: 4 * WIDTH])).expandtabs().replace("\n", " ")
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


class _Reader:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: list[Following] = []
        self._fresh = False
        self._thread: threading.Thread | None = None
        self._client: Any = None

    def add(self, one: Following) -> None:
        with self._changed:
            one.begin()
            if one not in self._open:
                self._open.append(one)
            self._fresh = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nbjobs-tails", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        pause = EVERY
        while self._wanted():
            came = [self._look(one) for one in tuple(self._open)]
            pause = EVERY if any(came) else min(SELDOM, 1.5 * pause)
            with self._changed:
                self._changed.wait_for(lambda: self._fresh, pause)
                self._fresh = False

    def _look(self, one: Following) -> bool:
        try:
            if self._client is None:  # once: who only looks must not start a Redis that was ended
                url = connection.resolve_url()
                self._client = connection.sync_client(url, name=connection.client_name(), retry=False)
            return one.look(self._client)
        except (connection.RedisError, OSError, NbjobsError):
            return False  # the card says that Redis is away; it is tried again
        except Exception:  # a thread that is not the user's must neither end nor print
            logger.warning("The output of a run could not be read", exc_info=True)
            return False

    def _wanted(self) -> bool:
        with self._changed:
            self._open = [one for one in self._open if not one.over]
            if self._open:
                return True
            self._thread = None
            client, self._client = self._client, None
        if client is not None:
            client.close()
        return False


_reader = _Reader()


def follow(one: Following) -> None:
    """Read its output from now on, or again where its run goes on behind its end; nothing once it is closed."""
    _reader.add(one)


def _forget() -> None:
    """Thread and connection of the parent are none of a forked child's."""
    global _reader
    _reader = _Reader()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
