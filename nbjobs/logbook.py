"""Writes what bodies print into the log streams of their runs.

One entry of a stream is one batch of lines: ``d`` is a JSON list of ``[stream, line]``, ``x`` counts the lines that
were dropped before it, where there were any. What is printed never holds up the worker: beyond its caps it is counted
and dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

import msgspec

from .codec import clean_text
from .connection import AsyncClient, RedisError
from .keys import Keys
from .output import Line
from .settings import NbJobs

logger = logging.getLogger("nbjobs.worker")

ENTRY_LIMIT = 16_384
_ENTRIES = "200"
_WAITING = 500  # batches of all runs together
_LINE_LIMIT = 4_096


class Logbook:
    """Takes lines at any time, writes them in the background.

    Args:
        client: one without retries, since an entry must not be added twice.
        settings: `keep`.
    """

    def __init__(self, client: AsyncClient, settings: NbJobs) -> None:
        self._client = client
        self._keep = round(settings.keep * 1000)
        self._batches: deque[tuple[str, Sequence[Line]]] = deque()
        self._dropped: dict[str, int] = {}
        self._arrived = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()

    def note(self, keys: Keys, run: str, lines: Sequence[Line]) -> None:
        """Takes lines of a run."""
        key = keys.log(run)
        if len(self._batches) >= _WAITING:
            self._dropped[key] = self._dropped.get(key, 0) + len(lines)
            return
        self._batches.append((key, lines))
        self._written.clear()
        self._arrived.set()

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._batches:
                await self._write([self._batches.popleft() for _ in range(min(50, len(self._batches)))])
            self._written.set()

    async def flush(self, within: float) -> None:
        """Waits until all that was taken is written, or the time is over."""
        await asyncio.wait({asyncio.ensure_future(self._written.wait())}, timeout=within)

    async def _write(self, batches: Sequence[tuple[str, Sequence[Line]]]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for key, lines in batches:
            text, dropped = _entry(lines)
            dropped += self._dropped.pop(key, 0)
            more = ("x", dropped) if dropped else ()
            pipe.execute_command("XADD", key, "MAXLEN", "~", _ENTRIES, "*", "d", text, *more)
            pipe.pexpire(key, self._keep)  # the run may have ended, and nobody else would
        try:
            await pipe.execute()
        except (RedisError, OSError) as error:
            for key, lines in batches:
                self._dropped[key] = self._dropped.get(key, 0) + len(lines)
            logger.info("lines that bodies printed are dropped: %s", type(error).__name__)


def _entry(lines: Sequence[Line]) -> tuple[str, int]:
    """Returns the JSON of as many lines as fit, and how many do not."""
    kept: list[tuple[str, str]] = []
    size = 2
    for line in lines:
        text = clean_text(line.text[:_LINE_LIMIT])
        size += len(text.encode("utf-8", "replace")) + len(line.stream) + 8
        if size > ENTRY_LIMIT:
            break
        kept.append((line.stream, text))
    return msgspec.json.encode(kept).decode(), len(lines) - len(kept)
