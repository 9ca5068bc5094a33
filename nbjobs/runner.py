"""One attempt of a run: find the job, run its body, and decide how it ended.

=====================================  ===============================================================
the body                               the run
=====================================  ===============================================================
returns                                completed
is interrupted (a deploy, a step of    queued again, or paused or cancelled where that was asked for
its own, a pause, a cancel)
meets other steps than are stored      paused, with both lists
fails after progress                   retrying: it goes on at its cursor after ``resume_wait``
fails without progress                 failed
was resumed ``max_resumptions`` times  failed, instead of going on
no longer holds the run                nothing is written
cannot be found here                   put back for 5 s; paused after ten minutes
=====================================  ===============================================================

A body that dies with its process is no case of this table: whoever sees the death calls ``lapse``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from . import code, codec, context, continuation, events, stream, view
from .continuation import Continuation, Progress, Saved
from .errors import (
    BadData,
    CodeRefused,
    ContinuationError,
    Fenced,
    Interrupt,
    JobNotFound,
    NotData,
    ResumeLimitError,
    StepsChanged,
    TooLarge,
)
from .journal import Claim, Ending, Journal, insist
from .keys import Keys
from .steps import unpack_cursor
from .store import Store
from .ticker import ticker

__all__ = ["Attempt", "Claim", "Outcome"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import redis

    from .settings import NbJobs
    from .view import RunView

NOT_FOUND_LIMIT = 600.0  # seconds after which a run whose job cannot be found is paused
_PACKAGE = str(Path(__file__).parent)


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt ended.

    Attributes:
        code: ``completed failed paused released retrying``, ``not_found`` where the job is not here, or ``fenced``.
        state: the run's state now.
        description: a sentence for people.
    """

    code: str
    state: str = ""
    description: str = ""


