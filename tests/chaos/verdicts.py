"""What a round shows: each invariant of each of its runs, and the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from nbjobs.event import decode

from ..faults import checker
from ..faults.ledger import Line
from ..faults.recorder import Asked
from .load import Load, Started
from .totals import CRASHES, Totals
from .worlds import World


def judge(world: World, load: Load, totals: Totals) -> None:
    """Check all runs of a round, and count."""
    world.recorder.catch_up(world.client)
    totals.rounds += 1
    totals.runs_forgotten += load.forgotten
    totals.died += load.died
    for one in load.started:
        _Verdict(world, one, totals).give()
    for transcript in world.transcripts.values():
        transcript.close()


class _Verdict:
    """About one run."""

    def __init__(self, world: World, one: Started, totals: Totals) -> None:
        self.world, self.one, self.totals = world, one, totals
        self.run, self.plan = one.run, one.plan
        self.lines = world.ledger.lines(self.run.id)
        self.calls = world.recorder.of(self.run.id)
        self.lives = sorted({call.life for call in self.calls})

    def give(self) -> None:
        """Check the invariants, then count."""
        world, run = self.world, self.run
        if self.one.state != "completed":
            return self.totals.find("lost", f"run {run.id} ({self.plan.kind}) has not completed: {world.fields(run)}")
        for step, items in self.plan.steps.items():
            self._holds("lost", checker.check_nothing_lost, world, run, items, step)
        self._holds("finished steps run twice", self._check_steps)
        self._holds("holes", checker.check_events, world, run)
        self._holds("written in parts", checker.check_whole, world, run)
        for life in self.lives:
            seen = [call for call in self.calls if call.life == life and call.wrote]
            self._holds("fell", checker.check_monotone, seen)
            self._holds("two writers", checker.check_one_writer, seen, whole=False)
        if run.id in world.transcripts:
            self._holds("shown", checker.check_shown, world, run)
        self._check_resumptions()
        self._count()

    def _holds(self, what: str, check: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            check(*args, **kwargs)
        except AssertionError as error:
            self.totals.find(what, f"run {self.run.id} ({self.plan.kind}), user {self.world.keys.user}: {error}")

    def _check_steps(self) -> None:
        """Events say once of each step that it ended."""
        checker.check_steps(self.world, self.run, len(self.lines))  # type: ignore[arg-type]

    def _check_resumptions(self) -> None:
        """Each attempt began where Redis said: what was committed by then is not done again."""
        ended, committed = checker.done_again(self.world, self.run, list(self.plan.steps), parallel=self.plan.parallel)
        for what, lines in (("finished steps run twice", ended), ("committed items run twice", committed)):
            for line in lines:
                self.totals.find(what, f"run {self.run.id} ({self.plan.kind}): {line}")

    def _count(self) -> None:
        totals = self.totals
        totals.runs += 1
        totals.kinds[self.plan.kind] += 1
        totals.items += sum(self.plan.steps.values())
        totals.attempts += int(self.world.fields(self.run)["attempt"])
        totals.refused += _refused(self.calls)
        forgotten = _forgotten(self.calls)
        totals.commits_forgotten += forgotten
        reasons, waited = self._reasons()
        attempts = sorted({line.attempt for line in self.lines})
        for attempt, following in pairwise(attempts):
            why = reasons.get(attempt, "")
            kind = "after Redis forgot" if forgotten else why if why in CRASHES else "no crash"
            again = sum(len(self.world.ledger.repeats(self.run.id, step, attempt)) for step in self.plan.steps)
            ended = _last(self.lines, attempt, following).ns
            if not self.plan.silent:
                totals.repeat(kind, self.run.id, again, ended)
            if why in CRASHES and not (self.plan.silent or self.one.controlled or attempt in waited):
                totals.resume(why, self.run.id, ended, _first(self.lines, following).ns)

    def _reasons(self) -> tuple[dict[int, str], set[int]]:
        """Return why attempts were ended, and after which of them the run waited for a time."""
        reasons, waited = {}, set()
        for _, entry in self.world.client.xrange(self.world.keys.user_events):
            if entry["id"] == self.run.id and entry["e"] == "job.interrupt":
                reasons[int(entry["a"])] = decode(entry["e"], entry["d"]).payload.get("reason", "")
            elif entry["id"] == self.run.id and entry["e"] == "job.retry_scheduled":
                waited.add(int(entry["a"]))
        return reasons, waited


def _first(lines: Iterable[Line], attempt: int) -> Line:
    return min((line for line in lines if line.attempt == attempt), key=lambda line: line.ns)


def _last(lines: list[Line], attempt: int, following: int) -> Line:
    """Return the last item of an attempt before the following one began: a zombie does one more."""
    until = _first(lines, following).ns
    before = [one for one in lines if one.attempt == attempt and one.ns < until]
    return max(before, key=lambda one: one.ns, default=_first(lines, attempt))


def _refused(calls: Iterable[Asked]) -> int:
    """Return how many commits and ends were refused since another, or nobody, held the run."""
    holder: str | None = None
    last, life, count = "", 0, 0
    for call in calls:
        if call.life != life:
            holder, life = None, call.life
        if call.script in ("commit", "finish") and not call.wrote and holder is not None:
            count += call.owner != holder and not (call.script == "finish" and call.owner == last)
        if "owner" in call.wrote:
            last, holder = holder or last, call.wrote["owner"]
    return count


def _forgotten(calls: Iterable[Asked]) -> int:
    """Return how many commits a life of Redis knew no more that were seen in the one before."""
    highest, life, count = 0, 0, 0
    for call in calls:
        if "c" not in call.wrote:
            continue
        before = int(call.wrote["c"]) - (call.script in ("commit", "finish"))
        if call.life != life:
            count += max(0, highest - before)
            life = call.life
        highest = int(call.wrote["c"])
    return count
