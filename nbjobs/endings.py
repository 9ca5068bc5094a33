"""How an attempt ends: the decision table, from an error and what the job declares to what becomes of the run.

=====================================  ===============================================================
the body                               the run
=====================================  ===============================================================
returns                                completed
is interrupted (a deploy, a pause, a   queued again, or paused or cancelled where that was asked for
cancel, a step of its own), or is
cancelled as somebody has asked
meets other steps than are stored      paused, with both lists
raises what ``discard_on`` names       failed, as discarded
raises what ``retry_on`` names         retrying, until that declaration's attempts are used up
fails otherwise, after progress        retrying: it goes on at its cursor after ``resume_wait``
fails without progress                 failed
was resumed ``max_resumptions`` times  failed, instead of going on
no longer holds the run                nothing is written
=====================================  ===============================================================

What the user declared comes before the rule of progress: a deliberate difference from Rails, where an error after
progress is resumed even if the job says that it is to be discarded. A body that dies with its process is no case of
this table: whoever sees the death calls ``lapse``.

A ``CancelledError`` or ``KeyboardInterrupt`` that nobody has asked for is an error of the body's like others: it awaits
a task that it has cancelled, say, or a library ends it by a timeout.

An end is written whatever its description does: an error may refuse to be text, and so may its class, notes and causes.
At worst the name of its class is left of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from . import codec, shown
from .errors import BadData, ContinuationError, Interrupt, NotData, ResumeLimitError, StepsChanged, TooLarge
from .journal import Ending
from .retries import Retry, first_match

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TRACEBACK_LIMIT = 12_000  # bytes; the last lines say most
_NOTES = 10  # of an error, the last ones
_STOPS = (asyncio.CancelledError, KeyboardInterrupt)  # by which a body may be stopped, or end itself
_PACKAGE = str(Path(__file__).parent)


class Policy(NamedTuple):
    """What a job declares about its runs; see ``@job``."""

    queue: str | None = None
    retry_on: tuple[Retry, ...] = ()
    discard_on: tuple[type[BaseException], ...] = ()
    max_resumptions: int | None = None
    resume_wait: float = 5.0
    resume_errors_after_advancing: bool = True
    timeout: float | None = None
    steps: tuple[str, ...] = ()


class _Counted(msgspec.Struct):
    counts: dict[str, int] = {}


class Facts(NamedTuple):
    """What the decision depends on, besides the error.

    Attributes:
        advanced: whether this attempt has got further than where it began.
        asked: whether somebody has asked it to stop.
        description: where the run stands, in words.
        failures: attempts that ended in an error before this one.
        resumptions: attempts that began with progress, this one included.
        counts: how often each ``retry_on`` has matched before.
    """

    policy: Policy
    advanced: bool = False
    asked: bool = False
    description: str = ""
    failures: int = 0
    resumptions: int = 0
    counts: Mapping[str, int] = {}


def after_return(value: Any) -> Ending:
    """Return the ending of a body that returned ``value``; one that is no data is not kept, only shown."""
    payload: dict[str, Any] = {"result_preview": ""}
    try:
        payload["result_preview"] = shown.value(value) if value is not None else ""
        return Ending("completed", payload, result=codec.encode(value, what="result", limit=codec.RESULT_LIMIT))
    except BaseException as failure:  # it is no data, or code of its class has failed, which may raise anything
        plain = isinstance(failure, (NotData, TooLarge))
        why = shown.message(failure) if plain else f"it cannot be read: {shown.kind(failure)}"
        return Ending("completed", {**payload, "result_not_kept": why}, error=_json({"not_kept": why}))


def after_error(error: BaseException, facts: Facts) -> Ending:
    """Return the ending of a body that ``error`` left; this never raises.

    Where what decides it fails, as a function that computes a wait may, the run fails for that.
    """
    try:
        return _decided(error, facts)
    except BaseException as failure:
        if failure is not error and failure.__context__ is None:
            failure.__context__ = error
        return failed(failure, "exception")


def _decided(error: BaseException, facts: Facts) -> Ending:  # noqa: PLR0911 - a table, one line a row
    if isinstance(error, StepsChanged):
        lists = {"stored": list(error.stored), "found": list(error.found)}
        return Ending("paused", {"reason": "changed", "description": shown.message(error), **lists})
    if isinstance(error, Interrupt) or (facts.asked and isinstance(error, _STOPS)):
        return _resumption(error, facts, _released(error, facts))
    if isinstance(error, BadData):
        return failed(error, "bad data")
    if isinstance(error, facts.policy.discard_on):
        payload = {"failures": facts.failures + 1, "exception": exception(error)}
        return failed(error, "discarded")._replace(events=(("job.discarded", payload),))
    retry = first_match(facts.policy.retry_on, error)
    if retry is not None:
        return _retried(error, retry, facts)
    resumes = facts.policy.resume_errors_after_advancing and facts.advanced
    if resumes and isinstance(error, (Exception, *_STOPS)) and not isinstance(error, ContinuationError):
        return _resumption(error, facts, _retrying(error, facts.policy.resume_wait, facts))
    return failed(error, "exception")


def failed(error: BaseException, reason: str) -> Ending:
    """Return the ending of a run that fails for ``error``."""
    told = exception(error)
    return Ending("failed", {"reason": reason, "exception": told}, failed=True, error=_json(told))


def exception(error: BaseException) -> dict[str, str]:
    """Return an error as text, its traceback beginning with the user's own frames; this never raises."""
    kind, message = shown.kind(error), shown.message(error)
    for parts in (_whole, _frames):
        with contextlib.suppress(BaseException):  # its class, notes and causes may raise anything: then less is told
            text = shown.cut("".join(map(_masked, parts(error))), TRACEBACK_LIMIT, end=True)
            return {"type": kind, "message": message, "traceback": text}
    return {"type": kind, "message": message, "traceback": ""}


