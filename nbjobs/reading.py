"""Reading a run from Redis, as it stands now.

The hash is the truth. The stored view holds only what the hash has not, so what was trimmed from the stream
costs detail, never the state.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

from .connection import AsyncClient, Client, translated
from .errors import BadData
from .intake import stream_id
from .keys import Keys
from .view import RunView, empty, fold, overlay, parse

__all__ = ["Loaded", "aload", "id_order", "load", "load_whole"]

STORED = ("view", "view_id", "last_id")
COUNTS = ("n", "attempt", "at", "crashes", "failures", "resumptions", "steps", "done", "total")
FIELDS = (*STORED, *COUNTS, "job", "queue", "state", "control", "step", "cursor", "error")
PAGE = 1000

Entry = tuple[str, Mapping[str, str]]
_Asking = Generator[tuple[Any, ...], Any, "Loaded | None"]


class Loaded(NamedTuple):
    """A run's view and the id of the last entry in it: go on reading behind that one."""

    view: RunView
    last_id: str


def load(client: Client, keys: Keys, run: str) -> Loaded | None:
    """Return the run as it stands now, or None where Redis has no such run."""
    asking = _loading(keys, run)
    ask: Any = client.execute_command
    with translated(client):
        command = next(asking)
        while True:
            answer = ask(*command)
            try:
                command = asking.send(answer)
            except StopIteration as done:
                found: Loaded | None = done.value
                return found


def load_whole(client: Client, keys: Keys, run: str, view_id: str) -> tuple[dict[str, str], RunView]:
    """Return all fields of a run that is held, and its view, in one round trip where that is enough.

    The stored view ends behind the entry ``view_id``, as ``claim`` has answered it.
    """
    with translated(client):
        pipe = client.pipeline(transaction=False)
        pipe.hgetall(keys.run(run))
        pipe.xrange(keys.events(run), f"({view_id}", "+", PAGE)
        fields, page = pipe.execute()
    view, start = _stored(run, {**dict.fromkeys(FIELDS), **fields})
    if start == view_id and len(page) < PAGE:
        for _, entry in page:
            view = fold(view, entry)
        return fields, overlay(view, fields)
    loaded = load(client, keys, run)  # rare: written by another version, or a very long tail
    return fields, loaded.view if loaded is not None else empty(run)


async def aload(client: AsyncClient, keys: Keys, run: str) -> Loaded | None:
    """As `load`, for asyncio."""
    asking = _loading(keys, run)
    ask: Any = client.execute_command
    with translated(client):
        command = next(asking)
        while True:
            answer = await ask(*command)
            try:
                command = asking.send(answer)
            except StopIteration as done:
                found: Loaded | None = done.value
                return found


def _loading(keys: Keys, run: str) -> _Asking:
    """Yields the commands to send, is sent their answers, returns the run."""
    fields = dict(zip(FIELDS, (yield ("HMGET", keys.run(run), *FIELDS)), strict=True))
    if fields["state"] is None:
        return None
    view, start = _stored(run, fields)
    last_id = max(stream_id(fields["last_id"]), start, key=id_order)
    laid = False
    while True:
        page: list[Entry] = yield ("XRANGE", keys.events(run), f"({start}", "+", "COUNT", PAGE)
        for start, entry in page:
            if not laid and id_order(start) > id_order(last_id):
                view, laid = overlay(view, fields), True
            view = fold(view, entry)
        if len(page) < PAGE:
            break
    return Loaded(view if laid else overlay(view, fields), max(start, last_id, key=id_order))


def _stored(run: str, fields: Mapping[str, str | None]) -> tuple[RunView, str]:
    """The stored view and the id behind which to go on; an empty one and the stream's begin without it."""
    if fields["view"]:
        try:
            return parse(fields["view"]), stream_id(fields["view_id"])
        except BadData:
            pass  # written by another version, say: fields and events tell the state all the same
    return empty(run, fields["job"] or ""), "0-0"


def id_order(id: str) -> tuple[int, int]:
    """What the ids of entries are ordered by.

    >>> id_order("9-1") < id_order("10-0")
    True
    """
    ms, _, sequence = id.partition("-")
    return int(ms or 0), int(sequence or 0)
