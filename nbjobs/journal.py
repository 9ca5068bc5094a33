"""What one attempt writes into Redis: its checkpoints, with their events.

A journal carries a :class:`~nbjobs.continuation.Continuation`. It gathers what happens, and writes it in *commits*:
cursor, ended steps, events and view of a commit are stored together or not at all, once, in order, and only while the
attempt holds the run. A commit whose reply was lost is sent again byte for byte; the store knows it by its number.

Who commits when: a step's beginning and end at once. Between them the loop itself, after the first item that ends when
the ticker's thread has raised its flag: at once where nothing waits to be committed, so that slow items are durable one
by one, else some 25 times a second. Where the thread is late, the loop goes by the clock. The thread commits only what
a loop does not get to, such as events that were notified inside a long item. The interval grows with the time that a
commit takes: a loaded Redis is asked less often.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from . import events, shown, view
from .allowance import Allowance
from .answers import REFUSED
from .backoff import Backoff
from .intake import whole
from .steps import pack_cursor
from .store import Commit, Reply
from .ticker import TICK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .claim import Claim
    from .continuation import Continuation
    from .events import Event
    from .progress import Ended
    from .steps import Step
    from .store import Store
    from .view import RunView

T = TypeVar("T")
_Beside = tuple["tuple[str, int, int | None] | None", str]  # how far a loop in the step is; the newer file

_PROGRESS_EVERY = 0.1  # seconds: ten progress events a second
_OWN_EVENTS = 50  # a second of the body's own events; beyond that only the latest of each name
_NAME = 1000  # bytes of the name of such an event; the store takes 1,024
_BATCH = 200  # events in a commit; the store takes 256
_SHORT = 1.0  # seconds of a run that need no view, ...
_FEW = 50  # ... if it has had no more state events
_RESULTS = 500  # of `step.map` in a commit; the store takes 1,000
_RESULT_BYTES = 1024 * 1024  # of them, more or less
_OFF = 250_000_000  # ns that a stamp may be off Redis' time, as after the machine was suspended
_SHARE = 0.05  # of a loop's time, which its commits may take
_HOLD = 1.0  # seconds after which an unanswered commit holds the loop
_log = logging.getLogger("nbjobs.journal")

stopping: ContextVar[Callable[[str, Continuation], str | None] | None] = ContextVar("nbjobs_stopping", default=None)
"""Asked at each checkpoint, with the job's name and where it stands, why to stop there: for tests, see `testing`."""


class Ending(NamedTuple):
    """How an attempt ends, for ``finish``."""

    outcome: str  # completed failed paused released retrying
    payload: dict[str, Any]
    wait: float = 0.0  # seconds
    bounded: bool = False  # of one that is released: see `Calls.finish`
    failed: bool = False
    result: str = ""
    error: str = ""
    events: tuple[tuple[str, dict[str, Any]], ...] = ()  # before the closing one


def insist(call: Callable[[], T]) -> T:
    """Call until Redis answers, however long that takes. The call must be safe to repeat.

    What Redis holds against the call itself is raised.
    """
    backoff = Backoff(_log, level=logging.INFO, insists=True)
    while True:
        with backoff:
            return call()
        time.sleep(backoff.pause)


