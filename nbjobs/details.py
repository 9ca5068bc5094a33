"""What a surface shows of a run when it is opened: times, attempts, facts, the error, the output's last lines.

As a face it holds finished words, and instants for what ticks. It changes with the run's state only, not with each
item.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath

import msgspec
from msgspec.structs import replace

from . import phrases, words
from .phrases import reason
from .runview import ENDED, HELD, AttemptView, RunView

__all__ = ["Attempt", "Details", "Error", "Output", "Row", "Segment", "details"]

_FRAME = re.compile(r'^\s*File "([^"\n]+)", line (\d+), in (.+)\n(?:\s+(.+))?', re.MULTILINE)
_FOREIGN = re.compile(r"site-packages|dist-packages|[/\\]lib[/\\]python\d|[/\\]nbjobs[/\\]|^<frozen")
_ASKED = {"pause": "paused", "paused": "paused", "cancel": "cancelled", "cancelled": "cancelled"}  # by its owner
_CELL = re.compile(r"ipykernel_\d+|^<ipython-input")


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fact with its label; with `since` (ms) a duration that runs, `before` (ms) of it being over already."""

    label: str
    text: str = ""
    since: int = 0
    before: int = 0


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of the time line, in ms: kinds waiting starting running gap. Without `until` it goes on."""

    kind: str
    text: str
    since: int
    until: int = 0


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt in words; its duration, or since when (ms) it runs."""

    text: str
    duration: str = ""
    since: int = 0


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong: the exception, the user's own frame that it came from, and everything."""

    text: str
    place: str = ""
    code: str = ""
    traceback: str = ""


class Output(msgspec.Struct, frozen=True):
    """The last lines of what the body has printed: pairs of stream and text; `first` is the number of the first."""

    first: int
    lines: tuple[tuple[str, str], ...]


class Details(msgspec.Struct, frozen=True):
    """All that the opened part shows."""

    timeline: tuple[Segment, ...]
    told: str
    attempts: tuple[Attempt, ...]
    facts: tuple[Row, ...]
    result: str
    error: Error | None
    output: Output


def details(view: RunView, output: Output | None = None) -> Details:
    """The details of a run."""
    timeline = tuple(_forwards(list(_timeline(view))))
    return Details(
        timeline=timeline,
        told=", ".join(map(_spoken, timeline)),
        attempts=tuple(_attempts(view)),
        facts=tuple(_facts(view)),
        result=view.result if view.state == "completed" else "",
        error=_error(view),
        output=output or Output(0, ()),
    )


# -- times ---------------------------------------------------------------------------------------------------------


def _timeline(view: RunView) -> Iterator[Segment]:
    attempts, over = view.attempts, view.ended or (view.updated if view.state == "lost" else 0)
    begun = attempts[0].began if attempts else over
    if view.enqueued:
        whole = not attempts or attempts[0].no <= 1
        what = "waiting for a worker" if whole else "earlier attempts, no longer known one by one"
        if not attempts and view.state in ("scheduled", "paused"):
            what = view.state
        yield Segment("waiting" if whole else "gap", what, view.enqueued, begun)
    for attempt, following in zip(attempts, (*attempts[1:], None), strict=False):
        ended = attempt.ended or (following.began if following else 0 if view.state in HELD else over)
        name = f"attempt {words.count(attempt.no)}"
        if attempt.first:
            yield Segment("starting", f"{name}, before its first step", attempt.began, attempt.first)
        yield Segment("running", name, attempt.first or attempt.began, ended)
        if following or (view.state not in HELD and not over):
            yield Segment("gap", _gap(attempt, view, last=not following), ended, following.began if following else 0)


def _forwards(parts: list[Segment]) -> Iterator[Segment]:
    """The same where no part ends before it begins, though an event had no time that could be read."""
    at = 0
    for number, part in enumerate(parts, 1):
        since = max(part.since, at)
        at = max(part.until, since)
        yield replace(part, since=since, until=at if part.until or number < len(parts) else 0)


def _gap(attempt: AttemptView, view: RunView, *, last: bool) -> str:
    if attempt.reason in _ASKED:
        return _ASKED[attempt.reason]
    state = view.state if last and view.state in ("paused", "retrying") else "interrupted"
    told = reason(attempt.reason, attempt.signal)
    return f"{state}: {told}" if told else state


