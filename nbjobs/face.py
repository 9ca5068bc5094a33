"""The finished words of a run: what every surface shows, without formatting anything itself.

What changes by time alone is told in advance: `clock` runs from a moment on, each of `thresholds` has its
words ready. A surface without a clock of its own (a terminal, a saved page) passes `now` and gets everything
applied.

    >>> from nbjobs.view import empty
    >>> face(empty("r1", "shop.import_orders")).headline
    'queued'
"""

from __future__ import annotations

import inspect
from statistics import median_low

import msgspec
from msgspec.structs import replace

from . import phrases, words
from .actions import Action, actions
from .phrases import Clock, Fact
from .runview import ENDED, HELD, RunView, StepView

__all__ = ["Action", "Bar", "Clock", "Face", "FaceStep", "Fact", "Threshold", "face", "schema"]

SHOWN_DONE = 3  # done steps of a long list that are shown before anybody asks for the others


class Bar(msgspec.Struct, frozen=True):
    """How much is done, 0 to 1, None where nobody knows; `earlier` of it is from earlier attempts."""

    done: float | None
    earlier: float = 0.0
    notch: float | None = None


class Threshold(msgspec.Struct, frozen=True):
    """From the time `at` (ms) on, unless news came before: `mark` holds, `text` is the headline, `clock` ticks.

    Rate and time left are no longer true then.
    """

    at: int
    mark: str
    text: str
    clock: Clock | None = None


class FaceStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the list of steps; `state` is running, done, stopped, failed or coming.

    Of the one under way `since` (ms) tells how long it has been so.
    """

    name: str
    state: str
    title: str
    duration: str = ""
    note: str = ""
    since: int = 0


class Face(msgspec.Struct, frozen=True):
    """All that a surface shows of a run; `begun` is when it was enqueued (ms), 0 where nobody knows."""

    run: str
    job: str
    name: str
    state: str
    icon: str
    word: str
    headline: str
    step: str
    step_no: int | None
    attempt: int
    resumed: int
    marks: tuple[str, ...]
    n: int
    bar: Bar | None
    percent: str
    facts: tuple[Fact, ...]
    aria: str
    error: str
    clock: Clock | None
    thresholds: tuple[Threshold, ...]
    begun: int
    updated: int
    ended: bool
    steps: tuple[FaceStep, ...]
    earlier: str
    actions: tuple[Action, ...]
    schema: int = 1


_WORDS = {
    "scheduled": ("◷", "scheduled"),
    "queued": ("○", "queued"),
    "running": ("◐", "running"),
    "retrying": ("↻", "retrying"),
    "pausing": ("‖", "pausing…"),
    "paused": ("‖", "paused"),
    "cancelling": ("⊘", "cancelling…"),
    "cancelled": ("⊘", "cancelled"),
    "completed": ("✓", "done"),
    "failed": ("✕", "failed"),
    "dead": ("✕", "dead"),
    "lost": ("?", "lost"),
}


def face(view: RunView, *, now: int | None = None) -> Face:
    """The face of a run; with `now` (ms of Redis' clock) what comes by time alone is applied.

    Args:
        view: what a reader knows of the run.
        now: the time to show it at. Without it the surface ticks `clock` and minds `thresholds` itself.
    """
    icon, word = _WORDS.get(view.state, ("?", view.state))
    total = phrases.total(view)
    percent, bar = _bar(view, total)
    speed = phrases.speed(view)
    remaining = phrases.remaining(view, total, speed)
    headline, marks = phrases.headline(view, word), _marks(view)
    clock, thresholds = phrases.clock(view, remaining), _thresholds(view)
    name = view.job.rpartition(".")[2] or "job"
    step = view.step if view.in_step else ""
    facts = phrases.facts(view, total, speed, remaining)
    made = Face(
        run=view.run,
        job=view.job,
        name=name,
        state=view.state,
        icon=icon,
        word=word,
        headline=headline,
        step=step,
        step_no=phrases.place(view)[0] if step else None,
        attempt=view.attempt,
        resumed=view.resumptions,
        marks=marks,
        n=view.n,
        bar=bar,
        percent=percent,
        facts=facts,
        aria=_aria(headline, percent, remaining),
        error=phrases.error(view),
        clock=clock,
        thresholds=thresholds,
        begun=view.enqueued,
        updated=view.updated,
        ended=view.state in ENDED or view.state == "lost",
        steps=(*(_step(step, view) for step in view.steps), *_coming(view)),
        earlier=_earlier(view),
        actions=actions(view),
    )
    return made if now is None else _at(made, now)


def _at(face: Face, now: int) -> Face:
    """The face with what has come by time alone."""
    due = [threshold for threshold in face.thresholds if threshold.at <= now]
    facts, clock, changes = face.facts, face.clock, {}
    if due:
        facts = tuple(fact for fact in facts if fact.kind not in ("rate", "remaining"))
        clock = due[-1].clock or clock
        changes = {"headline": due[-1].text, "marks": (*face.marks, *(one.mark for one in due))}
    if any(one.mark == "due" for one in due):
        changes["icon"], changes["word"] = _WORDS["queued"]
    if clock:
        facts = phrases.timed(facts, clock, now)
    return replace(face, facts=facts, clock=None, thresholds=(), **changes)


def schema() -> dict[str, object]:
    """The JSON schema of a face; `widgets/face.schema.json` is its checked-in text."""
    found = msgspec.json.schema(Face)
    for described in found["$defs"].values():  # Python 3.13 takes the indentation out of docstrings, others do not
        described["description"] = inspect.cleandoc(described["description"])
    return found


def _bar(view: RunView, total: int | None) -> tuple[str, Bar | None]:
    if view.state == "completed":
        return "", Bar(1.0, *_proof(view))
    if view.step and total:
        done = (view.done or 0) / total
        earlier = min(done, (view.earlier or 0) / total)
        percent = f"{100 * (view.done or 0) // total} %"
        return percent, Bar(done, earlier, earlier or None)
    if view.state in HELD:
        return "", Bar(None)
    return "", None


def _proof(view: RunView) -> tuple[float, float | None]:
    """The share that earlier attempts had done where the last resumption was: the notch stays to the end."""
    at, total = view.resumed_at, view.resumed_total
    if not at or not total or at > total:
        return 0.0, None
    return at / total, at / total


def _marks(view: RunView) -> tuple[str, ...]:
    marks = view.marks
    if view.resumptions:
        marks = ("resumed", *marks)
    if view.newer and view.state in HELD:
        marks = (*marks, "newer-code")
    if view.no_worker and view.state == "queued":
        marks = (*marks, "no-worker")
    if view.away and view.state not in ENDED:
        marks = (*marks, "away")
    return marks


def _thresholds(view: RunView) -> tuple[Threshold, ...]:
    if view.state in ("scheduled", "retrying"):
        return (Threshold(view.at, "due", "queued"),) if view.at else ()
    if view.state != "running" or not view.in_step or len(view.gaps) < 5 or view.away:
        return ()
    usual = 3 * median_low(view.gaps)
    stale, stuck = max(usual, 3000), max(usual, 10_000)
    headline = phrases.headline(view, "")
    late = Threshold(view.committed + stuck, "stuck", f"stuck? {headline}", Clock(view.committed, "no progress for "))
    if stale == stuck:
        return (late,)
    return (Threshold(view.committed + stale, "stale", headline, Clock(view.committed, "no news for ")), late)


def _aria(headline: str, percent: str, remaining: str) -> str:
    """What a screen reader says of the bar, which is labelled with the name already."""
    parts = [headline.replace(" · ", ", ")] + [words.spoken(part) for part in (percent, remaining) if part]
    return ", ".join(parts)


def _step(step: StepView, view: RunView) -> FaceStep:
    note = step.note
    done, total = step.done, step.total or 0
    if done is not None and done < total and not note and step.state != "running":
        note = f"{words.count(done)} of {words.count(total)}"
    state, since = step.state, 0
    if state == "running":
        under_way = view.in_step and step.name == view.step
        state, since = ("running", view.step_began) if under_way else ("stopped", 0)
    duration = "" if step.ms is None else words.lasted(step.ms / 1000)
    return FaceStep(step.name, state, words.title(step.name), duration, note, since)


def _coming(view: RunView) -> tuple[FaceStep, ...]:
    """The declared steps behind the last one that was met."""
    if view.state in ("completed", "lost"):
        return ()
    met = {step.name for step in view.steps}
    last = max((i for i, name in enumerate(view.declared) if name in met), default=-1)
    return tuple(FaceStep(name, "coming", words.title(name)) for name in view.declared[last + 1 :])


def _earlier(view: RunView) -> str:
    """What stands for the done steps where only the last ones are shown."""
    hidden = view.ended_steps - SHOWN_DONE
    return words.plural(hidden, "earlier step") if hidden > 1 else ""
