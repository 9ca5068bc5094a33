"""Several runs in finished words: how many are in which state, failures first, and a cell for each.

>>> from nbjobs.view import empty
>>> made = Several([empty("r1", "shop.import_orders"), empty("r2", "shop.import_orders")]).summary()
>>> made.name, made.headline, [part.text for part in made.parts]
('import_orders', '2 runs', ['2 queued'])
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

import msgspec

from . import words
from .face import Face, face
from .phrases import Clock, Fact
from .runview import ENDED, HELD, RunView

__all__ = ["Cell", "Part", "Several", "Summary"]

MOST = 1000  # cells that are told one by one
_ERROR = 160  # characters of an error in a cell's line
_ATTENTION = ("failed", "dead", "lost")
_ORDER = (
    *_ATTENTION, "running", "pausing", "cancelling", "retrying", "paused", "queued", "scheduled", "completed",
    "cancelled",
)  # fmt: skip


class Part(msgspec.Struct, frozen=True):
    """How many runs are in a state."""

    state: str
    icon: str
    text: str


class Cell(msgspec.Struct, frozen=True):
    """One of the runs: its number in the order of enqueueing, and its line; `done` is 0 to 1."""

    run: str
    number: int
    state: str
    icon: str
    text: str
    done: float


class Summary(msgspec.Struct, frozen=True):
    """All that a surface shows of several runs; `done` and `failed` are shares of all, `hidden` has no cell."""

    name: str
    state: str
    icon: str
    headline: str
    total: int
    ended: int
    done: float
    failed: float
    percent: str
    parts: tuple[Part, ...]
    facts: tuple[Fact, ...]
    aria: str
    clock: Clock | None
    over: bool
    begun: int
    cells: tuple[Cell, ...]
    hidden: int = 0
    schema: int = 1


class Several:
    """Several runs as they stand; `take` may be called from any thread.

    Args:
        views: the runs, in the order in which they were enqueued.
    """

    def __init__(self, views: Iterable[RunView]) -> None:
        self._lock = threading.Lock()
        self._views = {view.run: view for view in views}
        self._numbers = {run: number for number, run in enumerate(self._views, 1)}
        self._cells: dict[str, Cell] = {}

    def __len__(self) -> int:
        return len(self._views)

    def __contains__(self, run: object) -> bool:
        return run in self._views

    @property
    def runs(self) -> tuple[str, ...]:
        """The ids, in the order in which the runs were enqueued."""
        return tuple(self._numbers)

    def take(self, view: RunView) -> None:
        """Put a run's latest view in the place of the one before."""
        with self._lock:
            if view.run in self._views:
                self._views[view.run] = view
                self._cells.pop(view.run, None)

    def view(self, run: str) -> RunView:
        """The latest view of one of the runs."""
        return self._views[run]

    @property
    def over(self) -> bool:
        """Whether all have ended."""
        with self._lock:
            return all(map(_has_ended, self._views.values()))

    def summary(self) -> Summary:
        """Say how they stand now."""
        with self._lock:
            views = list(self._views.values())
            cells = [self._cell(view) for view in views]
        states = Counter(cell.state for cell in cells)
        ended = sum(map(_has_ended, views))
        failed = sum(states[state] for state in _ATTENTION)
        state, icon = _standing(states, cells)
        parts = tuple(_part(one, states[one], cells) for one in sorted(states, key=_place))
        facts, clock = _times(views, ended)
        done = sum(cell.done for cell in cells) / max(1, len(cells))
        shown = sorted(cells, key=lambda cell: cell.state not in _ATTENTION)
        return Summary(
            name=_name(views),
            state=state,
            icon=icon,
            headline=words.plural(len(views), "run"),
            total=len(views),
            ended=ended,
            done=done,
            failed=failed / max(1, len(cells)),
            percent="" if ended == len(views) else f"{int(100 * done)} %",
            parts=parts,
            facts=facts,
            aria=", ".join([*(part.text for part in parts), *(words.spoken(fact.text) for fact in facts)]),
            clock=clock,
            over=ended == len(views),
            begun=min((view.enqueued for view in views if view.enqueued), default=0),
            cells=tuple(shown[:MOST]),
            hidden=max(0, len(shown) - MOST),
        )

    def _cell(self, view: RunView) -> Cell:
        if view.run not in self._cells:
            self._cells[view.run] = _made(view, self._numbers[view.run])
        return self._cells[view.run]


def _has_ended(view: RunView) -> bool:
    return view.state in ENDED or view.state == "lost"


def _made(view: RunView, number: int) -> Cell:
    shown = face(view)
    counted = (fact.text for fact in shown.facts if fact.kind in ("count", "elapsed", "resumed"))
    parts = (shown.headline, _cut(shown.error), shown.percent, *counted)
    line = f"#{words.count(number)} · {' · '.join(part for part in parts if part)}"
    return Cell(view.run, number, view.state, shown.icon, line, _share(shown))


def _cut(error: str) -> str:
    return error if len(error) <= _ERROR else f"{error[: _ERROR - 1]}…"


def _share(shown: Face) -> float:
    if shown.ended:
        return 1.0
    return (shown.bar.done or 0.0) if shown.bar else 0.0


def _place(state: str) -> int:
    """Where a state is told; one that this code does not know yet comes last."""
    return _ORDER.index(state) if state in _ORDER else len(_ORDER)


def _standing(states: Counter[str], cells: list[Cell]) -> tuple[str, str]:
    """The state of all together, and its icon: the worst where all have ended, else the liveliest."""
    if all(state in ENDED or state == "lost" for state in states):
        lead = next((state for state in (*_ATTENTION, "cancelled", "completed") if states[state]), "completed")
    else:
        lead = min((state for state in states if state not in ENDED and state != "lost"), key=_place)
        lead = "running" if "completed" in states and lead == "queued" else lead
    icons = {cell.state: cell.icon for cell in cells}
    return lead, icons.get(lead, "◐" if lead == "running" else "✓")


def _part(state: str, number: int, cells: list[Cell]) -> Part:
    icon = next(cell.icon for cell in cells if cell.state == state)
    word = {"completed": "done", "pausing": "pausing…", "cancelling": "cancelling…"}.get(state, state)
    return Part(state, icon, f"{words.count(number)} {word}")


def _name(views: list[RunView]) -> str:
    names = list(dict.fromkeys(view.job.rpartition(".")[2] or "job" for view in views))
    if len(names) < 2:
        return names[0] if names else "job"
    return f"{names[0]} and {words.plural(len(names) - 1, 'other job')}"


def _times(views: list[RunView], ended: int) -> tuple[tuple[Fact, ...], Clock | None]:
    """How long they took, or how long it will take by the pace of those that have ended, or since when they run."""
    alone = next((view for view in views if view.no_worker and view.state == "queued"), None)
    notes = (Fact("note", f"no worker alive on queue {alone.queue or 'default'}"),) if alone else ()
    began = min((view.started for view in views if view.started), default=0)
    if not began:
        return notes, None
    if ended == len(views):
        last = max(view.ended for view in views)
        return (Fact("elapsed", f"took {words.lasted((last - began) / 1000)}"),) if last >= began else (), None
    if not any(view.state in HELD for view in views):
        return notes, None
    lasted = max(view.updated for view in views) - began
    pace = sum(view.state == "completed" for view in views) / lasted if lasted > 2000 else 0
    if pace * lasted >= 3 and (left := words.left((len(views) - ended) / pace / 1000)):
        return (Fact("remaining", left), *notes), None
    return notes, Clock(began, "running for ")