class Journal:
    """The pen of one attempt.

    Args:
        claim: the run and who holds it.
        job: the job's full name, for the payload of its events.
        tags: the run's tags.
        store: where it writes.
        loaded: the run's view as it stands at the claim; None where it is to be read when it is needed.
        load: reads it.
        interval: seconds between two commits of fast items.

    Attributes:
        newer: the file of the body's code that has changed on disk since it was loaded; told with the progress.
    """

    continuation: Continuation

    def __init__(
        self,
        claim: Claim,
        store: Store,
        loaded: RunView | None,
        load: Callable[[], RunView],
        *,
        job: str = "",
        tags: Mapping[str, Any] | None = None,
        interval: float = 0.03,
    ) -> None:
        self._claim = claim
        self.job = job
        self.run = claim.run
        self.attempt = claim.attempt
        self.began = claim.now * 1_000_000
        self.user = claim.user
        self.tags = dict(tags or {})
        self._context = {"user_id": claim.user, "job_id": claim.run}
        self._store = store
        self._load = load
        self.view = loaded
        self._started = time.monotonic()
        self._shortest = interval
        self._trip = 0.0  # seconds that a commit of the loop takes
        self._origin = claim.origin or claim.now * 1_000_000 - time.monotonic_ns()
        self._c = claim.c
        self._n = claim.n
        self._state = "running"
        self._crashes = claim.crashes
        self._pending: list[tuple[str, str, str]] = []
        self._late: dict[str, Event] = {}
        self._allowance = Allowance(rate=_OWN_EVENTS, burst=_OWN_EVENTS)
        self._dropped = 0
        self._beside: _Beside = (None, "")  # what was last told beside the step's own progress
        self._written: tuple[str, Any, int] = ("", None, 0)  # step, value, done of the last commit
        self._place = ("", "")  # its cursor and count, as stored
        self._at = 0.0  # monotonic time of the last commit
        self._progress_at = 0.0
        self._sent_at: float | None = None
        self._trips: deque[float] = deque([0.0] * 9, maxlen=9)
        self._writing = threading.RLock()
        self._pid = os.getpid()  # a process that the body forks has a copy of this, and the run is not its to write
        self._error: BaseException | None = None
        self._deadline: float | None = None
        self._on_late: Callable[[], None] | None = None
        self.reason: str | None = None
        self.newer = ""

    # -- what the continuation asks ------------------------------------------------------------------------------

    def checkpoint(self) -> str | None:
        """Commit what has happened; answer why the attempt is to stop, or None."""
        began = time.monotonic()
        self._look_for_end(began)
        if self.commit():
            self._trips.append(time.monotonic() - began)
            # A loaded Redis makes every trip slow; a busy laptop makes some so, and they must not stretch the cadence.
            self._trip = sorted(self._trips)[2]
        if self._error is not None:
            raise self._error
        if self.reason == "timeout" and self._on_late is not None:
            self._on_late()
            self._on_late = None
        asked = stopping.get()
        if asked is not None and self.reason is None:
            return asked(self.job, self.continuation)
        return self.reason

    def is_time(self, now: float) -> bool:
        """Answer whether the thread is late, and the loop commits without it."""
        return self.is_due(now - TICK, _SHARE)

    def is_due(self, now: float, share: float) -> bool:
        """Answer whether to commit where commits may take that share of the time; not while one is under way."""
        return self._sent_at is None and now - self._at >= max(self._shortest, self._trip / share)

    def kept(self, ordinal: int) -> Mapping[str, str]:
        """Return what is stored of a step's map."""
        return insist(lambda: self._store.read_map(self._claim.run, ordinal))

    def happened(self, name: str, payload: dict[str, Any]) -> None:
        """Take note of an event of the framework."""
        if self._dropped:
            payload = {**payload, "dropped": self._dropped}
        event = self._event(name, payload)
        with self.continuation.lock:
            self._pending.append(("s", name, events.encode(event)))
        events.reporter.emit(event)

    # -- what others tell it -------------------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Take an event of the body along; beyond 50 a second only the latest of each name."""
        name = event.name if event.name.isprintable() else shown.cut(event.name, _NAME) or "?"
        event = replace(event, name=name, timestamp=self.now_ns())
        with self.continuation.lock:
            if self._allowance.take():
                self._pending.append(("o", event.name, events.encode(event)))
                return
            self._dropped += event.name in self._late
            self._late[event.name] = event

    def stop(self, reason: str) -> None:
        """End the attempt at its next checkpoint. May be called from any thread."""
        self.reason = reason
        running = self.continuation.running
        if running is not None:
            running.flag = True

    def go_on(self) -> None:
        """Take back a pause that the attempt has not heeded yet."""
        if self.reason == "pause":
            self.reason = None

    def limit(self, timeout: float, on_late: Callable[[], None] | None = None) -> None:
        """End the attempt at its first checkpoint after ``timeout`` seconds from now; ``on_late`` is called there."""
        self._deadline = time.monotonic() + timeout
        self._on_late = on_late

    def tick(self, now: float) -> None:
        """Look whether to commit, or to ask the loop to. Called by the ticker's thread."""
        self._look_for_end(now)
        step = self.continuation.running
        sent = self._sent_at
        if sent is not None:
            if now - sent > _HOLD and step is not None:
                step.flag = True
            return
        moved = step is not None and not self._is_written(step.name, step.value, step.done)
        moved = moved or (now - self._progress_at >= _PROGRESS_EVERY and self._aside(step) != self._beside)
        due = self.is_due(now, _SHARE)
        if step is not None and not step.flag and (due or not moved):
            step.flag = True  # the loop commits best: a thread beside it waits for the interpreter again and again
        elif due and (moved or self._pending or self._late):
            try:
                self.commit()
            except Exception as error:  # raised in the body instead, at its next checkpoint
                self._error = error
                self.stop("error")

    def _look_for_end(self, now: float) -> None:
        if self._deadline is not None and now > self._deadline and self.reason is None:
            self.stop("timeout")

    # -- writing -------------------------------------------------------------------------------------------------

    def commit(self) -> bool:
        """Write what has happened since the last commit; False where nothing has.

        Returns when Redis has answered, however long that takes: an unreachable Redis costs time, never repeats.
        """
        if os.getpid() != self._pid:
            return False
        with self._writing:
            commit = self._gather()
            written = commit is not None
            while commit is not None:
                reply = self._write(commit)
                self._heed(reply)
                commit = self._gather() if reply.ok and self.continuation.results else None
            return written

    def _write(self, commit: Commit) -> Reply:
        try:
            reply = self._send(lambda: self._store.commit(self._claim.run, self._claim.owner, commit))
        except UnicodeError:
            self._c -= 1  # it was not sent
            raise
        self._c -= reply.code in REFUSED  # nor was this stored: the next one has its number
        return reply

    def close(self, ending: Ending) -> Reply:
        """Write the attempt's end with the last commit, and answer the run as it stands then.

        What the body has put into that commit never refuses the end: then it is written without.
        """
        if os.getpid() != self._pid:
            return Reply("FENCED")
        event = self._event("", ending.payload)
        with self._writing:
            try:
                reply = self._finish(ending, event, self._last_commit())
            except Exception:  # of what the body has put there: its items, their total
                _log.warning("The last commit of run %s cannot be made; its end is written without.", self.run)
                _log.debug("Why it cannot:", exc_info=True)
                reply = Reply("TOOBIG")
            if reply.code in REFUSED:
                reply = self._finish(ending, event, None)
        if reply.code == "OK":
            events.reporter.emit(replace(event, name=closing_name(ending.outcome, reply.state)))
        return reply

    def _last_commit(self) -> Commit | None:
        while len(self._pending) > _BATCH or len(self.continuation.results) > _RESULTS:
            self.commit()
        return self._gather(final=True)

    def _finish(self, ending: Ending, event: Event, commit: Commit | None) -> Reply:
        return self._send(
            lambda: self._store.finish(
                self._claim.run,
                self._claim.owner,
                ending.outcome,
                wait_ms=round(ending.wait * 1000),
                bounded=ending.bounded,
                failed=ending.failed,
                result=ending.result,
                error=ending.error,
                d=events.encode(event),
                commit=commit,
            )
        )

    def _gather(self, *, final: bool = False) -> Commit | None:
        """Build the next commit, or None where there is nothing to write and it is not the last one."""
        run = self.continuation
        with run.lock:
            step = run.current
            # Read once, for an item may end meanwhile: it would count as written and not be. And before the events:
            # what an item notified is never behind the count that includes it.
            reading = step.reading() if step is not None else (0, None)
            cursor, done = step.standing(reading) if step is not None else (None, None)
            written = (step.name if step is not None else "", reading[1], reading[0])
            stands = self._is_written(*written)
            moved = bool(run.ended) or (step is not None and not stands and step.has_moved_to(reading))
            pending, ended, results = self._take_events(), run.ended, self._take_results()
            run.ended = []
            partial = bool(run.results)  # more of them than a commit takes: they are counted when all are durable
            now, beside = time.monotonic(), self._aside(step)
            shown = final or now - self._progress_at >= _PROGRESS_EVERY
            tells = shown and step is not None and (moved or beside != self._beside)
            if not (pending or ended or results or final or tells or not stands):
                return None
            self._at = now
            if not partial:
                self._written = written
        if tells and step is not None:
            self._progress_at, self._beside = now, beside
            pending.insert(0, self._progress(step.name, cursor.value if cursor else None, done, step.total, beside))
        if moved:
            self._crashes = 0
        if not partial:
            self._place = (pack_cursor(cursor) if cursor is not None else "", _text(done))
        seen, text = self._n, self._fold(pending)
        commit = Commit(
            c=self._c + 1,
            n_seen=seen,
            view=text,
            moved=moved,
            step=step.name if step is not None else "",
            cursor=self._place[0],
            done=self._place[1],
            total=_text(_count(step.total) if step is not None else None),
            ended=[(self._meta(one), one.value or "") for one in ended],
            events=pending,
            results=results,
        )
        self._c = commit.c  # last: one that could not be made has no number
        return commit

    def _is_written(self, name: str, value: Any, done: int) -> bool:
        """Whether the last commit has this. A cursor by its identity: ``True == 1``, and they are two cursors."""
        return self._written[1] is value and self._written[::2] == (name, done)

    def _take_results(self) -> list[tuple[str, str]]:
        run, size, count = self.continuation, 0, 0
        for _, text in run.results[:_RESULTS]:
            size += len(text)
            if count and size > _RESULT_BYTES:
                break
            count += 1
        taken, run.results = run.results[:count], run.results[count:]
        return taken

    def _take_events(self) -> list[tuple[str, str, str]]:
        taken, self._pending = self._pending[:_BATCH], self._pending[_BATCH:]
        late = list(self._late.values())[:_OWN_EVENTS]
        self._late = {event.name: event for event in list(self._late.values())[_OWN_EVENTS:]}
        return taken + [("o", event.name, events.encode(event)) for event in late]

    def _fold(self, pending: list[tuple[str, str, str]]) -> str:
        """Fold the commit's own events as every reader will, and return the view's text.

        A run that has just begun gets none: its readers fold its few events, and most short runs never need more.
        """
        if self.view is None:
            if time.monotonic() - self._started < _SHORT and self._n < _FEW:
                self._n += sum(kind == "s" for kind, _, _ in pending)
                return ""
            self.view = insist(self._load)
        for kind, name, d in pending:
            entry = {"e": name, "id": self._claim.run, "a": str(self._claim.attempt), "d": d}
            if kind == "s":
                self._n += 1
                entry |= {"n": str(self._n), "s": self._state, "at": "0", "k": str(self._crashes)}
            self.view = view.fold(self.view, entry)
        return view.dump(self.view)

    def _heed(self, reply: Reply) -> None:
        """Act on what Redis answered."""
        if reply.code not in ("OK", "AGAIN"):
            if reply.code not in ("FENCED", "GONE", "ORDER"):
                raise RuntimeError(f"Redis refused a commit of run {self._claim.run}: {reply.code} {reply.state}")
            _log.warning("The commit of run %s was refused (%s): another holds it.", self._claim.run, reply.code)
            self.stop("fenced")
            return
        heard = reply.now * 1_000_000 - time.monotonic_ns()
        if abs(heard - self._origin) > _OFF:
            self._origin = heard
        if reply.n != self._n:  # a control came between: its event is not in the view yet
            self._n, self._state = reply.n, reply.state
            self.view = self.view and self._load()
        if not reply.control:
            self.go_on()
        elif self.reason in (None, "pause", "cancel"):  # else it stops anyway
            self.stop("pause" if reply.control == "pause" else "cancel")

    def _send(self, call: Callable[[], T]) -> T:
        self._sent_at = time.monotonic()
        try:
            return insist(call)
        finally:
            self._sent_at = None

    def now_ns(self) -> int:
        """Return the time of Redis, as far as it is known: whoever sets this machine's clock does not change it."""
        return time.monotonic_ns() + self._origin

    # -- events --------------------------------------------------------------------------------------------------

    def _aside(self, step: Step | None) -> _Beside:
        inner = step.inner if step is not None else None
        return inner.standing() if inner is not None else None, self.newer

    def _event(self, name: str, payload: dict[str, Any]) -> Event:
        head = {"job": self.job, "job_id": self._claim.run, "attempt": self._claim.attempt}
        return events.Event(
            name=name,
            payload={**head, **payload},
            tags=self.tags,
            context=events.get_context() or self._context,
            timestamp=self.now_ns(),
            source_location=None,
        )

    def _progress(
        self, step: str, cursor: Any, done: int | None, total: int | None, beside: _Beside
    ) -> tuple[str, str, str]:
        payload: dict[str, Any] = {"step": step, "cursor": cursor, "done": done, "total": total}
        inner, newer = beside
        if inner is not None:
            payload["inner"] = dict(zip(("name", "done", "total"), inner, strict=True))
        if newer:
            payload["newer"] = newer
        if self._dropped:
            payload["dropped"] = self._dropped
        event = self._event("job.progress", payload)
        events.reporter.emit(event)
        return ("p", "job.progress", events.encode(event))

    def _meta(self, ended: Ended) -> str:
        now = self.now_ns() // 1_000_000
        meta = {
            "name": ended.name,
            "started": now - round(ended.duration),
            "ended": now,
            "done": ended.done,
            "total": _count(ended.total),
            "kept": ended.value is not None,
        }
        return msgspec.json.encode(meta).decode()


def closing_name(outcome: str, state: str) -> str:
    """Return the name of the event that ``finish`` writes for this outcome and the state that came of it."""
    if state in ("completed", "failed", "cancelled"):
        return f"job.{state}"
    return "job.retry_scheduled" if outcome == "retrying" and state != "paused" else "job.interrupt"


def _count(total: Any) -> int | None:
    """Return how many items there are, as the body says; None where that is no count."""
    with contextlib.suppress(Exception):  # it may be anything: NumPy's numbers count
        return whole(total if total is None or type(total) is int else int(total))
    return None


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
