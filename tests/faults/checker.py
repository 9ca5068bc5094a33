"""The invariants of a run, asserted from the ledger, from what Redis did, and from what was shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from nbjobs import connection, history, reading
from nbjobs.run import Run

from ..support import ENDED, wait_until
from .ledger import Line
from .recorder import REMEMBERED, Asked
from .stage import Stage
from .transcript import facts

RECENT_NS = 100_000_000
SHOWN_WITHIN = 2.0


def check(stage: Stage, run: Run, items: int, *, step: str = "count", lives: int = 1) -> None:
    """Assert I1, I3, I4, I5 and I7 of a run that has ended.

    Args:
        stage: where it ran.
        run: the run.
        items: how many items its step has.
        step: the step.
        lives: how many lives Redis had; with more than one it may have forgotten something.
    """
    stage.recorder.catch_up(stage.client)
    check_whole(stage, run)
    check_nothing_lost(stage, run, items, step)
    check_events(stage, run)
    calls = stage.recorder.of(run.id)
    for life in range(1, lives + 1):
        seen = [call for call in calls if call.life == life and call.wrote]
        check_monotone(seen)
        check_one_writer(seen, whole=lives == 1)
    check_shown(stage, run)


def check_whole(stage: Stage, run: Run) -> None:
    """A commit's cursor, events and view are written together, and a run by nothing but its scripts."""
    assert not stage.recorder.strangers, stage.recorder.strangers[:5]
    for call in stage.recorder.of(run.id):
        if "c" in call.wrote and call.script in ("commit", "finish"):
            assert {"c", "step", "cursor", "done"} <= call.wrote.keys(), f"commit {call.c} wrote {sorted(call.wrote)}"
            assert ("view" in call.wrote) == ("view_id" in call.wrote)
            if "view" in call.wrote and call.script == "commit":
                last = call.wrote.get("last_id", call.wrote["view_id"])
                assert call.wrote["view_id"] == last, f"the view of commit {call.c} does not cover its events"


def check_nothing_lost(stage: Stage, run: Run, items: int, step: str) -> None:
    """I1: each item was done."""
    done = stage.ledger.times(run.id, step)
    missing = [item for item in range(items) if item not in done]
    assert not missing, f"items {missing[:10]} of {items} were never done"
    assert sorted(done) == list(range(items))


def check_events(stage: Stage, run: Run) -> None:
    """I3: the run's events are numbered 1..M in the user's stream; the run's own stream ends with the same ones."""
    n = int(stage.fields(run)["n"])
    numbered = [e for _, e in stage.client.xrange(stage.keys.user_events) if e["id"] == run.id]
    assert [int(entry["n"]) for entry in numbered] == list(range(1, n + 1)), [
        (entry["n"], entry["e"]) for entry in numbered
    ]
    own = [entry for _, entry in stage.client.xrange(stage.keys.events(run.id)) if "n" in entry]
    assert own == numbered[-len(own) :]
    assert numbered[-1]["s"] == stage.fields(run)["state"]
    ends = [entry["e"] for entry in numbered if entry["s"] in ENDED]
    assert ends[-1] == f"job.{numbered[-1]['s']}" and ends.count(ends[-1]) == 1, f"more than one end: {ends}"
    attempts = [int(entry["a"]) for entry in numbered]
    assert attempts == sorted(attempts)


def check_monotone(calls: Iterable[Asked]) -> None:
    """I4: fence, c and n never fall, and an end is an end, unless somebody reopens the run."""
    last: dict[str, int] = {}
    ended = ""
    for call in calls:
        ended = "" if call.script == "reopen" else ended
        assert not ended, f"{call.script} wrote {call.wrote} after the end ({ended})"
        for name in ("fence", "c", "n", "attempt"):
            if name in call.wrote:
                value = int(call.wrote[name])
                assert value >= last.get(name, 0), f"{name} fell from {last[name]} to {value} by {call.script}"
                last[name] = value
        ended = call.wrote.get("state", "") if call.wrote.get("state") in ENDED else ""


def check_one_writer(calls: Iterable[Asked], *, whole: bool = True) -> None:
    """I5: each commit was written once, one after the other, by who held the run then."""
    holder, c = "", 0
    for call in calls:
        if call.script in ("commit", "finish") and "c" in call.wrote:
            number = int(call.wrote["c"])
            assert not holder or call.owner == holder, f"{call.owner} wrote commit {number}, {holder} held the run"
            assert number == c + 1 or not (whole or c), f"commit {number} was written after {c}"
            c = number
        elif call.script == REMEMBERED:
            c = int(call.wrote["c"])
        holder = call.wrote.get("owner", holder)
    if whole:
        assert c > 0, "nothing was committed, so this has shown nothing"


