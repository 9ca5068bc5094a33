"""The run that an attempt holds, as the worker hands it to the child."""

from __future__ import annotations

import msgspec


class Overrun(msgspec.Struct, frozen=True):
    """A body that did not stop at its timeout: its process was ended.

    Attributes:
        timeout: of the job, in seconds.
        seconds: that it took.
        advanced: whether it had made progress.
    """

    timeout: float
    seconds: float
    advanced: bool


class Claim(msgspec.Struct, frozen=True):
    """A run that is held: what ``claim`` answered, and who holds it.

    Attributes:
        now: Redis time of the claim, in ms.
        origin: what to add to this machine's steady clock to have Redis time, in ns; 0 where nobody knows yet.
        kind: ``sync`` or ``async``.
        view_id: behind which entry of the run's stream the stored view ends.
        fields: of a run that begins for the first time, what its child needs of the hash; else empty.
        overrun: where the body did not stop in time, and only its end is to be written.
    """

    user: str
    run: str
    owner: str
    attempt: int
    fence: int
    c: int
    n: int
    now: int
    origin: int = 0
    crashes: int = 0
    failures: int = 0
    resumptions: int = 0
    kind: str = "sync"
    queue: str = ""
    view_id: str = "0-0"
    fields: dict[str, str] = {}
    overrun: Overrun | None = None
