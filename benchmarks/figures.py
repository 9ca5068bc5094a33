"""What a measurement says: figures, the goals they have to meet, and the statistics that make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

__all__ = ["Figure", "Goal", "median", "percentile", "wire"]


class Goal(NamedTuple):
    """What a figure, or its ratio to the peer's, is to be.

    Attributes:
        bound: the number.
        of: ``figure`` or ``ratio``.
        least: whether the bound is the least, not the most, that is wanted.
    """

    bound: float
    of: str = "figure"
    least: bool = False

    def text(self, unit: str) -> str:
        """Return it in words.

        >>> Goal(0.6, "ratio").text("ns"), Goal(4).text("ms")
        ('≤ 0.6 ×', '≤ 4 ms')
        """
        sign = "≥" if self.least else "≤"
        return f"{sign} {self.bound:g} {'×' if self.of == 'ratio' else unit}"

    def met(self, figure: float, ratio: float | None) -> bool:
        """Whether it is met."""
        found = figure if self.of == "figure" or ratio is None else ratio
        return found >= self.bound if self.least else found <= self.bound


@dataclass(frozen=True)
class Figure:
    """One figure beside its peer's.

    Attributes:
        name: of the figure, stable.
        what: the same for people.
        unit: of both figures.
        figure: nbjobs's.
        how: the statistic: best or median of how many, percentile.
        goal: what it is to be; None where it is only reported.
        peer: what it is compared with; empty where there is nothing of the kind.
        peer_figure: the peer's.
    """

    name: str
    what: str
    unit: str
    figure: float
    how: str
    goal: Goal | None = None
    peer: str = ""
    peer_figure: float | None = None

    def wire(self) -> dict[str, Any]:
        """Return it as data."""
        ratio = self.figure / self.peer_figure if self.peer_figure else None
        return {
            "name": self.name,
            "what": self.what,
            "unit": self.unit,
            "figure": _rounded(self.figure),
            "how": self.how,
            "goal": self.goal.text(self.unit) if self.goal else "",
            "peer": self.peer,
            "peer_figure": _rounded(self.peer_figure),
            "ratio": None if ratio is None else round(ratio, 3),
            "met": self.goal.met(self.figure, ratio) if self.goal else None,
        }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies.

    >>> percentile([5, 1, 4, 2, 3], 0.5), percentile(range(101), 0.99)
    (3, 99)
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def wire(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Return figures as data."""
    return [figure.wire() for figure in figures]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
