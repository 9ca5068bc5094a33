"""Calls of the store's scripts, built without any I/O: sync and asyncio code share all but the sending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .answers import ClaimReply, Reply, read_answer
from .clock import Clock
from .entry import Command, arq_deserialize, arq_serialize, entry_commands
from .keys import USERS, Keys
from .scripts import SCRIPTS
from .settings import NbJobs

__all__ = [
    "CODE_KEPT",
    "CODE_LIMIT",
    "Call",
    "Calls",
    "ClaimReply",
    "Clock",
    "Command",
    "Commit",
    "Reply",
    "arq_deserialize",
    "arq_serialize",
    "entry_commands",
    "step_fields",
]

OUTCOMES = ("completed", "failed", "paused", "released", "retrying")
OPS = ("cancel", "now", "pause", "unpause", "accept", "restart")

LARGEST = 2**53 - 1  # that the scripts take for a count
MAX_ENDED = 100_000  # steps of a run
CODE_LIMIT = 1024 * 1024
CODE_KEPT = 30 * 86_400_000  # ms


@dataclass(frozen=True, slots=True)
class Commit:
    """A checkpoint: what is stored together with its events, or not at all.

    Attributes:
        c: its number; the one that Redis has, plus 1.
        n_seen: number of the last state event that `view` covers, this commit's left out.
        view: the view after this commit, stored only where nobody else has written an event since `n_seen`.
        moved: whether a cursor moved or a step ended.
        ended: steps that have ended: (JSON about it, its value as the codec's text or ``""``).
        events: (kind, name, JSON): kind ``s`` is a state event, numbered and in the user's stream too; ``p``
            progress and ``o`` the body's own are in the run's stream only.
        results: of `step.map`: (``k``, the step's name) begins the map of the run's k-th step anew,
            (``k:index``, the codec's text) adds the result of an item to it.
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
    results: Sequence[tuple[str, str]] = ()

    def arguments(self) -> list[str]:
        """Return the checkpoint as the scripts take it."""
        flat = [str(self.c), str(self.n_seen), self.view, "1" if self.moved else "0"]
        flat += [self.step, self.cursor, _text(self.done), _text(self.total), str(len(self.ended))]
        for step in self.ended:
            flat += step
        for name, text in self.results:
            flat += ("m", name, text)
        for event in self.events:
            flat += event
        return flat


class Call(NamedTuple):
    """One call of a script.

    Attributes:
        before, after: plain commands that travel with it, in one pipeline.
        queue: where the entry of the run's next attempt goes, if the answer says that it waits for a worker.
    """

    script: str
    keys: Sequence[str]
    args: Sequence[Any]
    before: tuple[Command, ...] = ()
    after: tuple[Command, ...] = ()
    queue: str = ""

    def command(self) -> Command:
        """Return the call as one Redis command."""
        return ("EVALSHA", SCRIPTS[self.script].sha, len(self.keys), *self.keys, *self.args)

    def read(self, answer: Sequence[Any]) -> Reply:
        """Return what the script answered."""
        return read_answer(self.script, answer)


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
        self._settings = settings

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
            at_ms: when it may begin, Redis time.
            delay_ms: the same from now on. Neither: at once.
            queue: write the entry of its first attempt into this queue too, where it may begin at once.
            run: its id.
        """
        when = f"+{_count(delay_ms)}" if delay_ms else "" if at_ms is None else _count(at_ms)
        before = [self.sign()]
        if fields.get("code"):
            before.append(("PEXPIRE", self.keys.code(fields["code"]), CODE_KEPT))
        now = not delay_ms and (at_ms is None or at_ms <= self.clock.now())
        after = entry_commands(self.keys, run, 1, queue, self.clock.now(), fields) if queue and now else []
        return self._call("enqueue", run, [when, d, *_flat(fields)])._replace(before=tuple(before), after=tuple(after))

    def claim(self, run: str, owner: str, attempt: int, d: str = "", *, told: Mapping[str, str] | None = None) -> Call:
        """Take a run for one attempt, which must be the next one.

        Args:
            run: its id.
            owner: who is to hold it.
            attempt: its number.
            d: JSON of ``job.started``.
            told: fields that the run must have, where nobody has read it; else the answer is OTHER.
        """
        call = self._call("claim", run, [owner, str(attempt), self._lease, d, *_flat(told or {})])
        return call._replace(before=(self.sign(),))

    def commit(self, run: str, owner: str, commit: Commit) -> Call:
        """Store a checkpoint and prolong the lease."""
        return self._call("commit", run, [owner, self._lease, *commit.arguments()])

    def renew(self, run: str, owner: str) -> Call:
        """Prolong the lease."""
        return self._call("renew", run, [owner, self._lease])

    def finish(  # noqa: PLR0913
        self,
        run: str,
        owner: str,
        outcome: str,
        *,
        wait_ms: int = 0,
        bounded: bool = False,
        failed: bool = False,
        result: str = "",
        error: str = "",
        d: str = "",
        commit: Commit | None = None,
        events: Sequence[tuple[str, str, str]] = (),
    ) -> Call:
        """End an attempt: the run has ended, or is let go, unless cancel or pause was asked meanwhile.

        Args:
            run: its id.
            owner: who holds it.
            outcome: completed, failed, paused (code or data changed), released or retrying.
            wait_ms: of ``retrying``: how long to wait.
            bounded: of ``released``: whether something else sees to it that this does not go on for ever; else such
                attempts are counted, wait longer and longer, and pause the run at last, until it makes progress.
            failed: whether the attempt counts as a failure.
            result: the codec's text, ``""`` where it is not kept.
            error: JSON of type, message, traceback.
            d: JSON of the closing event.
            commit: the last checkpoint, with its events. None from a worker that speaks for a child.
            events: of a worker, before the closing one.
        """
        if outcome not in OUTCOMES:
            raise ValueError(f"outcome is {outcome!r}, expected one of {', '.join(OUTCOMES)}")
        last = commit.arguments() if commit else ["", *Commit(0, 0, events=events).arguments()[1:]]
        wait = _count(wait_ms) if outcome != "released" else "" if bounded else self._release_waits
        head = [owner, outcome, wait, "1" if failed else "0", result, error, d]
        return self._call("finish", run, head + last)

    def lapse(self, run: str, owner: str = "", d: str = "", *, bounds: tuple[int, int] | None = None) -> Call:
        """Take a run back from an owner that is gone without a word; without owner, look whether that is so.

        Args:
            run: its id.
            owner: who is gone; from a sweeper ``""``.
            d: JSON of ``job.interrupt``.
            bounds: between which Redis time lies, see `clock.SteadyClock`; by default it is what Redis says.
        """
        waits = ",".join(map(_ms, self._settings.crash_wait))
        return self._call("lapse", run, [owner, str(self._settings.max_crashes), waits, d, *map(str, bounds or ())])

    def control(self, run: str, op: str, n_seen: int, d: str = "", *, queue: str = "") -> Call:
        """Ask a run to do something: ``cancel now pause unpause accept restart``.

        Args:
            run: its id.
            op: what is asked.
            n_seen: the run's n as the caller knows it; where somebody has asked since, the answer is AGAIN.
            d: JSON of the event.
            queue: where its next attempt goes, should it be queued by this.
        """
        if op not in OPS:
            raise ValueError(f"op is {op!r}, expected one of {', '.join(OPS)}")
        before = (self.sign(),) if op in ("unpause", "accept", "restart") else ()
        return self._call("control", run, [op, str(n_seen), d])._replace(before=before, queue=queue)

    def reopen(self, run: str, n_seen: int, from_step: int | None = None, d: str = "", *, queue: str = "") -> Call:
        """Open a run that has ended without completing.

        Args:
            run: its id.
            n_seen: see `control`.
            from_step: ordinal (1 is the first) of the first step to be done again; None keeps all.
            d: JSON of the event.
            queue: where its next attempt goes.
        """
        from_ = "" if from_step is None else str(from_step)
        return self._call("reopen", run, [str(n_seen), from_, d])._replace(before=(self.sign(),), queue=queue)

    def sign(self) -> Command:
        """Return the command by which sweepers learn of this user; it goes before what they shall find."""
        return ("ZADD", USERS, self.clock.now(), self.keys.u)

    @property
    def _release_waits(self) -> str:
        inline = self._settings.adapter == "inline"  # there waits are told, not slept
        return "0" if inline else ",".join(map(_ms, self._settings.release_wait)) or "0"

    @property
    def _lease(self) -> str:
        return _ms(self._settings.lease)

    def _call(self, script: str, run: str, args: Sequence[str]) -> Call:
        return Call(script, self.keys.script_keys(run), [run, *self._limits, *args])


def step_fields(steps: int) -> list[str]:
    """Return the fields of ended steps: for each its JSON, then its value (``""`` where it was not kept).

    >>> step_fields(2)
    ['s:1', 'v:1', 's:2', 'v:2']
    """
    return [f"{kind}:{k}" for k in range(1, steps + 1) for kind in "sv"]


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


def _ms(seconds: float) -> str:
    return _count(round(seconds * 1000))


def _count(number: int) -> str:
    return str(min(max(number, 0), LARGEST))


def _text(number: int | str | None) -> str:
    return "" if number is None else str(number)
