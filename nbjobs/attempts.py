"""One attempt from the worker's side: claimed, performed in a child, given back.

The worker claims a run only while it has a free place for its kind of body, and it calls `lapse` after
every end of a child but one: a run that has ended needs no next attempt. Where the child has written how the
attempt ended otherwise, that call changes nothing and answers the run as it stands. The next attempt is queued
from that answer.

No way back into the queue is free, else a body could be begun without end. What each costs:

=======================================  =====================================================
the attempt                              costs
=======================================  =====================================================
got further                              nothing: that is what it is for
raised an error                          a failure, and the wait that its job declares
died with its process, fell silent       a crash, and ``crash_wait``
was stopped by a deploy (``stopping``,   ``release_wait``, which grows with each one until the
``closed``), by itself (`interrupt`)     run gets further; it is paused after ten of them
died with a process that is not its own  the same; a shared process is its own the next time,
(``shared``, ``stalled``), or none       and the third death of a nursery is a crash of its
could be started (``no child``)          own, see `suspects`
was refused a write (``fenced``)         the same, where the run is still held
found no code (``not_found``, also one    5 s, and a pause after ten minutes
that is not accepted, or another Python)
ran a step of its own (``isolating``)    nothing: a step before it has ended
was stopped to pause or to cancel        its owner asked for that; nothing goes on
waited for another run                   nothing: it keeps its process and lends its place
=======================================  =====================================================
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from msgspec import structs

from . import words
from .asked import Asked, Holding
from .backoff import Backoff
from .calls import ClaimReply, Command, Reply
from .claim import Claim, Overrun
from .connection import FAILURES, ResponseError
from .entry import TOLD
from .intake import stream_id, whole
from .keys import Keys, enc, parse_arq_id
from .leases import SCHEMA, Held, Leases, arq_id_of, forget_entry, new_owner
from .pool import End, Pool
from .suspects import Suspects
from .view import ENDED

logger = logging.getLogger("nbjobs.worker")

T = TypeVar("T")

FIELDS = [*TOLD, "state", "owner", "attempt", "v", "failures", "steps", "cursor", "resumptions"]

_NEW = {**dict.fromkeys(FIELDS), "state": "queued", "attempt": "0"}
_BODY_LIMIT = 8_192
_ENDED_BY_US = {
    "stalled": "the event loop of its process was blocked and the process was ended",
    "unheard": "its body closed the descriptor by which its process speaks with the worker, and the process was ended",
}
_WAITING = ("queued", "scheduled", "retrying")
_LAST_MOMENT = 3.0
_LONGEST_PAUSE = 2.0
_SIGN_EVERY_MS = 60_000
_REMEMBERED = 1_000
_MOST_NEWER, _NEWER_FOR = 100_000, 60.0  # entries, seconds


@dataclass(frozen=True)
class Candidate:
    """A run that waits for a worker.

    Attributes:
        id: of its entry in arq's queue.
        held: the run; its attempt is the one to be claimed.
        kind: ``sync`` or ``async``.
        place: its ended steps and its cursor.
        new: the fields `TOLD` where this is the first attempt; the child of a later one reads the whole run.
        told: whether they are not read, but what the wake-up says.
    """

    id: str
    held: Held
    kind: str
    failures: int
    resumptions: int
    enqueued_at: int
    place: tuple[str, str]
    new: dict[str, str]
    told: bool


class Attempts:
    """Claims runs, has the pool perform them, and gives them back.

    Args:
        leases: of the run store.
        pool: performs bodies.
        worker: its id.
        queue: from which it takes.
        on_free: called with the kind of a place that has become free.
        grace: seconds that a body has to stop after a cancel.
    """

    def __init__(
        self,
        leases: Leases,
        pool: Pool,
        *,
        worker: str,
        queue: str,
        on_free: Callable[[str], None],
        grace: float,
    ) -> None:
        self._on_free = on_free
        self.worker = worker
        self.queue = queue
        self.held: dict[str, Holding] = {}
        self.news = asyncio.Event()
        self._waking: set[str] = set()
        self.draining = False
        self._leases = leases
        self._pool = pool
        self._grace = grace
        self._asked = Asked(pool, grace)
        self._suspects = Suspects()
        self._claiming = {"sync": 0, "async": 0}
        self._signed: dict[str, int] = {}
        self._newer: set[str] = set()
        self._newer_until = 0.0
        self._not_found: set[tuple[str, str]] = set()

    def free(self, kind: str) -> int:
        """Returns how many more runs of a kind may be claimed."""
        return 0 if self.draining else max(0, self._pool.free(kind) - self._claiming[kind])

    async def look(self, ids: Sequence[str]) -> list[Candidate]:
        """Returns which of these entries stand for a run that waits; entries of all others are removed."""
        candidates = []
        ids = [id for id in ids if not self._is_newer(id)]
        for id, fields in zip(ids, await self._read(ids), strict=True):
            if (whole(fields["v"]) or 0) > SCHEMA:
                self._newer.add(id)
                continue  # written by a newer nbjobs: left to a newer worker
            candidate = _candidate(id, fields) or await self._forget(id)
            if candidate is not None:
                candidates.append(candidate)
        return candidates

    def told(self, id: str, fields: Mapping[str, str]) -> Candidate | None:
        """Returns the run of which a wake-up says all that a claim needs; None where it does not: look at it."""
        return _candidate(id, {**_NEW, **fields}, told=True) if fields else None

    async def _read(self, ids: Sequence[str], before: Sequence[Command] = ()) -> list[dict[str, str | None]]:
        """Returns the runs of some entries, as they are after the commands `before`."""
        runs = [(_keys_of(u), run) for u, run, _ in map(parse_arq_id, ids)]
        return await self._leases.read_fields(runs, FIELDS, before)

    def _is_newer(self, id: str) -> bool:
        """Whether an entry was left to a newer worker within the last minute."""
        now = time.monotonic()
        if now > self._newer_until or len(self._newer) > _MOST_NEWER:
            self._newer, self._newer_until = set(), now + _NEWER_FOR
        return id in self._newer

    def perform(self, candidate: Candidate) -> Coroutine[Any, Any, None]:
        """Claims the run and performs the attempt; returns when the run is given back.

        The place is taken at once, not when the coroutine begins: whoever looks next sees one less.
        """
        self._claiming[candidate.kind] += 1
        self._suspects.begin(_suspect(candidate.held))
        return self._perform(candidate)

    def puts_off(self, candidate: Candidate) -> bool:
        """Returns whether a run must not be claimed now, though there is a place for it: see `suspects`."""
        return self._suspects.puts_off(_suspect(candidate.held))

    async def _perform(self, candidate: Candidate) -> None:
        try:
            await self._attempt(candidate)
        finally:
            self._waking.discard(candidate.id)
            self._suspects.end(_suspect(candidate.held))

    async def _attempt(self, candidate: Candidate) -> None:
        held = replace(candidate.held, owner=new_owner(self.worker))
        try:
            reply = await self._claim(candidate, held)
        finally:
            self._claiming[candidate.kind] -= 1
        if reply is None or not reply.ok:
            self._on_free(candidate.kind)
            return
        holding = Holding(held, _claim_of(candidate, held, reply))
        if self.draining:
            holding.release = "stopping"
            await self._give_back(holding, End(died=True))
            return
        self.held[held.owner] = holding
        if candidate.id in self._waking:
            self.news.set()  # what was asked came before we knew that the run is ours
        try:
            end = await self._pool.run(holding.claim)
            if end.overdue:
                end = await self._end_overdue(candidate, holding.claim, end)
        finally:
            del self.held[held.owner]
        self._on_free(candidate.kind)
        await self._give_back(holding, end)

    async def _end_overdue(self, candidate: Candidate, claim: Claim, end: End) -> End:
        """Has another child write how the attempt ended whose body did not stop: what follows, its job declares."""
        logger.warning(
            "run %s: its body did not stop within its timeout of %g s, and was ended", claim.run, end.overdue
        )
        store = self._leases.store(candidate.held.keys)
        found = await self._insist(lambda: store.read(claim.run, "c", "n", "view_id", "steps", "cursor"))
        if found is None:
            return end
        now = self._leases.clock.now()
        c, n, view_id, steps, cursor = (text or "" for text in found)
        again = structs.replace(
            claim,
            c=int(c or 0),
            n=int(n or 0),
            view_id=stream_id(view_id),
            fields={},
            now=now,
            overrun=Overrun(end.overdue, (now - claim.now) / 1000, (steps or "0", cursor) != candidate.place),
        )
        return await self._pool.run(again)

    def wake(self, id: str) -> None:
        """Takes note that something is asked of an attempt which is performed here; `news` is set where it is held."""
        self._waking.add(id)
        self.news.set()

    def woken(self) -> list[Held]:
        """Returns the attempts of which something is asked, and forgets that."""
        self.news.clear()
        found = [one.held for one in self.held.values() if _entry_of(one.held) in self._waking]
        self._waking -= {_entry_of(held) for held in found}
        return found

    def heed(self, owner: str, reply: Reply) -> None:
        """Does what the answer to a renewal asks for: stop, or end, the body."""
        holding = self.held.get(owner)
        if holding is not None:
            self._asked.heed(holding, reply)

    async def drain(self, grace: float, hurry: asyncio.Event) -> None:
        """Asks all bodies to stop, waits `grace` seconds at most, then ends them and releases their runs.

        Args:
            grace: how long an item may take to end.
            hurry: becomes set where nobody wants to wait that long.
        """
        self.draining = True
        until = asyncio.get_running_loop().time() + grace
        told: set[str] = set()
        while self.held and not hurry.is_set() and asyncio.get_running_loop().time() < until:
            told |= {owner for owner in self.held if owner not in told and self._pool.stop(owner, "stopping")}
            await asyncio.sleep(0.01)
        for owner, holding in list(self.held.items()):
            await self._warn(holding, grace)
            holding.release = "stopping"
            self._pool.kill(owner)

    async def _claim(self, candidate: Candidate, held: Held) -> ClaimReply | None:
        d = self._leases.describe(
            held,
            queue=held.queue,
            worker=self.worker,
            resumptions=candidate.resumptions,
            grace=round(1000 * self._grace),
            enqueued_at=candidate.enqueued_at or None,
        )
        store = self._leases.store(held.keys)
        told = {"v": str(SCHEMA), **candidate.new} if candidate.told else {}
        call = store.calls.claim(held.run, held.owner, held.attempt, d, told=told)
        before = call.before if self._is_to_sign(held.keys) else ()
        call = call._replace(before=before, after=(*call.after, *forget_entry(self.queue, candidate.id)))
        try:
            reply = await self._insist(lambda: store.send(call))
        except ResponseError as error:  # over what it found under the run's keys: the sweeper leaves it alone
            logger.warning("run %s of %s cannot be claimed: %s", held.run, held.keys.u, error)
            return None
        assert reply is None or isinstance(reply, ClaimReply)
        if candidate.told and reply is not None and reply.code in ("GONE", "OTHER"):  # its entry is to be looked at
            await self._insist(lambda: store.queue(held.run, held.attempt, self.queue))
        return reply

    async def _give_back(self, holding: Holding, end: End) -> None:
        held, outcome = holding.held, end.outcome or {}
        code = outcome.get("code", "")
        if code == "fenced":
            logger.warning("run %s: a write of its body was refused, and the body has ended", held.run)
        if code == "not_found":
            self._tell_not_found(held, outcome.get("description", ""))
        if not end.died and outcome.get("state") in ENDED:
            self._suspects.clear(_suspect(held))
            return  # where that is not so, because Redis fell back since, the sweeper finds it by the lease
        fate = holding.ended if end.died and holding.ended else _fate(end)
        blameless = end.died and (
            not end.started or end.shared or end.reason in ("closed", "no child") or holding.release
        )
        if end.reason == "nursery" and not holding.release:  # whether the body had begun, nobody can tell any more
            self._suspects.add(_suspect(held))
            blameless = not self._suspects.blames(_suspect(held))
        if blameless or code == "fenced":  # a fenced one is still ours where only Redis fell back under the child
            reason = holding.release or (_reason(end) if end.died else "fenced")
            await self._insist(lambda: self._leases.release(held, reason, fate))
        reply = await self._insist(
            lambda: self._leases.lapse(
                held,
                "child_died",
                fate,
                signal=signal.Signals(end.signal).name if end.signal else None,
                code=end.code or None,
                memory=_shortage(end) or None,
                last_lines=end.last_lines if end.died else None,
                queue=code != "not_found",  # that one is put back for some seconds: the sweeper finds it
            )
        )
        if reply is not None and reply.code == "OK":
            logger.warning("run %s: %s; it is %s now", held.run, fate, reply.state)

    def _tell_not_found(self, held: Held, why: str) -> None:
        """Say why a job cannot be had here, once for each user: its runs try again every few seconds."""
        if (held.keys.u, why) not in self._not_found:
            if len(self._not_found) > _REMEMBERED:
                self._not_found.clear()
            self._not_found.add((held.keys.u, why))
            logger.warning("run %s of %s: %s", held.run, held.user, why)

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Calls until Redis answers; None where it does not and this worker ends. An error of the call is raised."""
        backoff, loop = Backoff(logger, longest=_LONGEST_PAUSE, insists=True), asyncio.get_running_loop()
        last: float | None = None
        while True:
            with backoff:
                return await call()
            if self.draining and last is None:
                last = loop.time() + _LAST_MOMENT
            if last is not None and loop.time() > last:
                logger.warning("a run is left to the sweeper: %s", backoff.error)
                return None
            await asyncio.sleep(backoff.pause)

    def _is_to_sign(self, keys: Keys) -> bool:
        """Whether sweepers must be told of this user; once a minute is enough, they forget after a day."""
        now = self._leases.clock.now()
        if now - self._signed.get(keys.u, 0) < _SIGN_EVERY_MS:
            return False
        if len(self._signed) > _REMEMBERED:
            self._signed.clear()
        self._signed[keys.u] = now
        return True

    async def _forget(self, id: str) -> Candidate | None:
        """Removes an entry, then looks once more: a run that was queued in between has lost its entry by this."""
        (fields,) = await self._read([id], forget_entry(self.queue, id))
        return _candidate(id, fields)

    async def _warn(self, holding: Holding, grace: float) -> None:
        """Says which item did not end in time, and for how long it has been under way."""
        seconds = 0.0
        try:
            (last,) = await self._leases.store(holding.held.keys).read(holding.held.run, "last_id")
            seconds = (self._leases.clock.now() - int((last or "").partition("-")[0])) / 1000
        except (*FAILURES, ValueError):
            logger.debug("the length of the item is unknown", exc_info=True)
        logger.warning(
            "run %s: the item under way has taken %.1f s and did not end within the grace of %g s. "
            "It is ended and will be done again; no crash is counted",
            holding.held.run,
            seconds,
            grace,
        )