def check_shown(stage: Stage, run: Run) -> None:
    """I7: no state event was skipped, and what is shown last is the run as it is."""
    transcript = stage.transcripts[run.id]
    loaded = reading.load(connection.client(), stage.keys, run.id)
    assert loaded is not None
    true = facts(loaded.view)
    wait_until(
        lambda: facts(transcript.last) == true,
        SHOWN_WITHIN + 2,
        f"the follower shows the run as it is: {facts(transcript.last)} is shown, {true} is so",
    )
    n = 0
    for seen in list(transcript.seen):
        if not seen.loaded:
            assert seen.view.n in (n, n + 1), f"event {seen.view.n} was shown after {n}, and the run not looked at anew"
        n = seen.view.n


def check_repeats(
    stage: Stage, run: Run, *, crashes: dict[int, int] | None = None, slow: bool = False, step: str = "count"
) -> dict[int, int]:
    """I2: assert that few items were repeated, and return how many by attempt that was ended.

    Args:
        stage: where it ran.
        run: the run.
        crashes: attempts that were ended by force, and when, on the ledger's clock.
        slow: each item is committed before the next begins: at most the one in flight is repeated.
        step: the step.
    """
    crashes = crashes or {}
    found = {}
    attempts = {line.attempt for line in stage.ledger.lines(run.id)}
    for attempt in sorted(attempts):
        again = stage.ledger.repeats(run.id, step, attempt)
        bound = 0
        if attempt in crashes:
            recent = _recent(stage.ledger.lines(run.id, step, attempt), crashes[attempt])
            bound = 1 if slow else 1 + recent
        print(f"attempt {attempt}: {len(again)} items repeated, at most {bound}")
        assert len(again) <= bound, f"attempt {attempt}: {len(again)} items were repeated, at most {bound} may be"
        found[attempt] = len(again)
    check_steps(stage, run, len(crashes))
    return found


def check_steps(stage: Stage, run: Run, crashes: int) -> None:
    """I2: a step that ended never runs again."""
    ended = [e.payload["step"] for e in history.events(connection.client(), stage.keys, run.id) if _ends(e)]
    twice = [name for name, times in Counter(ended).items() if times > 1]
    assert not twice, f"steps {twice} ended twice"
    assert len(stage.ledger.lines(run.id, "prepare")) <= 1 + crashes


def done_again(
    stage: Stage, run: Run, order: Sequence[str], *, parallel: Collection[str] = ()
) -> tuple[list[Line], list[Line]]:
    """Return what was done again though Redis knew that it was done: items of ended steps, and committed items.

    Args:
        stage: where it ran.
        run: the run.
        order: its steps.
        parallel: those of them whose items end in any order, so that their count says nothing of which.
    """
    of_ended, committed = [], []
    for attempt, (ended, step, done) in _begun(stage.recorder.of(run.id)).items():
        for line in stage.ledger.lines(run.id, attempt=attempt):
            if line.step in order[:ended]:
                of_ended.append(line)
            elif line.step == step and line.item < done and step not in parallel:
                committed.append(line)
    return of_ended, committed


def _begun(calls: Iterable[Asked]) -> dict[int, tuple[int, str, int]]:
    """Return where each attempt began, as far as that was seen: how many steps had ended, its step, items done."""
    found: dict[int, tuple[int, str, int]] = {}
    known: dict[str, str] = {}
    life = 0
    for call in calls:
        if call.life != life:
            known, life = {}, call.life
        known |= {name: call.wrote[name] for name in ("steps", "step", "done") if name in call.wrote}
        if call.script == "claim" and "attempt" in call.wrote and len(known) == 3:
            found[int(call.wrote["attempt"])] = (int(known["steps"]), known["step"], int(known["done"] or 0))
    return found


def _ends(event: object) -> bool:
    payload = getattr(event, "payload", {})
    return getattr(event, "name", "") == "job.step" and not payload.get("interrupted") and "exception" not in payload


def _recent(lines: Iterable[Line], at: int) -> int:
    return sum(at - RECENT_NS <= line.ns <= at for line in lines)
