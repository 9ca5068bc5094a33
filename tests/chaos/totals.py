"""What is counted, and how it is told."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

ZEROS = ("lost", "finished steps run twice", "committed items run twice", "holes", "left-over processes", "others")

CRASHES = ("child_died", "worker_died", "lease_lost")


@dataclass
class Totals:
    """Figures of one stage.

    Attributes:
        faults: what was done, by kind.
        broken: what must be zero, by its name.
        findings: each of these, in words.
        repeats: items that were done again, of each attempt that was ended, by what ended it.
        resumes: seconds from the last item of such an attempt to the first of the next one, likewise.
        timeline: when each fault was, on the ledger's clock.
        most, worst: the most of these items after a crash and the longest of these times, and what was done around.
        forgotten: commits that Redis acknowledged and no longer knew after it was killed; and whole runs.
    """

    name: str
    rounds: int = 0
    runs: int = 0
    items: int = 0
    attempts: int = 0
    refused: int = 0
    commits_forgotten: int = 0
    runs_forgotten: int = 0
    died: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    repeats: dict[str, list[int]] = field(default_factory=dict)
    resumes: dict[str, list[float]] = field(default_factory=dict)
    timeline: list[tuple[int, str]] = field(default_factory=list)
    most: tuple[int, str] = (0, "")
    worst: tuple[float, str] = (0.0, "")

    def find(self, what: str, text: str) -> None:
        """Count what must not be."""
        self.broken[what if what in ZEROS else "others"] += 1
        self.findings.append(f"{what}: {text}")
        print(f"chaos: FOUND {what}: {text}", flush=True)

    def strike(self, fault: str) -> None:
        """Count a fault."""
        self.faults[fault] += 1
        self.timeline.append((time.monotonic_ns(), fault))

    def repeat(self, why: str, run: str, items: int, ended: int) -> None:
        """Count the items that were done again of an attempt that ended then, on the ledger's clock."""
        self.repeats.setdefault(why, []).append(items)
        if why in CRASHES and items > self.most[0]:
            self.most = items, f"{items} items of run {run}: {self._around(ended - 3e9, ended + 1e9, ended)}"

    def resume(self, why: str, run: str, ended: int, began: int) -> None:
        """Count the time between two attempts; both moments on the ledger's clock."""
        took = (began - ended) / 1e9
        self.resumes.setdefault(why, []).append(took)
        if took > self.worst[0]:
            self.worst = took, f"{took:.1f} s, run {run}: {self._around(ended - 2e9, began, ended)}"

    def _around(self, since: float, until: float, moment: int) -> str:
        found = [((at - moment) / 1e9, fault) for at, fault in self.timeline if since < at < until]
        return ", ".join(f"{after:+.1f} s {fault}" for after, fault in found)

    @property
    def fine(self) -> bool:
        return not self.findings

    def table(self) -> str:
        """Return the figures as text."""
        lines = [f"== {self.name}: {self.rounds} rounds"]
        lines += [
            _line("runs", self.runs, _by(self.kinds)),
            _line("items", self.items),
            _line("attempts", self.attempts),
        ]
        lines.append(_line("faults", self.faults.total(), _by(self.faults)))
        for why, found in sorted(self.repeats.items()):
            told = f"mean {sum(found) / len(found):.2f}, max {max(found)}, of {len(found)} attempts"
            lines.append(_line(f"items repeated, {why}", sum(found), told))
        for why, took in sorted(self.resumes.items()):
            ordered = sorted(took)
            told = f"median {ordered[len(ordered) // 2]:.2f} s, worst {ordered[-1]:.2f} s, of {len(took)}"
            lines.append(_line(f"resumed, {why}", len(took), told))
        lines += [f"  {told}" for _, told in (self.most, self.worst) if told]
        lines += [_line("refused writes", self.refused), _line("dead, and retried", self.died)]
        lines.append(_line("forgotten by Redis", self.commits_forgotten, f"commits, and {self.runs_forgotten} runs"))
        lines += [_line(what, self.broken[what]) for what in ZEROS]
        return "\n".join(lines)


def _line(name: str, number: int, told: str = "") -> str:
    return f"{name:32} {number:>9,}  {told}".rstrip()


def _by(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counter.items()))
