"""The record of a run as its readers keep it, its stored form, and the hash of the run laid over it.

Every text in it is cleaned and cut on the way in, every number is checked: whoever draws it need not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from .errors import BadData
from .intake import LARGEST, MESSAGE, NAME, error_fields, lines, names, packed, text, whole

WAITING = frozenset(("scheduled", "queued", "retrying", "paused"))
HELD = frozenset(("running", "pausing", "cancelling"))
ENDED = frozenset(("completed", "failed", "cancelled", "dead"))
STATES = WAITING | HELD | ENDED | {"lost"}
VIEW_LIMIT = 16 * 1024
MAX_STEPS, MAX_SAMPLES, MAX_GAPS, MAX_ATTEMPTS = 50, 20, 20, 20
SHORT = 60  # characters of the texts of an attempt

Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Shown = Annotated[str, msgspec.Meta(extra={"shown": True})]  # a text of the user that surfaces show


class StepView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of a run; `state` is running, done, stopped or failed, `ms` how long its last attempt took."""

    name: Shown
    state: str = "running"
    ms: Count | None = None
    done: Count | None = None
    total: Count | None = None
    note: Shown = ""


class AttemptView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt: where it went on (`step`, `done`, `cursor`), and how it ended (`reason`; 0: it has not).

    `first` is when its first step began: before that its body was on the way there.
    """

    no: Count
    began: Count
    first: Count = 0
    ended: Count = 0
    step: Shown = ""
    done: Count | None = None
    cursor: Shown = ""
    worker: Shown = ""
    reason: str = ""
    signal: Shown = ""


class RunView(msgspec.Struct, frozen=True, omit_defaults=True):
    """The folded state of a run: raw numbers, times in ms of Redis' clock, texts cleaned and cut.

    `step` is the step in progress, also between two attempts; `in_step` says whether its body runs now.
    `declared` are the names of all steps, in order, where the job declares them.
    `inner*` are of a loop inside the step, as it was last told of.
    `earlier` is what of `done` stems from earlier attempts. `resumed_*` hold where the last resumed attempt
    went on; they stay to the end. `pace` is what earlier attempts of the step did in a second.
    `grace` is how long (ms) its worker lets the body go on after a cancel; 0 where that is not known.
    `newer` is the file of its code that has changed since this attempt loaded it.
    `no_worker` and `away`, since when (ms) Redis is out of reach, are a reader's own observations and never stored.
    """

    run: str
    job: Shown = ""
    state: str = "queued"
    control: str = ""
    n: Count = 0
    attempt: Count = 0
    resumptions: Count = 0
    crashes: Count = 0
    failures: Count = 0
    at: Count = 0
    queue: Shown = ""
    worker: Shown = ""
    # where it is
    step: Shown = ""
    in_step: bool = False
    ended_steps: Count = 0
    cursor: Shown = ""
    done: Count | None = None
    total: Count | None = None
    earlier: Count | None = None
    inner: Shown = ""
    inner_done: Count | None = None
    inner_total: Count | None = None
    steps: tuple[StepView, ...] = ()
    declared: tuple[Shown, ...] = ()
    # when
    enqueued: Count = 0
    started: Count = 0
    began: Count = 0
    step_began: Count = 0
    since: Count = 0
    ended: Count = 0
    updated: Count = 0
    samples: tuple[tuple[Count, Count], ...] = ()
    gaps: tuple[Count, ...] = ()
    committed: Count = 0
    pace: Seconds | None = None
    grace: Count = 0
    # how it came here
    attempts: tuple[AttemptView, ...] = ()
    resumed_at: Count | None = None
    resumed_total: Count | None = None
    resumed_step: str = ""
    after: Shown = ""
    description: str = ""
    signal: Shown = ""
    error_type: Shown = ""
    error_message: Shown = ""
    traceback: Shown = ""
    result: Shown = ""
    duration: Count | None = None
    cpu: Seconds | None = None
    memory: Count | None = None
    marks: tuple[str, ...] = ()
    dropped: Count = 0
    newer: Shown = ""
    no_worker: bool = False
    away: Count = 0


_parse = msgspec.json.Decoder(RunView).decode
_write = msgspec.json.Encoder().encode


def empty(run: str, job: str = "") -> RunView:
    """The view of a run of which nothing is known yet."""
    return RunView(run=text(run, 64), job=text(job))


def shown_state(state: str, at: int, now: int) -> str:
    """The state that is shown: a run whose time `at` has come, in ms, waits for nothing but a worker.

    >>> shown_state("retrying", 5000, 4000), shown_state("retrying", 5000, 5000), shown_state("", 0, 0)
    ('retrying', 'queued', 'lost')
    """
    if state in ("scheduled", "retrying") and at <= now:
        return "queued"
    return state or "lost"


def lost(view: RunView) -> RunView:
    """The same run where Redis no longer has it."""
    return replace(view, state="lost", in_step=False, no_worker=False, away=0)


def rate(samples: Sequence[tuple[int, int]]) -> float | None:
    """Items a second over samples of count and time (ms); None until there are three over a second at least.

    >>> rate([(0, 0), (50, 500), (200, 2000)]), rate([(0, 0), (200, 2000)])
    (100.0, None)
    """
    if len(samples) < 3:
        return None
    (first, since), (last, until) = samples[0], samples[-1]
    if until - since < 1000 or last <= first:
        return None
    return (last - first) * 1000 / (until - since)


def dump(view: RunView) -> str:
    """The view as JSON text of at most 16 KiB; the oldest steps give way."""
    if view.no_worker or view.away:
        view = replace(view, no_worker=False, away=0)
    data = _write(view)
    for keep in (25, 10, 3):
        if len(data) <= VIEW_LIMIT:
            break
        view = replace(
            view,
            steps=view.steps[-keep:],
            declared=view.declared if keep > 3 else (),
            attempts=view.attempts[-keep:],
            traceback=view.traceback[-40 * keep :],
        )
        data = _write(view)
    return data.decode()


def parse(data: str) -> RunView:
    """The view that `dump` wrote; raises `BadData` for anything else.

    >>> parse(dump(empty("r1"))) == empty("r1")
    True
    """
    try:
        view = _parse(data)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BadData(
            f"A stored view cannot be read ({error}): expected the JSON of a RunView. "
            "Load the run from its fields and events instead."
        ) from error
    if view.state not in STATES:
        raise BadData(f"A stored view has the state {view.state[:40]!r}: expected one of {' '.join(sorted(STATES))}.")
    return _scrubbed(view)


def _scrubbed(view: RunView) -> RunView:
    """The same view where texts and lists keep to their limits, whoever stored it."""
    changes: dict[str, Any] = {
        name: text(getattr(view, name), _LIMITS.get(name, NAME)) for name in _TEXTS if getattr(view, name)
    }
    if view.traceback:
        changes["traceback"] = lines(view.traceback)
    steps = tuple(
        replace(step, name=text(step.name), state=text(step.state, 40), note=text(step.note))
        for step in view.steps[-MAX_STEPS:]
    )
    attempts = tuple(
        replace(
            one, **{name: text(getattr(one, name), SHORT) for name in ("step", "cursor", "worker", "reason", "signal")}
        )
        for one in view.attempts[-MAX_ATTEMPTS:]
    )
    marks = tuple(text(mark, 40) for mark in view.marks[:8])
    return replace(
        view,
        **changes,
        steps=steps,
        declared=names(view.declared),
        attempts=attempts,
        marks=marks,
        samples=view.samples[-MAX_SAMPLES:],
        gaps=view.gaps[-MAX_GAPS:],
        no_worker=False,
        away=0,
    )


_TEXTS = tuple(
    field.name for field in msgspec.structs.fields(RunView) if field.type in (str, Shown) and field.name != "traceback"
)
_LIMITS = {"run": 64, "error_message": MESSAGE}


def overlay(view: RunView, fields: Mapping[str, str | None]) -> RunView:
    """The view with the fields of the run's hash laid over it, as far as they are given."""
    changes: dict[str, Any] = {}
    for field, key in _OVERLAID:
        number = whole(fields.get(key))
        if number is not None:
            changes[field] = number
    for field in ("job", "queue", "control"):
        given = fields.get(field)
        if given is not None:
            changes[field] = text(given)
    state = fields.get("state")
    if state in STATES:
        changes["state"] = state
        changes["in_step"] = view.in_step and state in HELD
        if state in ENDED and not view.ended:
            changes["ended"] = view.updated
    if fields.get("step") is not None:
        changes.update(_overlay_step(view, fields, changes))
    if fields.get("error"):
        changes.update(error_fields(fields["error"]))
    return replace(view, **changes)


_OVERLAID = (
    *((name, name) for name in ("n", "attempt", "at", "crashes", "failures", "resumptions")),
    ("ended_steps", "steps"),
)


def _overlay_step(view: RunView, fields: Mapping[str, str | None], changes: dict[str, Any]) -> dict[str, Any]:
    if changes.get("state", view.state) == "completed":
        return {"step": "", "in_step": False, "cursor": "", "done": None, "total": None}
    name = text(fields.get("step"))
    done, total = whole(fields.get("done")), whole(fields.get("total"))
    if name == view.step:
        done = view.done if done is None else done
        total = view.total if total is None else total
        in_step = bool(name) and changes.get("in_step", view.in_step)
    else:
        in_step = bool(name) and changes.get("state", view.state) in HELD
    return {
        "step": name,
        "in_step": in_step,
        "cursor": packed(fields.get("cursor")),
        "done": done,
        "total": total,
    }