def _spoken(segment: Segment) -> str:
    if not segment.until:
        return f"{segment.text}, under way"
    return f"{segment.text} {words.lasted((segment.until - segment.since) / 1000)}"


# -- attempts --------------------------------------------------------------------------------------------------------


def _attempts(view: RunView) -> Iterator[Attempt]:
    before: AttemptView | None = None
    for attempt in view.attempts:
        last = attempt is view.attempts[-1]
        until = attempt.ended or (0 if last else attempt.began)
        lasted = words.lasted((until - attempt.began) / 1000) if until > attempt.began else ""
        since = attempt.began if last and not attempt.ended and view.state in HELD else 0
        yield Attempt(_told(attempt, before, view, last=last), lasted, since)
        before = attempt


def _told(attempt: AttemptView, before: AttemptView | None, view: RunView, *, last: bool) -> str:
    parts = [f"Attempt {words.count(attempt.no)}"]
    if attempt.step:
        parts.append(f"resumed at {words.title(attempt.step)}{_cursor(attempt)}")
    if attempt.worker:
        parts.append(f"worker {attempt.worker}")
    if before is not None:
        asked = _ASKED.get(before.reason)
        why = f"it was {asked}" if asked else reason(before.reason, before.signal)
        parts += [f"after: {why}"] if why else []
    if last and attempt.ended and not view.error_type and (why := reason(attempt.reason, attempt.signal)):
        parts.append(f"ended: {why}")
    return ", ".join(parts)


def _cursor(attempt: AttemptView) -> str:
    if attempt.done:
        return f", cursor {words.count(attempt.done)}"
    return f", cursor {attempt.cursor}" if attempt.cursor else ""


# -- facts -----------------------------------------------------------------------------------------------------------


def _facts(view: RunView) -> Iterator[Row]:
    waited = view.attempts[0].began if view.attempts and view.attempts[0].no <= 1 else view.started
    if view.enqueued and waited >= view.enqueued:
        yield Row("Queued for", words.lasted((waited - view.enqueued) / 1000))
    elif view.enqueued and view.state == "queued" and not view.attempts:
        yield Row("Queued for", since=view.enqueued)
    yield from _running(view)
    if view.state == "paused" and view.since:
        yield Row("Paused for", since=view.since)
    if view.cpu is not None:
        yield Row("CPU time", words.lasted(view.cpu))
    if view.memory:
        yield Row("Peak memory", words.size(view.memory))
    if view.cursor and not _plain(view):
        yield Row("Cursor", view.cursor)
    if view.queue:
        yield Row("Queue", view.queue)
    if view.worker and view.state in HELD:
        yield Row("Worker", view.worker)
    if view.newer and view.state in HELD:
        yield Row("Newer code", f"{view.newer}: this attempt runs what it has loaded, the next one what is there now")


def _running(view: RunView) -> Iterator[Row]:
    """The time in attempts, where all of them are known."""
    if not view.attempts or view.attempts[0].no > 1:
        return
    over = sum(one.ended - one.began for one in view.attempts if one.ended >= one.began)
    last = view.attempts[-1]
    if not last.ended and view.state in HELD:
        yield Row("Running for", since=last.began, before=over)
    elif over:
        yield Row("Ran for", words.lasted(over / 1000))


def _plain(view: RunView) -> bool:
    """Whether the cursor says no more than the count."""
    return view.done is not None and view.cursor == str(view.done)


# -- the error -------------------------------------------------------------------------------------------------------


def _error(view: RunView) -> Error | None:
    text = phrases.error(view)
    if view.state not in ENDED and not view.error_type:
        return None
    if not text and not view.traceback:
        return None
    place, code = _own_frame(view.traceback)
    return Error(text or f"{view.error_type}: {view.error_message}", place, code, view.traceback)


def _own_frame(traceback: str) -> tuple[str, str]:
    """Where the user's own code was last, and its line: not a library's frame, nor one of Python's."""
    frames = _FRAME.findall(traceback)
    own = [frame for frame in frames if not _FOREIGN.search(frame[0])]
    if not own:
        return "", ""
    file, number, function, code = own[-1]
    name = "a cell" if _CELL.search(file) else PurePath(file.replace("\\", "/")).name
    return f"{function}, line {number} of {name}", code.strip("~^ ")
