"""What the store's scripts answer.

A refusal is an answer, not an error; `Reply.code` says which:

========  =============================================================================================
OK        done
AGAIN     this call, or a later one, was done before: nothing was changed (enqueue: same job, same args)
GONE      Redis has no such run
FENCED    this owner no longer holds the run
ORDER     not the commit that comes next
HELD      another owner holds the run (lapse without owner: its lease still runs)
ENDED     the run has ended
PAUSED    the run is paused
ATTEMPT   not the attempt that comes next
EARLY     its time has not come
OTHER     the run is another than its wake-up told
EXISTS    a run of this id has another job or other arguments
STATE     not possible in this state, or so already
QUEUE     lapse without owner: nobody holds it, an arq entry is to be written
NONE      lapse without owner: nothing to do
TOOBIG    `Reply.detail` is larger than Redis shall hold
BADTYPE   the key `Reply.detail` holds data of another type
BADDATA   `Reply.detail` is no count, or none that fits the run
========  =============================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .intake import whole
from .runview import STATES

REFUSED = frozenset({"TOOBIG", "BADTYPE", "BADDATA"})
"""Codes of a call that cannot be done however often it is sent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A script's answer: its code, and the run as it stands after the call. Times are ms of Redis.

    Attributes:
        at: when the run may begin, 0 for now.
        control: what its holder is asked: ``pause``, ``cancel``, ``now`` or nothing.
        detail: of the codes TOOBIG, BADTYPE and BADDATA.
    """

    code: str
    state: str = ""
    c: int = 0
    n: int = 0
    attempt: int = 0
    at: int = 0
    control: str = ""
    fence: int = 0
    crashes: int = 0
    now: int = 0
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether the call is done, now or by an earlier one whose answer was lost."""
        return self.code in ("OK", "AGAIN")


@dataclass(frozen=True, slots=True)
class ClaimReply(Reply):
    """The answer of ``claim``: where to go on.

    Attributes:
        steps: how many steps have ended; their data is in the fields `step_fields`.
        resumptions: attempts that began with progress, this one included.
        view_id, last_id: ids in the run's stream, see `nbjobs.stream`.
        args: the codec's text.
    """

    step: str = ""
    cursor: str = ""
    done: int | None = None
    total: int | None = None
    steps: int = 0
    resumptions: int = 0
    view_id: str = "0-0"
    last_id: str = "0-0"
    args: str = ""


_FIELDS = (
    *("code", "state", "c", "n", "attempt", "at", "control", "fence", "crashes", "now"),
    *("step", "cursor", "done", "total", "steps", "resumptions", "view_id", "last_id", "args"),  # of a claim
)
_TEXTS = frozenset({"code", "state", "control", "step", "cursor", "view_id", "last_id", "args"})


_WORDS = {"control": frozenset({"", "pause", "cancel", "now"}), "state": STATES}


def read_answer(script: str, answer: Sequence[Any]) -> Reply:
    """Return a script's answer, sent by Redis as text or bytes, as a record."""
    parts = [one.decode("utf-8", "surrogateescape") if isinstance(one, bytes) else one for one in answer]
    kind = ClaimReply if script == "claim" else Reply
    if parts[0] in REFUSED:
        return kind(parts[0], detail=parts[1])
    found: dict[str, Any] = dict(zip(_FIELDS, parts, strict=False))
    for name in found.keys() - _TEXTS:
        found[name] = _number(name, found[name])
    for name, words in _WORDS.items():
        if found.get(name, "") not in words:
            found[name] = ""  # a stranger's bytes, which ask for nothing and cannot be passed on
    return kind(**found)


def _number(name: str, text: str) -> int | None:
    found = whole(text)  # a stranger may have put anything there, which the scripts take for 0 too
    return found if found is not None or name in ("done", "total") else 0