_keys_of = functools.lru_cache(maxsize=1000)(Keys.of)


def _candidate(id: str, fields: Mapping[str, str | None], *, told: bool = False) -> Candidate | None:
    """Returns the run that waits for this attempt; None where it does not.

    What a stranger has spoilt in its fields is for the child to judge, which reads them whole.
    """
    u, run, attempt = parse_arq_id(id)
    keys = _keys_of(u)
    if fields["state"] not in _WAITING or (whole(fields["attempt"]) or 0) != attempt - 1 or not _is_of(keys, fields):
        return None
    begun = bool(whole(fields["steps"])) or bool(fields["cursor"])
    return Candidate(
        id,
        replace(Held.of(keys, run, fields), owner="", attempt=attempt),
        kind="async" if fields["kind"] == "async" else "sync",
        failures=whole(fields["failures"]) or 0,
        resumptions=(whole(fields["resumptions"]) or 0) + begun,
        enqueued_at=whole(fields["enqueued_at"]) or 0,
        place=(fields["steps"] or "0", fields["cursor"] or ""),
        new={name: fields[name] or "" for name in TOLD} if attempt == 1 else {},
        told=told,
    )


def _body(candidate: Candidate, reply: ClaimReply) -> dict[str, str]:
    """Returns what the child of a first attempt needs of the run."""
    body = {**candidate.new, "args": reply.args} if candidate.new else {}
    small = len(reply.args) <= _BODY_LIMIT
    try:
        return body if small and all(text.isascii() or text.encode() for text in body.values() if text) else {}
    except UnicodeEncodeError:  # no text: the child sees what it is
        return {}


