"""What the owner of a run asks of it: cancel, pause, go on, open again.

Where nobody holds the run, what was asked for is so at once. Where a worker does, it is a wish that the run's state
shows (*pausing*, *cancelling*): the body stops at its next checkpoint. Each call is decided by Redis in one script, so
two who ask at once, or one who asks while the run ends, never tear it apart.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from . import connection, events, stream
from .answers import REFUSED
from .calls import MAX_ENDED
from .errors import BadData, InvalidStepError, RunEnded, RunLost
from .events import Event
from .intake import whole
from .keys import arq_id, wake
from .settings import current
from .store import Reply, Store, step_fields

_HELD = ("running", "pausing", "cancelling")
_TRIES = 100


def ask(user: str, run: str, op: str) -> str:
    """Ask a run for ``cancel now pause unpause accept restart``; return the state that comes of it.

    Raises:
        RunEnded: it has ended, and ``op`` is not a cancel.
        RunLost: Redis has no such run.
        BadData: something other than nbjobs has written to its keys.
    """
    store = Store(connection.client(), user, current())
    for _ in range(_TRIES):
        n, queue = store.read(run, "n", "queue")
        if n is None:
            raise RunLost(f"Redis has no run {run} of {user}.", run=run)
        reply: Reply = store.control(run, op, whole(n) or 0, d=_event(user, run, op=op))
        if reply.code == "AGAIN":
            continue  # somebody else has asked meanwhile: look again
        _check(reply, run)
        if reply.code == "ENDED" and op not in ("cancel", "now"):
            raise RunEnded(f"Run {run} has ended ({reply.state}), so there is nothing to {op}.", run=run)
        if reply.code == "OK":
            _hint(store, user, run, reply, queue or "")
        return reply.state
    raise _unreadable(run, "others ask it for something all the time")


def reopen(user: str, run: str, from_step: str | None) -> str:
    """Open a run that failed, died or was cancelled; return the state that comes of it.

    Raises:
        RunEnded: it completed; enqueue it again instead.
        InvalidStepError: it has no step of that name.
        RunLost: Redis has no such run.
        BadData: something other than nbjobs has written to its keys.
    """
    store = Store(connection.client(), user, current())
    for _ in range(_TRIES):
        n, queue, steps, step = store.read(run, "n", "queue", "steps", "step")
        if n is None:
            raise RunLost(f"Redis has no run {run} of {user}.", run=run)
        ordinal = None if from_step is None else _ordinal(store, run, from_step, whole(steps) or 0, step or "")
        d = _event(user, run, from_step=from_step, ordinal=ordinal)
        reply: Reply = store.reopen(run, whole(n) or 0, ordinal, d=d)
        if reply.code == "AGAIN":
            continue
        _check(reply, run)
        if reply.code == "STATE" and reply.state == "completed":
            raise RunEnded(f"Run {run} has completed; to do its work again enqueue it again.", run=run)
        if reply.code == "OK":
            _hint(store, user, run, reply, queue or "")
            stream.stir(user, run)
        return reply.state
    raise _unreadable(run, "others ask it for something all the time")


def _check(reply: Reply, run: str) -> None:
    if reply.code in REFUSED:
        raise _unreadable(run, f"Redis answers {reply.code} {reply.detail}")


def _unreadable(run: str, why: str) -> BadData:
    return BadData(
        f"Run {run} cannot be asked for anything: {why}. Something other than nbjobs has written to its keys; "
        "to do its work enqueue it again."
    )


def _hint(store: Store, user: str, run: str, reply: Reply, queue: str) -> None:
    """Tell the workers at once; without it they find out within seconds."""
    if reply.state == "queued":
        store.queue(run, reply.attempt + 1, queue)
    elif reply.state in _HELD:
        connection.client().publish(wake(queue), arq_id(user, run, reply.attempt))


def _ordinal(store: Store, run: str, name: str, steps: int, current_step: str) -> int:
    if steps > MAX_ENDED:
        raise _unreadable(run, f"it says that {steps:,} of its steps have ended, {MAX_ENDED:,} are possible")
    metas = store.read(run, *step_fields(steps)[::2]) if steps else []
    names = [found for meta in metas if meta and (found := _named(meta))]
    known = [*names, current_step] if current_step else names
    if name not in known:
        raise InvalidStepError(
            f"Run {run} has no step {name!r} to begin from again; it has {', '.join(known) or 'none'}."
        )
    return known.index(name) + 1


def _named(meta: str) -> str:
    try:
        return msgspec.json.decode(meta, type=_Ended).name
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return ""


class _Ended(msgspec.Struct):
    name: str


def _event(user: str, run: str, **payload: Any) -> str:
    event = Event(
        name="",
        payload={"job_id": run, "by": user, **payload},
        tags={},
        context={"user_id": user, "job_id": run},
        timestamp=time.time_ns(),
        source_location=None,
    )
    return events.encode(event)
