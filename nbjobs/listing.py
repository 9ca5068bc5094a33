"""Finding runs: one by its id, or those of a user, the one that changed last first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from . import connection
from .connection import translated
from .errors import RunNotFound
from .intake import text, whole
from .keys import Keys
from .run import Run
from .runview import STATES, shown_state
from .settings import current

__all__ = ["Row", "attach", "rows", "runs"]

_FIELDS = ("job", "state", "at", "attempt", "resumptions", "step", "done", "total", "queue", "enqueued_at")
_MOST = 10_000  # runs that are looked through


@dataclass(frozen=True)
class Row:
    """A run in a list.

    Attributes:
        state: as it is shown: a run whose time has come is queued.
        changed: when its state changed last, in ms since 1970.
        enqueued: likewise; 0 where nobody knows.
    """

    id: str
    job: str
    state: str
    attempt: int
    resumptions: int
    step: str
    done: int | None
    total: int | None
    queue: str
    changed: int
    enqueued: int


def attach(id: str, *, user: str | None = None) -> Run:
    """Return the run of this id, from any kernel or process.

    Raises:
        RunNotFound: this user has no such run.
    """
    run = Run(id, user=user)
    if run.state == "lost":
        raise RunNotFound(
            f"{run.user} has no run {id!r}. nbjobs.runs() lists those that are kept; another user's need user=.", run=id
        )
    return run


def runs(
    *,
    state: str | Sequence[str] | None = None,
    since: datetime | timedelta | float | None = None,
    job: Any = None,
    limit: int = 100,
    user: str | None = None,
) -> list[Run]:
    """Return the runs that are kept, the one that changed last first.

    Args:
        state: only those in this state, or one of these, as a card shows it.
        since: only those that have changed since then: a time, or how long ago, as timedelta or in seconds.
        job: only those of this job: the job itself, its name or its full name.
        limit: how many at most.
        user: whose; by default yours.

    Raises:
        ValueError: there is no such state.
    """
    owner = user or current().user
    found = rows(state=state, since=since, job=job, limit=limit, user=owner)
    return [Run(row.id, user=owner) for row in found]


def rows(
    *,
    state: str | Sequence[str] | None = None,
    since: datetime | timedelta | float | None = None,
    job: Any = None,
    limit: int = 100,
    user: str | None = None,
) -> list[Row]:
    """As `runs`, with what a list shows of each; in two round trips."""
    states = _states(state)
    keys = Keys(user or current().user)
    client: Any = connection.client()
    selective = states is not None or job is not None
    with translated(client):
        ids = client.zrange(
            keys.runs, "+inf", _moment(since), byscore=True, desc=True, withscores=True,
            offset=0, num=_MOST if selective else limit,
        )  # fmt: skip
        pipe = client.pipeline(transaction=False)
        pipe.time()
        for id, _ in ids:
            pipe.hmget(keys.run(id), _FIELDS)
        (seconds, micros), *fields = pipe.execute()
    found: Iterator[Row] = (
        _row(id, round(changed), values, seconds * 1000 + micros // 1000)
        for (id, changed), values in zip(ids, fields, strict=True)
        if values[1] is not None  # its time is over, and the list is swept once an hour
    )
    name = getattr(job, "name", job)
    wanted = [row for row in found if (states is None or row.state in states) and _is_of(row, name)]
    return wanted[:limit]


def _row(id: str, changed: int, values: Sequence[str | None], now: int) -> Row:
    job, state, at, attempt, resumptions, step, done, total, queue, enqueued = values
    return Row(
        id=id,
        job=text(job),
        state=shown_state(text(state), whole(at) or 0, now),
        attempt=whole(attempt) or 0,
        resumptions=whole(resumptions) or 0,
        step=text(step),
        done=whole(done),
        total=whole(total),
        queue=text(queue),
        changed=changed,
        enqueued=whole(enqueued) or 0,
    )


def _is_of(row: Row, job: str | None) -> bool:
    return job is None or row.job == job or row.job.rpartition(".")[2] == job


def _states(state: str | Sequence[str] | None) -> frozenset[str] | None:
    if state is None:
        return None
    states = frozenset((state,) if isinstance(state, str) else state)
    known = STATES - {"lost"}  # a run that is lost is in no list
    for unknown in states - known:
        raise ValueError(f"{unknown!r} is no state, expected one of {', '.join(sorted(known))}")
    return states


def _moment(since: datetime | timedelta | float | None) -> str | int:
    """Return the score to begin with, in ms by Redis' clock as far as this machine's agrees with it."""
    if since is None:
        return "-inf"
    if isinstance(since, datetime):
        return round(since.timestamp() * 1000)
    ago = since.total_seconds() if isinstance(since, timedelta) else since
    return round((time.time() - ago) * 1000)
