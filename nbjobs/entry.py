"""The entry of one attempt in arq's queue, in plain Redis commands, and the wake-up that goes with it.

arq carries the wake-up only; the truth lives in the run. So entries may be lost or come twice.

A wake-up names the attempt. That of a new run also tells what a worker needs to claim it, which spares the worker a
look; it is believed only as far as ``claim`` finds the run to be so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from .keys import Keys, arq_job, arq_queue, parse_arq_id, wake

Command = tuple[Any, ...]

_DAY = 86_400_000
TOLD = ("job", "kind", "code", "queue", "user", "tags", "enqueued_at")
"""What a wake-up tells of a new run: fields that do not change."""

_KEPT = 10 * 365 * _DAY  # arq must never drop an entry: whether it is still wanted is the run's to say
_LONGEST = 4_096  # characters of a wake-up, which each worker of the queue gets

_told = msgspec.json.Decoder(list[str]).decode


def entry_commands(
    user: str | Keys, run: str, attempt: int, queue: str, now: int, new: Mapping[str, str] | None = None
) -> list[Command]:
    """Return the commands that put one attempt into arq's queue and wake a worker.

    The score is Redis time less a day, because arq compares it with the clock of the worker.

    Args:
        user: whose run it is.
        run: its id.
        attempt: its number.
        queue: arq's.
        now: Redis time in ms.
        new: the fields of a run that is being written; the wake-up tells those that are `TOLD`.
    """
    keys = user if isinstance(user, Keys) else Keys(user)
    id = f"{{{keys.u}}}:{run}:{attempt}"
    job = arq_serialize({"t": None, "f": "attempt", "a": [run], "k": {}, "et": now})
    return [
        ("PSETEX", arq_job(id), _KEPT, job),
        ("ZADD", arq_queue(queue), now - _DAY, id),
        ("PUBLISH", wake(queue), _wake_up(id, new or {})),
    ]


def _wake_up(id: str, fields: Mapping[str, str]) -> str:
    if any(name not in fields for name in TOLD):
        return id
    message = f"{id} {json.dumps([fields[name] for name in TOLD])}"
    return message if len(message) <= _LONGEST else id


def read_wake_up(message: str) -> tuple[str, dict[str, str]]:
    """Return the id of the attempt, empty for what is none, and the fields `TOLD` of its run where they are told."""
    id, _, told = message.partition(" ")
    try:
        parse_arq_id(id)
        return id, dict(zip(TOLD, _told(told), strict=True)) if told else {}
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return "", {}


def arq_serialize(job: Any) -> bytes:
    """Encode an arq entry as JSON. Pickle, arq's default, would run whatever a writer of Redis likes."""
    return msgspec.json.encode(job, enc_hook=repr)  # arq packs the errors of its own functions too


def arq_deserialize(data: bytes) -> Any:
    """Decode an arq entry."""
    return msgspec.json.decode(data)
