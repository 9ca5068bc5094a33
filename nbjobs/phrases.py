"""What is said of a run: headline, facts, note, time left. Whatever is not known is left out.

The numbers in it are worded by `words`; `face` puts the pieces together.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from . import words
from .runview import ENDED, HELD, WAITING, RunView, rate


class Fact(msgspec.Struct, frozen=True):
    """One fact; kinds: count inner rate remaining resumed elapsed attempt wait note."""

    kind: str
    text: str


class Clock(msgspec.Struct, frozen=True):
    """A duration that runs: `prefix` and the time since `since` (ms); until then, where that lies ahead."""

    since: int
    prefix: str


_SETTLED = 10_000  # ms after which an attempt's own pace is all that counts
_WAITING = WAITING - {"scheduled"}
_AFTER = {
    "stopping": "its worker was stopped",
    "deploy": "its worker was stopped",
    "isolating": "the next step runs in an attempt of its own",
    "waiting": "it waited for another run",
    "not_found": "no worker finds its code yet",
    "not_accepted": "its worker takes no code from notebooks (start it with NBJOBS_ACCEPT_CODE=true)",
    "other_python": "its worker has another version of Python than its notebook",
    "lease_lost": "its worker fell silent",
    "child_died": "its process died",
    "worker_died": "its worker died",
    "no_progress": "10 attempts in a row ended without progress",
    "error": "an error",
    "exception": "an error",
}


def total(view: RunView) -> int | None:
    """The total where it can be true: one that was overtaken is none."""
    total = view.total
    return total if total and (view.done or 0) <= total else None


def speed(view: RunView) -> float | None:
    """Items a second over the samples of this attempt; None until there are three over a second at least."""
    return rate(view.samples) if view.state in HELD else None


def remaining(view: RunView, total: int | None, speed: float | None) -> str:
    """The time that is left in words, nothing where it is not known.

    Right after a resumption it goes by the pace of the attempt before, and by this one's the more, the longer it runs.
    """
    if not total or not view.in_step or view.state != "running" or view.away:
        return ""
    pace = speed
    if view.pace and view.samples:
        known = min(1.0, (view.samples[-1][1] - view.samples[0][1]) / _SETTLED) if speed else 0.0
        pace = known * (speed or 0.0) + (1 - known) * view.pace
    return words.left((total - (view.done or 0)) / pace) if pace else ""


def place(view: RunView) -> tuple[int, int | None]:
    """The number of the step under way, and of how many: that is known only of a step that the job declares."""
    if view.step in view.declared:
        return view.declared.index(view.step) + 1, len(view.declared)
    return view.ended_steps + 1, None


def headline(view: RunView, word: str) -> str:
    """Where the run is: the step in words while it runs, else its state and the step it stopped in."""
    state = view.state
    if state == "queued" and view.no_worker:
        return f"waiting for a worker: none alive on queue {view.queue or 'default'}"
    if state == "lost":
        return "lost: Redis no longer has this run"
    fresh = state == "running" and view.resumptions and _fresh(view)
    if state == "completed" or not view.step:
        return "resuming" if fresh else word
    ordinal, of = place(view)
    number = f"tep {words.count(ordinal)}{f' of {words.count(of)}' if of else ''} · {words.title(view.step)}"
    if state == "running" and not fresh:
        return f"S{number}" if view.in_step else word
    lead = "resuming" if fresh else f"{word} in" if state in ("failed", "dead") else f"{word} ·"
    return f"{lead} {'S' if lead[-1] == '·' else 's'}{number}"


def _fresh(view: RunView) -> bool:
    """Whether the attempt has not begun a step yet."""
    return not view.in_step and (view.step_began < view.began or not view.step_began)


def clock(view: RunView, remaining: str) -> Clock | None:
    """The duration to tick: none where the time left says more, or the run has ended."""
    state = view.state
    if state in ("scheduled", "retrying"):
        prefix = "starts in " if state == "scheduled" else "next attempt in "
        return Clock(view.at, prefix) if view.at else None
    if state == "cancelling" and view.grace and view.since and not view.away:
        return Clock(view.since + view.grace, "at the latest in ")
    if not view.since or view.state in ENDED or state == "lost" or remaining or view.away:
        return None
    if state == "running":
        return Clock(view.step_began if view.in_step and view.step_began else view.since, "running for ")
    return Clock(view.since, {"queued": "queued for ", "paused": "paused for "}.get(state, "for "))


def facts(view: RunView, total: int | None, speed: float | None, remaining: str) -> tuple[Fact, ...]:
    """Five facts at most: count, that of an inner loop, rate, time left or taken, resumptions or attempts, a note."""
    facts: list[Fact] = []
    if view.away:
        facts.append(Fact("note", f"Redis out of reach: shown as of {_time(view.away)}"))
    counted = _counted(view, total)
    if counted:
        facts.append(Fact("count", counted))
    if nested := inner(view):
        facts.append(Fact("inner", nested))
    if speed and not view.away and (pace := words.rate(speed)):
        facts.append(Fact("rate", pace))
    if remaining:
        facts.append(Fact("remaining", remaining))
    if view.state in ENDED and view.started and view.ended >= view.started:
        facts.append(Fact("elapsed", f"took {words.lasted((view.ended - view.started) / 1000)}"))
    if view.resumptions:
        facts.append(Fact("resumed", _resumed(view)))
    elif view.attempt > 1:
        facts.append(Fact("attempt", f"attempt {words.count(view.attempt)}"))
    if not view.away and (remark := note(view)):
        facts.append(Fact("note", remark))
    return tuple(facts[:5])


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000):%H:%M}"


def _counted(view: RunView, total: int | None) -> str:
    if view.state == "completed":
        step = max(view.steps, key=lambda step: step.done or 0, default=None)
        done, total = (step.done, step.total) if step else (None, None)
    else:
        done = view.done
    if done is None or not (done or total):
        return ""
    return f"{words.count(done)} of {words.count(total)}" if total and done <= total else words.count(done)


def inner(view: RunView) -> str:
    """How far a loop inside the step is."""
    done, total = view.inner_done, view.inner_total
    if not view.inner or done is None or not view.in_step or view.state not in HELD:
        return ""
    of = f" of {words.count(total)}" if total and done <= total else ""
    return f"{view.inner} {words.count(done)}{of}"


def _resumed(view: RunView) -> str:
    often = f"resumed {words.times(view.resumptions)}"
    if view.resumed_at is None:
        return often
    return f"{often}{' at' if view.resumptions == 1 else ', last at'} {words.count(view.resumed_at)}"


def note(view: RunView) -> str:
    """The one remark that matters most now: why the last attempt ended, what is newer or missing, the result."""
    return next(_remarks(view), "")


def _remarks(view: RunView) -> Iterator[str]:
    state = view.state
    if "changed" in view.marks and state == "paused":
        yield "code or data changed: accept or restart"
    if state in _WAITING or state == "dead" or (state == "running" and _fresh(view)):
        told = reason(view.after, view.signal)
        if told and not (view.after == "error" and state != "running"):
            yield f"after: {told}"
    if view.newer and state in HELD:
        yield f"{view.newer} has changed on disk"
    if view.dropped:
        yield f"{words.plural(view.dropped, 'event')} thinned out"
    if state == "completed" and view.result:
        yield f"result {view.result}"
    if "not-kept" in view.marks:
        yield "a value was not kept"


def reason(after: str, signal: str = "") -> str:
    """Why an attempt ended, in words; nothing where it is not known.

    >>> reason("child_died", "SIGKILL"), reason("no such reason")
    ('its process died (SIGKILL)', '')
    """
    told = _AFTER.get(after, "")
    return f"{told} ({signal})" if told and signal else told


def hindrance(view: RunView) -> str:
    """Why a run cannot begin until somebody does something about its worker; nothing where it can.

    >>> from nbjobs.runview import RunView
    >>> hindrance(RunView(run="r1", state="queued", after="other_python"))
    'its worker has another version of Python than its notebook'
    """
    return reason(view.after) if view.state in _WAITING and view.after in ("not_accepted", "other_python") else ""


def error(view: RunView) -> str:
    """The last line of the exception, where the run is not past it."""
    if view.state == "dead":
        often = words.plural(view.crashes, "time") if view.crashes else "too often"
        return f"crashed {often} without progress"
    if view.state != "failed" and view.state not in _WAITING:
        return ""
    if view.error_type and view.error_message:
        return f"{view.error_type}: {view.error_message}"
    return view.error_type or view.error_message or (view.after if view.state == "failed" else "")


def timed(facts: tuple[Fact, ...], clock: Clock, now: int) -> tuple[Fact, ...]:
    """The facts with the clock's as it stands at `now`, behind the count; a count-down ends with its time."""
    ahead = clock.prefix.endswith("in ")
    if ahead and clock.since <= now:
        return facts
    seconds = -((now - clock.since) // 1000) if ahead else max(0, now - clock.since) // 1000
    kind = "elapsed" if clock.prefix.startswith("running") else "wait"
    place = 1 if facts and facts[0].kind == "count" else 0
    return (*facts[:place], Fact(kind, clock.prefix + words.ticked(seconds)), *facts[place:])[:5]
