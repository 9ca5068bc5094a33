"""The entry of one attempt in arq's queue, in plain Redis commands.

arq carries the wake-up only; the truth lives in the run. So entries may be lost or come twice.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .keys import Keys, arq_job, arq_queue, wake

Command = tuple[Any, ...]

_DAY = 86_400_000
_KEPT = 10 * 365 * _DAY  # arq must never drop an entry: whether it is still wanted is the run's to say


def entry_commands(user: str | Keys, run: str, attempt: int, queue: str, now: int) -> list[Command]:
    """Return the commands that put one attempt into arq's queue and wake a worker.

    The score is Redis time less a day, because arq compares it with the clock of the worker.
    """
    keys = user if isinstance(user, Keys) else Keys(user)
    id = f"{{{keys.u}}}:{run}:{attempt}"
    job = arq_serialize({"t": None, "f": "attempt", "a": [run], "k": {}, "et": now})
    return [
        ("PSETEX", arq_job(id), _KEPT, job),
        ("ZADD", arq_queue(queue), now - _DAY, id),
        ("PUBLISH", wake(queue), id),
    ]


def arq_serialize(job: Any) -> bytes:
    """Encode an arq entry as JSON. Pickle, arq's default, would run whatever a writer of Redis likes."""
    return msgspec.json.encode(job)


def arq_deserialize(data: bytes) -> Any:
    """Decode an arq entry."""
    return msgspec.json.decode(data)
