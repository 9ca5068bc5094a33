"""What is sent to the store's scripts and what they answer: built and read here, without any I/O.

A refusal is an answer, not an error; `Reply.code` says which:

========  =====================================================================================================
OK        done
AGAIN     this call, or a later one, was done before: nothing was changed (``enqueue``: same job and arguments)
GONE      Redis has no such run
FENCED    this owner no longer holds the run
ORDER     not the commit that comes next
HELD      another owner holds the run (``lapse`` without owner: its lease still runs)
ENDED     the run has ended
PAUSED    the run is paused
ATTEMPT   not the attempt that comes next
EARLY     its time has not come
EXISTS    a run of this id has another job or other arguments
STATE     not possible in this state, or so already
QUEUE     ``lapse`` without owner: nobody holds it, an arq entry is to be written
NONE      ``lapse`` without owner: nothing to do
TOOBIG    `Reply.detail` is larger than Redis shall hold
BADTYPE   the key `Reply.detail` holds data of another type
========  =====================================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from .keys import USERS, Keys, arq_job, arq_queue, wake
from .scripts import SCRIPTS
from .settings import NbJobs

Command = tuple[Any, ...]

OUTCOMES = ("completed", "failed", "paused", "released", "retrying")
OPS = ("cancel", "now", "pause", "unpause", "accept", "restart")

CODE_LIMIT = 1024 * 1024
CODE_KEPT = 30 * 86_400_000  # ms

_DAY = 86_400_000
_ARQ_KEPT = 10 * 365 * _DAY  # arq must never drop an entry: whether it is still wanted is the run's to say


@dataclass(frozen=True, slots=True)
class Reply:
    """A script's answer: its code, and the run as it stands after the call. Times are ms of Redis.

    Attributes:
        at: when the run may begin, 0 for now.
        control: what its holder is asked: ``pause``, ``cancel``, ``now`` or nothing.
        detail: of the codes TOOBIG and BADTYPE.
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
    """

    step: str = ""
    cursor: str = ""
    done: int | None = None
    total: int | None = None
    steps: int = 0
    resumptions: int = 0
    view_id: str = "0-0"
    last_id: str = "0-0"


@dataclass(frozen=True, slots=True)
class Commit:
    """A checkpoint: what is stored together with its events, or not at all.

    Attributes:
        c: its number; the one that Redis has, plus 1.
        n_seen: number of the last state event that `view` covers, this commit's left out.
        view: the view after this commit, stored only where nobody else has written an event since `n_seen`.
        moved: whether a cursor moved or a step ended.
        ended: steps that have ended: (JSON about it, its value as the codec's text or ``""``).
        events: (kind, name, JSON): kind ``s`` is a state event, numbered and in the user's stream too; ``p`` progress
            and ``o`` the body's own are in the run's stream only.
    """

    c: int
    n_seen: int
    view: str = ""
    moved: bool = False
    step: str = ""
    cursor: str = ""
    done: int | str | None = None
    total: int | str | None = None
    ended: Sequence[tuple[str, str]] = ()
    events: Sequence[tuple[str, str, str]] = ()

    def arguments(self) -> list[str]:
        """Return the checkpoint as the scripts take it."""
        head = [str(self.c), str(self.n_seen), self.view, "1" if self.moved else "0"]
        return head + [self.step, self.cursor, _text(self.done), _text(self.total), *self._lists()]

    def _lists(self) -> list[str]:
        flat = [str(len(self.ended))]
        for step in self.ended:
            flat += step
        for event in self.events:
            flat += event
        return flat


class Call(NamedTuple):
    """One call of a script, and plain commands that travel with it in one pipeline."""

    script: str
    keys: Sequence[str]
    args: Sequence[Any]
    before: tuple[Command, ...] = ()
    after: tuple[Command, ...] = ()

    def command(self) -> Command:
        """Return the call as one Redis command."""
        return ("EVALSHA", SCRIPTS[self.script].sha, len(self.keys), *self.keys, *self.args)

    def read(self, answer: Sequence[Any]) -> Reply:
        """Return what the script answered."""
        parts = [
            part.decode("utf-8", "surrogateescape") if isinstance(part, bytes) else part for part in answer
        ]
        code = parts[0]
        if code in ("TOOBIG", "BADTYPE"):
            return (ClaimReply if self.script == "claim" else Reply)(code, detail=parts[1])
        state, c, n, attempt, at, control, fence, crashes, now = parts[1:10]
        head = (code, state, *map(_int, (c, n, attempt, at)), control, *map(_int, (fence, crashes, now)))
        if self.script != "claim":
            return Reply(*head)
        if len(parts) == 10:
            return ClaimReply(*head)
        step, cursor, done, total, steps, resumptions, view_id, last_id = parts[10:18]
        return ClaimReply(
            *head,
            step=step,
            cursor=cursor,
            done=int(done) if done else None,
            total=int(total) if total else None,
            steps=_int(steps),
            resumptions=_int(resumptions),
            view_id=view_id or "0-0",
            last_id=last_id or "0-0",
        )


class Clock:
    """Redis time as last heard of. Until the first answer this machine's own, which is good enough for hints."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def heard(self, now: int) -> None:
        """Take note of Redis time in ms."""
        if now:
            self._ahead = now / 1000 - time.monotonic()

    def now(self) -> int:
        """Return Redis time in ms."""
        return round((time.monotonic() + self._ahead) * 1000)


class Calls:
    """Builds the calls of one user's runs.

    Args:
        user: the owner of the runs.
        settings: limits and times, which travel with each call.
        clock: Redis time, shared by those who hear of it.
    """

    def __init__(self, user: str | Keys, settings: NbJobs, clock: Clock | None = None) -> None:
        self.keys = user if isinstance(user, Keys) else Keys(user)
        self.clock = clock or Clock()
        self._limits = (str(settings.run_events), str(settings.user_events), _ms(settings.keep))
        self._lease = _ms(settings.lease)
        self._max_crashes = str(settings.max_crashes)
        self._crash_wait = ",".join(_ms(wait) for wait in settings.crash_wait)

    def enqueue(
        self,
        run: str,
        fields: Mapping[str, str],
        d: str = "",
        *,
        at_ms: int | None = None,
        delay_ms: int | None = None,
        queue: str | None = None,
    ) -> Call:
        """Store a new run, n = 1. The same run again answers AGAIN, another one of its id EXISTS.

        Args:
            fields: of the run's hash: job, args, kind, code, python, queue, adapter, user, tags, origin …
            d: JSON of ``job.enqueued`` or ``job.enqueued_at``.
            at_ms, delay_ms: when it may begin: Redis time, or from now. Neither: at once.
            queue: write the entry of its first attempt into this queue too, where it may begin at once.
        """
        when = f"+{delay_ms}" if delay_ms is not None else "" if at_ms is None else str(at_ms)
        flat = [text for pair in fields.items() for text in pair]
        before = [self.sign()]
        if fields.get("code"):
            before.append(("PEXPIRE", self.keys.code(fields["code"]), CODE_KEPT))
        now = delay_ms is None and (at_ms is None or at_ms <= self.clock.now())
        after = entry_commands(self.keys, run, 1, queue, self.clock.now()) if queue and now else []
        return self._call("enqueue", run, [when, d, *flat])._replace(before=tuple(before), after=tuple(after))

    def claim(self, run: str, owner: str, attempt: int, d: str = "") -> Call:
        """Take a run for one attempt, which must be the next one. d: JSON of ``job.started``."""
        call = self._call("claim", run, [owner, str(attempt), self._lease, d])
        return call._replace(before=(self.sign(),))

    def commit(self, run: str, owner: str, commit: Commit) -> Call:
        """Store a checkpoint and prolong the lease."""
        return self._call("commit", run, [owner, self._lease, *commit.arguments()])

    def renew(self, run: str, owner: str) -> Call:
        """Prolong the lease."""
        return self._call("renew", run, [owner, self._lease])

    def finish(
        self,
        run: str,
        owner: str,
        outcome: str,
        *,
        wait_ms: int = 0,
        failed: bool = False,
        result: str = "",
        error: str = "",
        d: str = "",
        commit: Commit | None = None,
        events: Sequence[tuple[str, str, str]] = (),
    ) -> Call:
        """End an attempt: the run has ended, or is let go. What was asked meanwhile (cancel, pause) comes first.

        Args:
            outcome: ``completed``, ``failed``, ``paused`` (code or data changed), ``released`` or ``retrying``.
            wait_ms: of ``retrying``: how long to wait.
            failed: whether the attempt counts as a failure.
            result, error: the codec's text; JSON of type, message, traceback.
            d: JSON of the closing event.
            commit: the last checkpoint, with its events. None from a worker that speaks for a child.
            events: of a worker, before the closing one.
        """
        if outcome not in OUTCOMES:
            raise ValueError(f"outcome is {outcome!r}, expected one of {', '.join(OUTCOMES)}")
        last = commit.arguments() if commit else ["", *Commit(0, 0, events=events).arguments()[1:]]
        head = [owner, outcome, str(wait_ms), "1" if failed else "0", result, error, d]
        return self._call("finish", run, head + last)

    def lapse(self, run: str, owner: str = "", d: str = "") -> Call:
        """Take a run back from an owner that is gone without a word; without owner, look whether that is so.

        Args:
            d: JSON of ``job.interrupt``.
        """
        return self._call("lapse", run, [owner, self._max_crashes, self._crash_wait, d])

    def control(self, run: str, op: str, n_seen: int, d: str = "") -> Call:
        """Ask a run to do something: ``cancel now pause unpause accept restart``.

        Args:
            n_seen: the run's n as the caller knows it; where somebody else has asked since, the answer is AGAIN.
            d: JSON of the event.
        """
        if op not in OPS:
            raise ValueError(f"op is {op!r}, expected one of {', '.join(OPS)}")
        return self._call("control", run, [op, str(n_seen), d])

    def reopen(self, run: str, n_seen: int, from_step: int | None = None, d: str = "") -> Call:
        """Open a run that has ended without completing.

        Args:
            n_seen: see `control`.
            from_step: ordinal (1 is the first) of the first step to be done again; None keeps all.
        """
        return self._call("reopen", run, [str(n_seen), "" if from_step is None else str(from_step), d])

    def sign(self) -> Command:
        """Return the command by which sweepers learn of this user; it goes before what they shall find."""
        return ("ZADD", USERS, self.clock.now(), self.keys.u)

    def _call(self, script: str, run: str, args: Sequence[str]) -> Call:
        return Call(script, self.keys.script_keys(run), [run, *self._limits, *args])


# -- the fields of a run's hash --------------------------------------------------------------------------------------


def step_fields(steps: int) -> list[str]:
    """Return the fields of ended steps: for each its JSON, then its value (``""`` where it was not kept).

    >>> step_fields(2)
    ['s:1', 'v:1', 's:2', 'v:2']
    """
    return [f"{kind}:{k}" for k in range(1, steps + 1) for kind in "sv"]


# -- arq's entry -----------------------------------------------------------------------------------------------------


def entry_commands(user: str | Keys, run: str, attempt: int, queue: str, now: int) -> list[Command]:
    """Return the commands that put one attempt into arq's queue and wake a worker.

    The score is Redis time less a day, because arq compares it with the clock of the worker.
    """
    keys = user if isinstance(user, Keys) else Keys(user)
    id = f"{{{keys.u}}}:{run}:{attempt}"
    job = arq_serialize({"t": None, "f": "attempt", "a": [run], "k": {}, "et": now})
    return [
        ("PSETEX", arq_job(id), _ARQ_KEPT, job),
        ("ZADD", arq_queue(queue), now - _DAY, id),
        ("PUBLISH", wake(queue), id),
    ]


def arq_serialize(job: Any) -> bytes:
    """Encode an arq entry as JSON. Pickle, arq's default, would run whatever a writer of Redis likes."""
    return msgspec.json.encode(job)


def arq_deserialize(data: bytes) -> Any:
    """Decode an arq entry."""
    return msgspec.json.decode(data)


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))


def _int(text: str) -> int:
    return int(text) if text else 0


def _text(number: int | str | None) -> str:
    return "" if number is None else str(number)