def _whole(error: BaseException) -> Iterator[str]:
    """Return the parts of a traceback, those of causes and groups included."""
    told = traceback.TracebackException.from_exception(error, limit=-40)
    frames = list(told.stack)
    while frames and frames[0].filename.startswith(_PACKAGE):
        del frames[0]
    if frames:
        told.stack = traceback.StackSummary.from_list(frames)
    _shorten(told, 40)
    return told.format()


def _frames(error: BaseException) -> Iterator[str]:
    """Yield what can be told of an error without asking it anything."""
    yield from traceback.format_tb(error.__traceback__, -40)
    yield f"{shown.kind(error)}: {shown.message(error)}\n"


def _shorten(told: Any, depth: int) -> None:
    """Cut the texts of an error and of what belongs to it, before they are taken apart line by line."""
    if isinstance(text := getattr(told, "_str", None), str):
        told._str = shown.cut(text, 2 * shown.MESSAGE_LIMIT)
    notes = getattr(told, "__notes__", None)
    if isinstance(notes, (list, tuple)):
        told.__notes__ = [shown.cut(str(note), shown.MESSAGE_LIMIT) for note in notes[-_NOTES:]]
    for other in (told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ())):
        if other is not None and depth:
            _shorten(other, depth - 1)


def _masked(part: str) -> str:
    """Return a part of a traceback without secrets; the name of an error's class is no name of a parameter."""
    part = shown.cut(part, 2 * shown.MESSAGE_LIMIT).rstrip("\n") + "\n"
    name, colon, message = part.partition(": ")
    if colon and name.replace(".", "").isidentifier():
        return f"{name}{colon}{shown.masked(message)}"
    return shown.masked(part)


def _released(error: BaseException, facts: Facts) -> Ending:
    reason = error.reason if isinstance(error, Interrupt) else "stopping"
    kept = _json({"counts": dict(facts.counts)}) if facts.counts else ""
    return Ending("released", {"reason": reason, "description": facts.description}, error=kept)


def _resumption(error: BaseException, facts: Facts, ending: Ending) -> Ending:
    """Return ``ending``, or the run's failure where it was resumed as often as the job allows."""
    limit = facts.policy.max_resumptions
    if limit is None or facts.resumptions < limit:
        return ending
    told = ResumeLimitError(f"Job was resumed a maximum of {limit} times")
    told.__cause__ = error
    return failed(told, "resume limit")


def _retried(error: BaseException, retry: Retry, facts: Facts) -> Ending:
    count = facts.counts.get(retry.name, 0) + 1
    if retry.attempts is None or count < retry.attempts:
        return _retrying(error, retry.delay(count), facts, {**facts.counts, retry.name: count})
    payload = {"failures": facts.failures + 1, "exception": exception(error)}
    return failed(error, "exception")._replace(events=(("job.retry_stopped", payload),))


def _retrying(error: BaseException, wait: float, facts: Facts, counts: Mapping[str, int] | None = None) -> Ending:
    told = exception(error)
    payload = {
        "failures": facts.failures + 1,
        "wait_seconds": round(wait, 3),
        "exception": told,
        "description": facts.description,
    }
    kept = {**told, "counts": dict(counts if counts is not None else facts.counts)}
    return Ending("retrying", payload, wait=wait, failed=True, error=_json(kept))


def counts_of(error: str) -> dict[str, int]:
    """Return the counts that an earlier attempt's ending has left in the run's ``error`` field."""
    if not error:
        return {}
    try:
        return msgspec.json.decode(error, type=_Counted).counts
    except (msgspec.MsgspecError, ValueError, RecursionError):  # none that nbjobs wrote: begin to count anew
        return {}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
