"""Into the queue: a job's call becomes a run.

The run is written by one script, together with its first event; the entry in arq's queue and the wake-up go along in
the same round trip. On the ``inline`` adapter, which is for tests, the enqueuing process then runs the attempts itself:
the same scripts on a real Redis, no worker.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from . import code, codec, connection, context, continuation, events, stream
from .claim import Claim
from .errors import JobNotFound, NbjobsError, RunExists, TooLarge
from .events import Event
from .keys import new_run_id
from .run import Run
from .runner import Attempt, Outcome
from .runset import Runs
from .settings import current
from .store import Reply, Store

_WITHOUT_RESULT = ("failed", "dead", "cancelled")

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from .settings import NbJobs


_signature = functools.lru_cache(maxsize=32)(inspect.signature)  # few: it keeps a notebook's redefined functions


class Options(NamedTuple):
    """How one call is enqueued; see ``Job.options``."""

    delay: float | None = None
    at: datetime | None = None
    queue: str | None = None
    id: str | None = None
    user: str | None = None
    tags: Mapping[str, Any] | None = None


def enqueue(job: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Run:
    """Write the run of a job's call and put it into the queue.

    Raises:
        NotData: an argument is no data; its path is in the message.
        TooLarge: the arguments have more than 64 KiB, or the code more than 1 MiB.
        RunExists: ``options.id`` is taken by another job or other arguments.
        RedisUnavailable: Redis does not answer. Nothing was enqueued.
    """
    desk = _Desk(job, options)
    return desk.send(desk.fields(args, kwargs))


def enqueue_all(job: Any, calls: Iterable[tuple[Any, ...]], options: Options) -> Runs:
    """Write a run for each tuple of arguments, once all of them are found to be right; raise as :func:`enqueue`.

    Whatever ends it in the middle has the attribute ``runs``: those that are enqueued.
    """
    desk = _Desk(job, options)
    told = [desk.fields(args, {}) for args in calls]
    if options.id is not None and len(told) > 1:
        raise ValueError(
            f"options(id={options.id!r}): found {len(told)} calls, and an id stands for one run. "
            "Leave the id out, or enqueue each call with an id of its own."
        )
    try:
        for fields in told:
            desk.send(fields)
    except BaseException as error:  # a Ctrl-C too
        runs = error.runs = Runs(desk.sent)  # type: ignore[attr-defined]
        if isinstance(error, NbjobsError):
            error.args = (f"{error} {len(runs)} of {len(told)} runs are enqueued: they are this error's `runs`.",)
        raise
    runs = Runs(desk.sent)
    payload = {"adapter": desk.settings.adapter, "count": len(runs), "jobs": {job.name: len(runs)}}
    events.reporter.emit(_new_event("job.bulk_enqueued", payload, {}, events.get_context()))
    return runs


class _Desk:
    """Where the calls of one job are enqueued, with the same options.

    Attributes:
        sent: the runs that are enqueued.
    """

    def __init__(self, job: Any, options: Options) -> None:
        parent = context.carrier()
        if parent is not None:  # a run enqueued by a run is of the same user and has its tags
            tags = {**parent.tags, **(options.tags or {})}
            options = options._replace(user=options.user or parent.user, tags=tags)
        self.settings = current()
        self._job = job
        self._options = options
        self._user = options.user or self.settings.user
        self._store = Store(connection.client(), self._user, self.settings)
        self._code: code.Code | None = None
        self.sent: list[Run] = []

    def fields(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str]:
        """Return what is stored of a call.

        Raises:
            TypeError: it does not fit the job, which is told here and not by a failed run. So with data that is none.
        """
        _signature(self._job.fn).bind(*args, **kwargs)
        return _fields(self._job, args, kwargs, self._options, self.settings)

    def send(self, fields: dict[str, str]) -> Run:
        """Write the run of a call and put it into the queue."""
        job, options, settings = self._job, self._options, self.settings
        child = None if options.id else _child_id()
        run = Run(options.id or child or new_run_id(), user=self._user)
        if job.by_value and settings.adapter == "arq":
            fields["code"] = self._packed()
        event = _enqueued(run, fields, options, job.policy.steps)
        reply = self._store.enqueue(
            run.id,
            fields,
            d=events.encode(event),
            at_ms=round(options.at.timestamp() * 1000) if options.at is not None else None,
            delay_ms=round(options.delay * 1000) if options.delay is not None else None,
            queue=fields["queue"] if settings.adapter == "arq" else None,
        )
        _check(reply, run, fields)
        self.sent.append(run)
        if child and reply.code == "AGAIN" and reply.state in _WITHOUT_RESULT:
            self._reopen(run, reply, fields)
        if reply.code == "OK":
            name = "job.enqueued_at" if reply.state == "scheduled" else "job.enqueued"
            events.reporter.emit(replace(event, name=name, n=1))
        if settings.adapter == "inline":
            perform_inline(job, run, self._store, settings)
        return run

    def _reopen(self, run: Run, reply: Reply, fields: Mapping[str, str]) -> None:
        """Open the run again that an earlier attempt of this body enqueued, and that ended without a result.

        Where this process dies before, or others have opened it meanwhile, the next attempt finds it as it is then.
        """
        payload = {"job": fields["job"], "job_id": run.id, "by": run.user, "from_step": None, "ordinal": None}
        around = {**events.get_context(), "user_id": run.user, "job_id": run.id}
        event = _new_event("job.reopened", payload, {}, around)
        queue = fields["queue"] if self.settings.adapter == "arq" else ""
        if self._store.reopen(run.id, reply.n, d=events.encode(event), queue=queue).code == "OK":
            stream.stir(run.user, run.id)

    def _packed(self) -> str:
        if self._code is None:
            self._code = code.pack(self._job)
            self._store.put_code(self._code.sha, self._code.data)
        return self._code.sha


def _child_id() -> str | None:
    """Return the id of a run that a body enqueues: the same on every attempt, so that it is enqueued once."""
    parent = continuation.current()
    return parent.child_id() if parent is not None else None


def _fields(
    job: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options, settings: NbJobs
) -> dict[str, str]:
    return {
        "job": job.name,
        "args": codec.encode([list(args), kwargs], what="args", limit=codec.ARGS_LIMIT),
        "kind": "async" if inspect.iscoroutinefunction(job.fn) else "sync",
        "code": "",
        "python": code.PYTHON,
        "queue": options.queue or job.policy.queue or settings.queue_name,
        "adapter": settings.adapter,
        "user": options.user or settings.user,
        "tags": json.dumps(codec.json_safe(dict(options.tags or {}))),
        "enqueued_at": str(time.time_ns() // 1_000_000),
    }


def _enqueued(run: Run, fields: Mapping[str, str], options: Options, steps: Sequence[str]) -> Event:
    payload: dict[str, Any] = {
        "job": fields["job"],
        "job_id": run.id,
        "attempt": 0,
        "queue": fields["queue"],
        "adapter": fields["adapter"],
    }
    if steps:
        payload["steps"] = list(steps)
    if options.at is not None or options.delay:
        moment = options.at.timestamp() if options.at is not None else time.time() + (options.delay or 0)
        payload["scheduled_at"] = round(moment * 1000)
    around = {**events.get_context(), "user_id": run.user, "job_id": run.id}
    return _new_event("", payload, dict(options.tags or {}), around)


def _new_event(name: str, payload: dict[str, Any], tags: dict[str, Any], around: Mapping[str, Any]) -> Event:
    return Event(
        name=name, payload=payload, tags=tags, context=dict(around), timestamp=time.time_ns(), source_location=None
    )


def _check(reply: Reply, run: Run, fields: Mapping[str, str]) -> None:
    if reply.code in ("OK", "AGAIN"):
        return
    if reply.code == "EXISTS":
        raise RunExists(
            f"The id {run.id!r} is taken by a run of another job or other arguments; {fields['job']} was to be "
            "enqueued under it. Choose another id, or attach to that run.",
            run=run.id,
        )
    if reply.code == "TOOBIG":
        raise TooLarge(f"The run is too large for Redis: {reply.detail}. Pass data as a file's name.", what="run")
    raise RuntimeError(f"Redis answered {reply.code} {reply.detail} to the enqueue of run {run.id}.")


# -- the inline adapter ----------------------------------------------------------------------------------------------


def perform_inline(job: Any, run: Run, store: Store, settings: NbJobs) -> None:
    """Run attempts here, one after the other, until the run has ended, is paused, or has to wait."""
    while True:
        names = ("attempt", "state", "kind", "failures", "queue", "enqueued_at")
        before, state, kind, failures, queue, enqueued_at = store.read(run.id, *names)
        if state not in ("queued", "retrying"):
            return
        owner, attempt = f"inline:{new_run_id()}", int(before or 0) + 1
        started = _started(run, job, attempt, {"queue": queue, "enqueued_at": int(enqueued_at or 0) or None})
        reply = store.claim(run.id, owner, attempt, d=events.encode(started))
        if reply.code != "OK":
            return
        events.reporter.emit(replace(started, n=reply.n))
        claim = Claim(
            user=run.user,
            run=run.id,
            owner=owner,
            attempt=reply.attempt,
            fence=reply.fence,
            c=reply.c,
            n=reply.n,
            now=reply.now,
            crashes=reply.crashes,
            failures=int(failures or 0),
            resumptions=reply.resumptions,
            kind=kind or "sync",
            view_id=reply.view_id,
        )
        outcome = _perform(Attempt(claim, connection.client(), settings, job=job))
        if outcome.code == "not_found":
            raise JobNotFound(outcome.description)


def _perform(attempt: Attempt) -> Outcome:
    if attempt.claim.kind == "sync":
        return attempt.perform()
    return asyncio.run(attempt.aperform())


def _started(run: Run, job: Any, attempt: int, where: Mapping[str, Any]) -> Event:
    payload = {"job": job.name, "job_id": run.id, "attempt": attempt, "worker": "inline", **where}
    return _new_event("job.started", payload, {}, {"user_id": run.user, "job_id": run.id})