class Attempt:
    """One attempt of a run, in the process that runs its body.

    Args:
        claim: the run, and who holds it.
        client: a Redis client of this process.
        settings: the settings in force.
        job: the job, where this process has it already; else it is found by its name or loaded by value.
        usage: answers what the attempt has used so far, for the closing event.
    """

    def __init__(
        self,
        claim: Claim,
        client: redis.Redis,
        settings: NbJobs,
        *,
        job: Any = None,
        usage: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.claim = claim
        self._settings = settings
        self._job = job
        self._usage = usage or dict
        self._began = time.monotonic()
        self._client = client
        self._keys = Keys(claim.user)
        self._store = Store(client, claim.user, settings)
        self._fields = insist(lambda: self._store.read_all(claim.run))
        self.journal = Journal(
            claim,
            self._store,
            self._load_view,
            job=self._fields.get("job", ""),
            tags=_tags(self._fields),
            interval=max(0.01, settings.commit_interval - 0.02),
        )
        self.continuation = Continuation(
            self.journal,
            _progress(self._fields),
            run_id=claim.run,
            fence=claim.fence,
            is_async=claim.kind == "async",
        )
        self.journal.continuation = self.continuation

    def stop(self, reason: str) -> None:
        """Ask the body to stop at its next checkpoint. May be called from any thread."""
        self.journal.stop(reason)

    def perform(self) -> Outcome:
        """Run the body of a plain job to its end, and write how it ended."""
        with self._in_context():
            try:
                job, args, kwargs = self._prepare()
                with ticker.ticking(self.journal):
                    value = job.fn(*args, **kwargs)
                    self.continuation.finish()
            except KeyboardInterrupt as error:  # only where the caller's own process runs the body
                self._close_after(error)
                raise
            except BaseException as error:
                return self._close_after(error)
            return self._complete(value)

    async def aperform(self) -> Outcome:
        """Run the body of an ``async`` job to its end, and write how it ended."""
        with self._in_context():
            try:
                job, args, kwargs = self._prepare()
                with ticker.ticking(self.journal):
                    value = await job.fn(*args, **kwargs)
                    self.continuation.finish()
            except BaseException as error:
                return self._close_after(error)
            return self._complete(value)

    # -- before the body -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _in_context(self) -> Iterator[None]:
        with (
            events.isolated_context(),
            events.tagged(**_tags(self._fields)),
            continuation.active(self.continuation),
            context.carried_by(self.journal),
        ):
            events.set_context({"user_id": self.claim.user, "job_id": self.claim.run})
            yield

    def _prepare(self) -> tuple[Any, list[Any], dict[str, Any]]:
        job = self._job or self._find()
        self._job = job
        if self._fields.get("missing_since"):
            insist(lambda: self._store.forget(self.claim.run, "missing_since"))
        args, kwargs = codec.decode(self._fields["args"])
        if self.continuation.started:
            payload = {
                "description": self.continuation.description,
                "resumptions": self.claim.resumptions,
                "after": self.journal.view.after,
            }
            self.journal.happened("job.resume", payload)
            self.journal.checkpoint()
        return job, args, kwargs

    def _find(self) -> Any:
        sha = self._fields.get("code", "")
        if not sha:
            return code.find(self._fields["job"])
        if not self._settings.accept_code:
            raise CodeRefused(
                f"The job {self._fields['job']} was sent by value, and this worker takes no code from notebooks. "
                "Start it with NBJOBS_ACCEPT_CODE=true if all who can enqueue may run code here, "
                "or move the job to a module."
            )
        data = insist(lambda: self._store.get_code(sha))
        if data is None:
            raise StepsChanged("The code of this run is no longer stored.", stored=[f"code {sha}"], found=["nothing"])
        return code.load(data)

    def _load_view(self) -> RunView:
        loaded = insist(lambda: stream.load(self._client, self._keys, self.claim.run))
        return loaded.view if loaded is not None else view.empty(self.claim.run)

    # -- after the body ------------------------------------------------------------------------------------------

    def _complete(self, value: Any) -> Outcome:
        payload: dict[str, Any] = {"result_preview": codec.preview(value) if value is not None else ""}
        result = error = ""
        try:
            result = codec.encode(value, what="result", limit=codec.RESULT_LIMIT)
        except (NotData, TooLarge) as why:
            payload["result_not_kept"] = str(why)
            error = _json({"not_kept": str(why)})
        return self._close(Ending("completed", payload, result=result, error=error))

    def _close_after(self, error: BaseException) -> Outcome:
        """The decision table."""
        try:
            self.continuation.fail(error)
            if isinstance(error, Fenced):
                return Outcome("fenced", description=str(error))
            if isinstance(error, JobNotFound):
                return self._put_back(error)
            if isinstance(error, StepsChanged):
                return self._close(_changed(error))
            stops = isinstance(error, (Interrupt, asyncio.CancelledError, KeyboardInterrupt))
            if stops or self._is_to_resume(error):
                if self._is_resumed_too_often():
                    return self._close(_failed(self._resume_limit(error), "resume limit"))
                return self._close(self._interrupted(error) if stops else self._resumed(error))
            reason = "bad data" if isinstance(error, BadData) else "exception"
            return self._close(_failed(error, reason))
        finally:
            del error

    def _is_to_resume(self, error: BaseException) -> bool:
        return (
            isinstance(error, Exception)
            and not isinstance(error, ContinuationError)
            and self.continuation.advanced
            and (self._job is None or self._job.policy.resume_errors_after_advancing)
        )

    def _is_resumed_too_often(self) -> bool:
        limit = self._job.policy.max_resumptions if self._job is not None else None
        return limit is not None and self.claim.resumptions >= limit

    def _resume_limit(self, error: BaseException) -> ResumeLimitError:
        limit = ResumeLimitError(f"Job was resumed a maximum of {self._job.policy.max_resumptions} times")
        limit.__cause__ = error
        return limit

    def _interrupted(self, error: BaseException) -> Ending:
        reason = error.reason if isinstance(error, Interrupt) else "stopping"
        return Ending("released", {"reason": reason, "description": self.continuation.description})

    def _resumed(self, error: BaseException) -> Ending:
        wait = self._job.policy.resume_wait if self._job is not None else 5.0
        slept = 0.0 if self._settings.adapter == "inline" else wait
        payload = {
            "failures": self.claim.failures + 1,
            "wait_seconds": wait,
            "exception": _exception(error),
            "description": self.continuation.description,
        }
        return Ending("retrying", payload, wait=slept, failed=True)

    def _put_back(self, error: JobNotFound) -> Outcome:
        waited = insist(lambda: self._store.since(self.claim.run, "missing_since"))
        outcome = "paused" if waited > NOT_FOUND_LIMIT else "released"
        ended = self._close(Ending(outcome, {"reason": "not_found", "description": str(error)}))
        return msgspec.structs.replace(ended, code="not_found" if ended.code == "released" else ended.code)

    def _close(self, ending: Ending) -> Outcome:
        payload = {**ending.payload, **self._usage(), "duration": round((time.monotonic() - self._began) * 1000, 2)}
        reply = self.journal.close(ending._replace(payload=payload))
        if reply.code not in ("OK", "AGAIN"):
            return Outcome("fenced", reply.state, f"the end was refused: {reply.code}")
        return Outcome(ending.outcome, reply.state, str(payload.get("description", "")))


def _changed(error: StepsChanged) -> Ending:
    payload = {
        "reason": "changed",
        "description": str(error),
        "stored": list(error.stored),
        "found": list(error.found),
    }
    return Ending("paused", payload)


def _failed(error: BaseException, reason: str) -> Ending:
    exception = _exception(error)
    return Ending("failed", {"reason": reason, "exception": exception}, failed=True, error=_json(exception))


def _exception(error: BaseException) -> dict[str, str]:
    """Return an error as text, its traceback beginning with the user's own frames."""
    summary = traceback.TracebackException.from_exception(error, limit=-40)
    frames = list(summary.stack)
    while frames and frames[0].filename.startswith(_PACKAGE):
        del frames[0]
    if frames:
        summary.stack = traceback.StackSummary.from_list(frames)
    text = "".join(summary.format())
    return {"type": type(error).__name__, "message": str(error)[:4096], "traceback": text[-12_000:]}


def _progress(fields: Mapping[str, str]) -> Progress:
    ended = []
    for ordinal in range(1, int(fields.get("steps") or 0) + 1):
        meta = msgspec.json.decode(fields[f"s:{ordinal}"])
        ended.append(Saved(meta["name"], fields.get(f"v:{ordinal}", "") if meta["kept"] else None))
    total = fields.get("total")
    return Progress(
        ended=tuple(ended),
        step=fields.get("step", ""),
        cursor=unpack_cursor(fields.get("cursor", "")),
        done=int(fields.get("done") or 0),
        total=int(total) if total else None,
    )


def _tags(fields: Mapping[str, str]) -> dict[str, Any]:
    text = fields.get("tags", "")
    return msgspec.json.decode(text, type=dict[str, Any]) if text else {}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
