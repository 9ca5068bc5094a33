"""One attempt of a run, in the process that runs its body: find the job, run it, write how it ended.

What becomes of the run is decided in :mod:`nbjobs.endings`. A job that cannot be found in this process is put back for
5 s, in the hope of a worker that has it; after ten minutes the run is paused. It never fails for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from . import code, codec, context, continuation, endings, events, intake, reading, shown, view
from .beside import beside, beside_to_the_end
from .callbacks import Attempted
from .claim import Claim
from .continuation import Continuation
from .errors import (
    BadData,
    CodeRefused,
    Fenced,
    JobNotFound,
    StepsChanged,
)
from .journal import Ending, Journal, insist
from .keys import Keys
from .progress import Progress, Saved
from .steps import unpack_cursor
from .store import Store
from .ticker import ticker

__all__ = ["Attempt", "Outcome"]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from .connection import Client
    from .settings import NbJobs
    from .view import RunView

NOT_FOUND_LIMIT = 600.0  # seconds after which a run whose job cannot be found is paused
_LATE = 1.0  # seconds that a body may take beyond its timeout to reach a checkpoint, or to end as a cancelled task
_PACKAGE = str(Path(__file__).parent)
_log = logging.getLogger("nbjobs.runner")


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

    Attributes:
        on_limit: told of the job's timeout, and within how many seconds the process is to be ended unless the attempt
            has ended or this is called again.
    """

    def __init__(
        self,
        claim: Claim,
        client: Client,
        settings: NbJobs,
        *,
        job: Any = None,
        usage: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.claim = claim
        self._settings = settings
        self._job = job
        self._code: bytes | None = None
        self._usage = usage or dict
        self.on_limit: Callable[[float, float], None] | None = None
        self._began = time.monotonic() - (claim.overrun.seconds if claim.overrun else 0)
        self._inline = settings.adapter == "inline"
        self._client = client
        self._keys = Keys(claim.user)
        self._store = Store(client, claim.user, settings)
        self._fields: Mapping[str, str] = claim.fields
        loaded = None
        if not claim.fields:
            self._fields, loaded = insist(lambda: reading.load_whole(client, self._keys, claim.run, claim.view_id))
        self._bad: BadData | None = None
        try:
            progress = _progress(self._fields)
        except BadData as error:
            progress, self._bad = Progress(), error
        self.journal = Journal(
            claim,
            self._store,
            loaded,
            self._load_view,
            job=self._fields.get("job", ""),
            tags=intake.tags(self._fields.get("tags")),
            interval=max(0.01, settings.commit_interval - 0.02),
        )
        self.continuation = Continuation(
            self.journal,
            progress,
            run_id=claim.run,
            fence=claim.fence,
            is_async=claim.kind == "async",
            accepted=self._fields.get("accept") == str(claim.attempt),
            generation=intake.whole(self._fields.get("generation")) or 0,
        )
        self.journal.continuation = self.continuation

    def stop(self, reason: str) -> None:
        """Ask the body to stop at its next checkpoint. May be called from any thread."""
        self.journal.stop(reason)

    def go_on(self) -> None:
        """Take back a pause where the body has not stopped yet. May be called from any thread."""
        self.journal.go_on()

    def outdated(self, file: str) -> None:
        """Tell the run's readers that this file of its code is newer than what runs. May be called from any thread."""
        self.journal.newer = file

    def perform(self) -> Outcome:
        """Run the body of a plain job to its end, and write how it ended."""
        with self._in_context():
            try:
                prepared = self._prepare()  # what a module sets as it is loaded stays, what its jobs set does not
                value = contextvars.copy_context().run(self._run_body, *prepared)
            except BaseException as error:
                here = self._inline and type(error) is KeyboardInterrupt
                outcome = self._end(error, asked=here)
                if here:  # its process is the caller's, who wants that to stop
                    raise
                return outcome
            return self._close(endings.after_return(value))

    def _run_body(self, job: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        with self._performing(job):
            value = _called(job, args, kwargs)
            self.continuation.finish()
        return value

    async def aperform(self) -> Outcome:
        """Run the body of an ``async`` job to its end, and write how it ended.

        Whatever waits for Redis does so beside the event loop, which turns for others meanwhile.
        """
        task = asyncio.current_task()
        with self._in_context():
            try:
                await beside(self._fetch)
                job, args, kwargs = self._read()
                if self._tell_resumed():
                    await beside(self.journal.checkpoint)
                with self._performing(job):
                    value = await _within(job.policy.timeout, _called(job, args, kwargs))
                    await self.continuation.afinish()
            except BaseException as error:
                if type(error) is GeneratorExit and not _runs(task):
                    raise  # nobody waits for it any more, and nothing can be awaited
                here = self._inline and _is_stop_of(task, error)
                outcome = await beside_to_the_end(functools.partial(self._end, error, asked=here))
                if here:
                    raise
                return outcome
            return await beside_to_the_end(functools.partial(self._close, endings.after_return(value)))

    # -- before the body -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _in_context(self) -> Iterator[None]:
        with (
            events.isolated_context(),
            events.tagged(**self.journal.tags),
            continuation.active(self.continuation),
            context.carried_by(self.journal),
        ):
            events.set_context({"user_id": self.claim.user, "job_id": self.claim.run})
            yield

    @contextlib.contextmanager
    def _performing(self, job: Any) -> Iterator[None]:
        """Around the body: the ticker and the job's callbacks."""
        attempted = Attempted(self.claim.run, self.claim.user, self.claim.attempt, self.claim.resumptions)
        if job.policy.timeout is not None:
            self._limit(job.policy.timeout)
        self.continuation.declare(job.policy.steps)
        with ticker.ticking(self.journal), job.callbacks.performing(attempted):
            yield

    def _limit(self, timeout: float) -> None:
        """Let the body end after its time at a checkpoint; where it reaches none, its process is ended from outside."""
        tell = self.on_limit or (lambda timeout, within: None)
        tell(timeout, timeout + _LATE)
        self.journal.limit(timeout, lambda: tell(timeout, self._settings.grace))

    def _prepare(self) -> tuple[Any, list[Any], dict[str, Any]]:
        self._fetch()
        found = self._read()
        if self._tell_resumed():
            self.journal.checkpoint()
        return found

    def _fetch(self) -> None:
        """Get what Redis has to say of the job beside the run itself: its code, where that travels by value."""
        if self._bad is not None:
            raise self._bad
        sha = self._fields.get("code", "")
        if sha and self._job is None and self._settings.accept_code:
            self._code = insist(lambda: self._store.get_code(sha))

    def _read(self) -> tuple[Any, list[Any], dict[str, Any]]:
        job = self._job or self._find()
        self._job = job
        if self._fields.get("missing_since"):
            insist(lambda: self._store.forget(self.claim.run, "missing_since"))
        if self.claim.overrun is not None:
            raise TimeoutError(
                f"the attempt took longer than the job's timeout of {self.claim.overrun.timeout:g} s and did not stop; "
                f"its process was ended {self.continuation.description}"
            )
        args, kwargs = codec.decode(self._fields["args"])
        return job, args, kwargs

    def _tell_resumed(self) -> bool:
        """Tell that the run goes on, where it does."""
        if not self.continuation.started:
            return False
        payload = {
            "description": self.continuation.description,
            "resumptions": self.claim.resumptions,
            "after": self.journal.view.after if self.journal.view is not None else "",
        }
        self.journal.happened("job.resume", payload)
        return True

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
        if self._code is None:
            raise StepsChanged("The code of this run is no longer stored.", stored=[f"code {sha}"], found=["nothing"])
        return code.load(self._code)

    def _load_view(self) -> RunView:
        loaded = insist(lambda: reading.load(self._client, self._keys, self.claim.run))
        return loaded.view if loaded is not None else view.empty(self.claim.run)

    # -- after the body ------------------------------------------------------------------------------------------

    def _end(self, error: BaseException, *, asked: bool) -> Outcome:
        """Write how an attempt ended that ``error`` left; ``asked`` is whether it was stopped in this process."""
        place = ""
        try:
            self.continuation.fail(error)
            place = self.continuation.description
        except BaseException:  # of the error's class, or of the items that the body loops over: the end counts
            _log.warning("Where run %s stands in its step cannot be told", self.claim.run, exc_info=True)
        kind = type(error)  # `isinstance` would ask the error for its class
        if issubclass(kind, Fenced):
            return Outcome("fenced", description=str(error))
        if issubclass(kind, JobNotFound):
            return self._put_back(error)
        overrun = self.claim.overrun
        facts = endings.Facts(
            policy=self._job.policy if self._job is not None else endings.Policy(),
            advanced=overrun.advanced if overrun is not None else self.continuation.advanced,
            asked=asked or self.journal.reason not in (None, "error", "timeout"),
            description=place,
            failures=self.claim.failures,
            resumptions=self.claim.resumptions,
            counts=endings.counts_of(self._fields.get("error", "")),
        )
        return self._close(endings.after_error(error, facts))

    def _put_back(self, error: BaseException) -> Outcome:
        waited = insist(lambda: self._store.since(self.claim.run, "missing_since"))
        outcome = "paused" if waited > NOT_FOUND_LIMIT else "released"
        reason = error.reason if type(error) is CodeRefused else "not_found"
        ended = self._close(Ending(outcome, {"reason": reason, "description": str(error)}, bounded=True))
        return msgspec.structs.replace(ended, code="not_found" if ended.code == "released" else ended.code)

    def _close(self, ending: Ending) -> Outcome:
        for name, payload in ending.events:
            self.journal.happened(name, payload)
        usage = self._usage() if self.claim.overrun is None else {"printed": True}  # its stack, at least
        payload = {**ending.payload, **usage, "duration": round((time.monotonic() - self._began) * 1000, 2)}
        wait = 0.0 if self._inline else ending.wait  # waits are told, not slept
        reply = self.journal.close(ending._replace(payload=payload, wait=wait))
        if not reply.ok:
            return Outcome("fenced", reply.state, f"the end was refused: {reply.code}")
        return Outcome(ending.outcome, reply.state, codec.clean_text(str(payload.get("description", ""))))


def _called(job: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Call the job's function, with what was right for it when the run was enqueued."""
    try:
        return job.fn(*args, **kwargs)
    except TypeError as error:
        signature = inspect.signature(job.fn)
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            raise StepsChanged(
                f"The run's arguments do not fit the job as it is now: {shown.message(error)}.",
                stored=[", ".join([f"{len(args)} arguments", *(f"{name}=" for name in kwargs)])],
                found=[f"{job.name}{signature}"],
            ) from error
        raise


async def _within(timeout: float | None, body: Awaitable[Any]) -> Any:
    if timeout is None:
        return await body
    try:
        value, stop = await asyncio.wait_for(_contained(body), timeout)
    except asyncio.TimeoutError as error:
        raise TimeoutError(str(error) or f"the attempt took longer than {timeout} s") from error
    if stop is not None:
        raise stop
    return value


async def _contained(body: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """Return what a body returns or ends itself with: out of a task, that would end the loop and all bodies in it."""
    try:
        return await body, None
    except (SystemExit, KeyboardInterrupt) as error:
        return None, error


def _runs(task: asyncio.Task[Any] | None) -> bool:
    """Whether this code runs in that task; where it does not, somebody closes what the task was to run."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # the loop is gone
        return False


def _is_stop_of(task: asyncio.Task[Any] | None, error: BaseException) -> bool:
    """Whether an error means that a person stops this process: by Ctrl-C, which asyncio turns into a cancel."""
    cancelling = getattr(task, "cancelling", None)  # Python 3.10 has none
    cancelled = type(error) is asyncio.CancelledError and (cancelling is None or cancelling() > 0)
    return cancelled or type(error) is KeyboardInterrupt


def _progress(fields: Mapping[str, str]) -> Progress:
    """Return the progress that is stored of a run.

    Raises:
        BadData: something in them is none that nbjobs wrote.
    """
    try:
        ended = []
        for ordinal in range(1, int(fields.get("steps") or 0) + 1):
            meta = msgspec.json.decode(fields[f"s:{ordinal}"], type=_Ended)
            ended.append(Saved(meta.name, fields.get(f"v:{ordinal}", "") if meta.kept else None))
        total = fields.get("total")
        return Progress(
            ended=tuple(ended),
            step=fields.get("step", "").encode().decode(),  # bytes that are no text are none of ours
            cursor=unpack_cursor(fields.get("cursor", "")),
            done=int(fields.get("done") or 0),
            total=int(total) if total else None,
        )
    except (ValueError, KeyError, RecursionError, msgspec.MsgspecError) as error:
        raise BadData(f"The progress that is stored of this run is none that nbjobs wrote: {error}.") from error


class _Ended(msgspec.Struct):
    """What is stored of a step that ended, as far as a next attempt needs it."""

    name: str
    kept: bool