def _suspect(held: Held) -> str:
    return held.keys.run(held.run)


def _entry_of(held: Held) -> str:
    return arq_id_of(held.keys, held.run, held.attempt)


def _is_of(keys: Keys, fields: Mapping[str, str | None]) -> bool:
    """Whether the run says that it belongs to the user under whose keys it was found."""
    user = fields["user"] or ""
    return bool(user) and (user == keys.user or enc(user) == keys.u)


def _claim_of(candidate: Candidate, held: Held, reply: ClaimReply) -> Claim:
    return Claim(
        user=held.user,
        run=held.run,
        owner=held.owner,
        attempt=reply.attempt,
        fence=reply.fence,
        c=reply.c,
        n=reply.n,
        now=reply.now,
        origin=reply.now * 1_000_000 - time.monotonic_ns(),
        crashes=reply.crashes,
        failures=candidate.failures,
        resumptions=reply.resumptions,
        kind=candidate.kind,
        queue=held.queue,
        view_id=stream_id(reply.view_id),
        fields=_body(candidate, reply),
    )


def _reason(end: End) -> str:
    """Returns why an attempt without fault ended; a shared process that is killed is so for another run's sake."""
    return "child_died" if end.reason in ("", "killed", "unheard") else end.reason


def _shortage(end: End) -> str:
    """Returns how short memory was where that has probably ended the process."""
    return f"probably out of memory: peak {words.size(end.peak or 0)} of {words.size(end.out_of)}" if end.out_of else ""


def _fate(end: End) -> str:
    """Returns how a child ended, as a sentence for the card."""
    if end.error:
        return end.error
    if end.shared and end.reason == "killed":
        return "its process was ended with another run's body, which did not stop"
    if end.reason == "no child":
        return f"no process could be started for it: {' '.join(end.last_lines)}"
    if end.reason in _ENDED_BY_US:
        return _ENDED_BY_US[end.reason]
    if end.signal:
        told = f"its process was ended by signal {signal.Signals(end.signal).name}"
        return f"{told}, {_shortage(end)}" if end.out_of else told
    return f"its process ended with code {end.code}" if end.code is not None else "its process is gone"
