"""What a reader knows of a run: one frozen record, made from its events alone.

`fold` takes the entries of a run's stream one after the other, `overlay` lays the fields of its hash over
the result (they are the truth; the record holds only what they have not), and `face.face` makes of it the
finished words that every surface shows. Nothing here does I/O, reads a clock or trusts a string.

    >>> view = fold(empty("r1"), {"e": "job.enqueued", "id": "r1", "n": "1", "s": "queued", "d": ""})
    >>> view.state, view.n
    ('queued', 1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from .intake import Payload, decode, error_fields, millis, moment, names, real, short, text, whole
from .runview import (
    ENDED,
    HELD,
    MAX_ATTEMPTS,
    MAX_GAPS,
    MAX_SAMPLES,
    MAX_STEPS,
    SHORT,
    STATES,
    VIEW_LIMIT,
    AttemptView,
    RunView,
    StepView,
    dump,
    empty,
    lost,
    overlay,
    parse,
    rate,
)

__all__ = [
    "ENDED",
    "MAX_ATTEMPTS",
    "STATES",
    "VIEW_LIMIT",
    "AttemptView",
    "RunView",
    "StepView",
    "dump",
    "empty",
    "fold",
    "lost",
    "overlay",
    "parse",
]

Changes = dict[str, Any]
_CLOSING = frozenset(("job.completed", "job.failed", "job.cancelled", "job.dead"))
_APART = 500  # ms between two samples of the rate: 20 of them are a window of 10 s


def fold(view: RunView, entry: Mapping[str, str]) -> RunView:
    """The view after one entry of the run's stream.

    A numbered entry that was folded before changes nothing, and an end state is left by `job.reopened` only.
    Progress has no number: never fold an entry again whose id was folded. Entries of the user's own change
    nothing but the time of the last news.
    """
    name = entry.get("e") or ""
    n = whole(entry.get("n"))
    if n is not None and n <= view.n:
        return view
    state = entry.get("s")
    if view.state in ENDED and name != "job.reopened" and not (n and state == view.state and name in _CLOSING):
        return view
    wire = decode(entry.get("d") or "")
    payload, ms = wire.p, moment(wire.ts)
    now = max(ms, view.updated)
    # only the scripts number entries, so no event of a user can pass for one of a state
    handler = _HANDLERS.get(name) if n is not None or name == "job.progress" else None
    changes: Changes = handler(view, payload, now) if handler else {}
    changes["updated"] = now
    if handler and payload.dropped is not None:
        changes["dropped"] = max(view.dropped, whole(payload.dropped) or 0)
    if n is not None:
        _number(view, entry, changes, n, now)
        _attempt(view, name, changes, now)
    return replace(view, **changes)


def _number(view: RunView, entry: Mapping[str, str], changes: Changes, n: int, now: int) -> None:
    """What each state event carries beside its payload: the run as it stood after the call."""
    changes["n"] = n
    changes["no_worker"] = False
    for field, key in (("attempt", "a"), ("at", "at"), ("crashes", "k")):
        number = whole(entry.get(key))
        if number is not None:
            changes[field] = number
    state = entry.get("s")
    if state in STATES and state != view.state:
        changes["state"] = state
        changes.setdefault("since", now)
        if state not in HELD:
            changes["in_step"] = False
        if state in ENDED:
            changes["ended"] = now
        elif state not in HELD:
            changes.setdefault("earlier", changes.get("done", view.done))


def _attempt(view: RunView, name: str, changes: Changes, now: int) -> None:
    """Keep the list of attempts: one that is claimed begins, one whose run is held no longer has ended."""
    last = view.attempts[-1] if view.attempts else None
    if name == "job.started":
        began = AttemptView(
            no=changes.get("attempt", view.attempt + 1),
            began=now,
            step=view.step[:SHORT],
            done=view.done,
            cursor=view.cursor[:SHORT],
            worker=changes["worker"][:SHORT],
        )
        changes["attempts"] = (*view.attempts[1 - MAX_ATTEMPTS :], began)
    elif last is None or last.ended:
        return
    elif name == "job.step_started" and not last.first:
        told = replace(last, first=now)
        if "resumed_step" in changes:  # it knows better than what was told of the attempt before
            told = replace(told, step=changes["step"][:SHORT], done=changes["done"], cursor=changes["cursor"][:SHORT])
        changes["attempts"] = (*view.attempts[:-1], told)
    elif (state := changes.get("state", view.state)) not in HELD:
        reason, signal = changes.get("after") or state, changes.get("signal", "")
        changes["attempts"] = (*view.attempts[:-1], replace(last, ended=now, reason=reason[:SHORT], signal=signal))


_NO_INNER: Changes = {"inner": "", "inner_done": None, "inner_total": None}

# The handlers, one per event. Each answers what it changes.


def _enqueued(view: RunView, p: Payload, now: int) -> Changes:
    return {
        "job": text(p.job) or view.job,
        "queue": text(p.queue) or view.queue,
        "declared": names(p.steps) or view.declared,
        "enqueued": now,
        "since": now,
    }


def _started(view: RunView, p: Payload, now: int) -> Changes:
    changes: Changes = {
        "job": text(p.job) or view.job,
        "queue": text(p.queue) or view.queue,
        "worker": text(p.worker),
        "began": now,
        "since": now,
        "in_step": False,
        "earlier": view.done,
        "pace": rate(view.samples) or view.pace,
        "samples": (),
        "gaps": (),
        "committed": 0,
        "grace": whole(p.grace) or 0,
        "at": 0,
        "error_type": "",
        "error_message": "",
        "traceback": "",
        "newer": "",
    }
    if not view.started:
        changes["started"] = now
    resumptions = whole(p.resumptions)
    if resumptions is not None and resumptions > view.resumptions:
        changes.update(resumptions=resumptions, resumed_at=view.done, resumed_total=view.total, resumed_step=view.step)
    return changes


def _resume(view: RunView, p: Payload, now: int) -> Changes:
    changes: Changes = {"description": text(p.description), "after": text(p.after) or view.after}
    resumptions = whole(p.resumptions)
    if resumptions is not None:
        changes["resumptions"] = resumptions
    return changes


def _step_started(view: RunView, p: Payload, now: int) -> Changes:
    name, total, done = text(p.step), whole(p.total), whole(p.done)
    resumed = p.resumed is True
    if done is None:
        done = view.done if resumed and name == view.step else (0 if total else None)
    changes: Changes = {
        "step": name,
        "in_step": True,
        "cursor": short(p.cursor),
        "done": done,
        "total": total,
        "earlier": done if resumed else None,
        "step_began": now,
        **_NO_INNER,
        "samples": ((done or 0, now),),
        "gaps": (),
        "committed": now,
    }
    if resumed:
        changes.update(resumed_at=done, resumed_total=total, resumed_step=name)
    else:
        changes["pace"] = None
    return {**changes, "steps": _with_step(view, StepView(name=name, done=done, total=total))}


def _progress(view: RunView, p: Payload, now: int) -> Changes:
    done, total = whole(p.done), whole(p.total)
    changes: Changes = {"cursor": short(p.cursor), "total": view.total if total is None else total, **_inner(p.inner)}
    changes["newer"] = text(p.newer) or view.newer
    if done is None:
        return changes
    changes["done"] = done
    samples = view.samples
    if samples and now <= samples[-1][1]:
        return changes
    if not (changes["inner"] and samples and done == samples[-1][0]):  # an inner loop says nothing of the rate
        if len(samples) > 1 and now - samples[-2][1] < _APART:
            samples = samples[:-1]
        changes["samples"] = (*samples[1 - MAX_SAMPLES :], (done, now))
    if view.committed and now > view.committed:
        changes["gaps"] = (*view.gaps[1 - MAX_GAPS :], now - view.committed)
    changes["committed"] = now
    return changes


def _inner(told: object) -> Changes:
    """What is told of a loop inside the step."""
    if not isinstance(told, Mapping):
        return _NO_INNER
    name = text(told.get("name"), 40) or "inner"
    return {"inner": name, "inner_done": whole(told.get("done")), "inner_total": whole(told.get("total"))}


def _step(view: RunView, p: Payload, now: int) -> Changes:
    name, done, total = text(p.step) or view.step, whole(p.done), whole(p.total)
    total = view.total if total is None and name == view.step else total
    done = view.done if done is None and name == view.step else done
    stopped, failed = p.interrupted is True, p.exception is not None
    state = "stopped" if stopped else "failed" if failed else "done"
    note = text(p.note) or ("its value is not kept: the step runs again on resume" if p.kept is False else "")
    step = StepView(name=name, state=state, ms=millis(p.duration), done=done, total=total, note=note)
    changes: Changes = {"steps": _with_step(view, step), "in_step": False, "samples": (), "gaps": (), **_NO_INNER}
    if p.kept is False:
        changes["marks"] = _marked(view, "not-kept")
    if stopped or failed:
        pace = rate(view.samples) or view.pace
        changes.update(done=done, total=total, cursor=short(p.cursor) or view.cursor, pace=pace)
        return changes
    changes.update(step="", cursor="", done=None, total=None, earlier=None, ended_steps=view.ended_steps + 1)
    return changes


def _interrupt(view: RunView, p: Payload, now: int) -> Changes:
    reason = text(p.reason)
    changes: Changes = {
        "in_step": False,
        "after": reason,
        "description": text(p.description),
        "signal": ", ".join(filter(None, (text(p.signal, 40), text(p.memory, 80)))),
    }
    if "changed" in reason:
        changes["marks"] = _marked(view, "changed")
    return changes


def _failing(view: RunView, p: Payload, now: int) -> Changes:
    """Retry scheduled, stopped, discarded, failed: what went wrong, and how often."""
    changes: Changes = {"in_step": False, **error_fields(p.exception)}
    if "error_type" in changes:
        changes.update(after="error", signal="")
    reason, failures = text(p.reason), whole(p.failures)
    if reason:
        changes["after"] = reason
    if failures is not None:
        changes["failures"] = failures
    return changes


def _cancelling(view: RunView, p: Payload, now: int) -> Changes:
    return {"grace": 0} if p.op == "now" else {}


def _paused(view: RunView, p: Payload, now: int) -> Changes:
    return {"in_step": False, "after": text(p.reason) or "paused"}


def _unpaused(view: RunView, p: Payload, now: int) -> Changes:
    marks = tuple(mark for mark in view.marks if mark != "changed")
    return {"marks": marks, "after": "", **(_drop(view, 1) if p.op == "restart" else {})}


def _reopened(view: RunView, p: Payload, now: int) -> Changes:
    changes: Changes = dict.fromkeys(("error_type", "error_message", "traceback", "result", "after"), "")
    changes.update(ended=0, duration=None, cpu=None, memory=None, crashes=0, failures=0, since=now, signal="")
    first = whole(p.ordinal)  # of the step that `from_step` names
    return changes if first is None else {**changes, **_drop(view, max(1, first))}


def _completed(view: RunView, p: Payload, now: int) -> Changes:
    changes: Changes = {
        **dict.fromkeys(("done", "total", "earlier")),
        "step": "",
        "cursor": "",
        "in_step": False,
        "result": text(p.result_preview),
        "error_type": "",
        "error_message": "",
        "traceback": "",
    }
    return {**changes, **_costs(p)}


def _failed(view: RunView, p: Payload, now: int) -> Changes:
    return {**_failing(view, p, now), **_costs(p)}


_HANDLERS: dict[str, Callable[[RunView, Payload, int], Changes]] = {
    "job.enqueued": _enqueued,
    "job.enqueued_at": _enqueued,
    "job.started": _started,
    "job.resume": _resume,
    "job.step_started": _step_started,
    "job.progress": _progress,
    "job.step": _step,
    "job.interrupt": _interrupt,
    "job.retry_scheduled": _failing,
    "job.retry_stopped": _failing,
    "job.discarded": _failing,
    "job.cancelling": _cancelling,
    "job.paused": _paused,
    "job.unpaused": _unpaused,
    "job.reopened": _reopened,
    "job.completed": _completed,
    "job.failed": _failed,
    "job.cancelled": lambda view, p, now: {"in_step": False, **_costs(p)},
    "job.dead": _failed,
}


def _with_step(view: RunView, step: StepView) -> tuple[StepView, ...]:
    """The list where `step` is the last entry; it takes the place of its own earlier attempt."""
    steps = view.steps
    if steps and steps[-1].state != "done" and steps[-1].name == step.name:
        steps = steps[:-1]
    return (*steps[1 - MAX_STEPS :], step)


def _marked(view: RunView, mark: str) -> tuple[str, ...]:
    return view.marks if mark in view.marks else (*view.marks, mark)


def _drop(view: RunView, first: int) -> Changes:
    """Forget the steps from ordinal `first` on, and the cursor."""
    kept = min(view.ended_steps, first - 1)
    done = [step for step in view.steps if step.state == "done"]
    beyond = view.ended_steps - len(done)
    return {
        "ended_steps": kept,
        "steps": tuple(done[: max(0, kept - beyond)]),
        "step": "",
        "cursor": "",
        "done": None,
        "total": None,
        "earlier": None,
    }


def _costs(p: Payload) -> Changes:
    return {"duration": millis(p.duration), "cpu": real(p.cpu_seconds), "memory": whole(p.peak_memory)}
