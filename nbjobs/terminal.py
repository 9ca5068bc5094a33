"""The card in a terminal: the same words as in the notebook, drawn with rich.

    with Screen() as screen:
        screen.show(view)

Where the output is no terminal, each change of state, step or mark is one line. ``NO_COLOR`` is respected, and a
terminal that has ASCII only gets no other character.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from . import words
from .face import Bar, Face, face
from .listing import Row, attach, runs
from .run import Run
from .stream import Follower, follower
from .view import RunView

__all__ = ["Card", "Screen", "table", "watch"]

WIDTH = 72
REFRESH = 0.05  # s between two drawings, where nothing but progress has changed
LOOK = 1.0  # s between two looks for new runs

_STYLES = {
    "running": "cyan",
    "retrying": "yellow",
    "pausing": "yellow",
    "paused": "yellow",
    "completed": "green",
    "failed": "red",
    "dead": "red",
    "lost": "red",
}
_QUIET = "bright_black"
_ASCII = {
    "◷": "@", "○": "o", "◐": "*", "↻": "~", "‖": "=", "⊘": "0", "✓": "+", "✕": "x",
    "·": "-", "…": "...", "█": "#", "▒": "=", "┊": "|", "─": ".", "╌": ".",
}  # fmt: skip
_TO_ASCII = str.maketrans(_ASCII)


class Card:
    """A face as rich draws it: a line with state and step, the bar, the facts, and the error where there is one."""

    def __init__(self, face: Face) -> None:
        self.face = face

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield its lines, none wider than the terminal."""
        width = min(WIDTH, options.max_width)
        for line in _lines(self.face, width):
            if options.ascii_only:
                line = _ascii(line)
            line.truncate(width, overflow="ellipsis" if not options.ascii_only else "crop")
            yield line


def _lines(shown: Face, width: int) -> Iterable[Text]:
    style = _STYLES.get(shown.state, _QUIET)
    yield Text.assemble((shown.icon, style), " ", (shown.name, "bold"), "  ", shown.headline)
    if shown.bar is not None:
        yield _bar(shown.bar, shown.percent, width, style)
    facts = Text(" · ").join(Text(fact.text, style="magenta" if fact.kind == "resumed" else "") for fact in shown.facts)
    if shown.facts:
        yield facts
    if shown.error:
        yield Text(shown.error, style="red")


def _bar(bar: Bar, percent: str, width: int, style: str) -> Text:
    """Hatched is what earlier attempts did, solid what this one does; the notch is where it was resumed."""
    cells = max(8, width - 6)
    if bar.done is None:
        return Text("╌" * cells, style=_QUIET)
    done, earlier = int(bar.done * cells), int(bar.earlier * cells)
    line = Text("▒" * earlier, style=style)
    if bar.notch is not None and earlier < cells:
        line.append("┊", style="magenta")
    line.append("█" * (done - len(line)), style=style)
    line.append("─" * (cells - len(line)), style=_QUIET)
    return line.append(f" {percent:>5}")


def _ascii(line: Text) -> Text:
    text = line.plain.translate(_TO_ASCII).encode("ascii", "replace").decode()
    return Text(text, style=line.style)


class Screen:
    """Shows the cards of runs in a terminal, in place; elsewhere a line for each change.

    Args:
        console: of rich; by default one for standard output.
        now: the time in ms, by Redis' clock; by default this machine's.
    """

    def __init__(self, console: Console | None = None, *, now: Callable[[], int] | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._now = now or (lambda: round(time.time() * 1000))
        self._views: dict[str, RunView] = {}
        self._told: dict[str, tuple[object, ...]] = {}
        self._drawn = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console, get_renderable=self._cards, refresh_per_second=4, vertical_overflow="crop"
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, view: RunView) -> None:
        """Show a run as it stands now. A new state is on the screen when this returns."""
        before = self._views.get(view.run)
        self._views[view.run] = view
        if self._live is None:
            self._tell(view)
        elif before is None or before.n != view.n or time.monotonic() - self._drawn > REFRESH:
            self._live.refresh()
            self._drawn = time.monotonic()

    def tick(self) -> None:
        """Tell what has come by time alone; where cards are drawn in place that happens by itself."""
        if self._live is None:
            for view in self._views.values():
                self._tell(view)

    def say(self, text: str) -> None:
        """Print a line, above the cards."""
        line = _ascii(Text(text)) if self.console.options.ascii_only else Text(text)
        self.console.print(line, soft_wrap=self._live is None)

    def _cards(self) -> Group:
        now = self._now()
        cards: list[Card | Text] = []
        for view in self._views.values():
            cards += [Text(), Card(face(view, now=now))] if cards else [Card(face(view, now=now))]
        return Group(*cards)

    def _tell(self, view: RunView) -> None:
        shown = face(view, now=self._now())
        marks = tuple(mark for mark in shown.marks if mark != "stale")
        before = self._told.get(view.run, ("", "", 0, ()))
        between = not shown.step and (before[0], before[2]) == (shown.state, shown.resumed)
        told = (shown.state, before[1] if between else shown.step, shown.resumed, marks)
        if told == before:
            return
        self._told[view.run] = told
        skipped = ("wait", "rate", "remaining", "" if shown.ended else "elapsed")
        facts = [fact.text for fact in shown.facts if fact.kind not in skipped]
        parts = [shown.headline, shown.percent, *facts, shown.error]
        self._print(shown, f"{shown.icon} {shown.name}  {' · '.join(part for part in parts if part)}")

    def _print(self, shown: Face, text: str) -> None:
        self.say(text)


class JsonScreen(Screen):
    """Prints each change as the JSON of a face, one object a line."""

    def __enter__(self) -> JsonScreen:
        return self

    def say(self, text: str) -> None:
        """Print nothing: it is for people."""

    def _print(self, shown: Face, text: str) -> None:
        print(msgspec.json.encode(shown).decode(), flush=True)


def table(found: Iterable[Row]) -> Table:
    """Return a list of runs as rich draws it."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("RUN", "JOB", "STATE", "PROGRESS", "CHANGED"):
        drawn.add_column(column, no_wrap=True, overflow="ellipsis" if column in ("JOB", "PROGRESS") else "fold")
    now = time.time() * 1000
    for row in found:
        state = Text(row.state, style=_STYLES.get(row.state, _QUIET))
        changed = f"{words.lasted(max(0.0, (now - row.changed) // 1000))} ago"
        drawn.add_row(Text(row.id), Text(row.job.rpartition(".")[2]), state, Text(_progress(row)), changed)
    return drawn


def _progress(row: Row) -> str:
    """How far it is, in words: ``load_rows 1,200 of 5,000``."""
    if not row.step or row.state == "completed":
        return ""
    counted = "" if row.done is None else f" {words.count(row.done)}"
    return f"{row.step}{counted}{f' of {words.count(row.total)}' if counted and row.total else ''}"


def watch(*run_ids: str | None, user: str | None = None, console: Console | None = None, json: bool = False) -> bool:
    """Show runs until they have ended; return whether all of them completed.

    Args:
        run_ids: which; without any, those of the user that have not ended, and those that are enqueued meanwhile.
        user: whose; by default yours.
        console: of rich; by default one for standard output.
        json: print each change as a JSON object, one a line.

    Raises:
        RunNotFound: the user has no such run.
    """
    wanted = [attach(run_id, user=user) for run_id in run_ids if run_id]
    found = wanted or _under_way(user)
    make = JsonScreen if json else Screen
    if not found:
        make(console).say("No run is under way. To see one that has ended: nbjobs watch <its id>")
        return True
    source = follower(found[0].user)
    with ExitStack() as stack:
        screen = stack.enter_context(make(console, now=source.now))
        watched = _Watched(source, stack, screen)
        try:
            watched.follow(found, None if wanted else user or found[0].user)
        except KeyboardInterrupt:
            screen.say(f"What is under way goes on. To see it again: nbjobs watch {found[0].id}")
    return watched.completed


def _under_way(user: str | None) -> list[Run]:
    return [run for run in runs(user=user, limit=20) if run.state not in _OVER]


_OVER = ("completed", "failed", "cancelled", "dead", "lost")


class _Watched:
    """The runs that `watch` shows: the follower's thread hands their views over to this one."""

    def __init__(self, source: Follower, stack: ExitStack, screen: Screen) -> None:
        self._source = source
        self._stack = stack
        self._screen = screen
        self._views: queue.SimpleQueue[RunView] = queue.SimpleQueue()
        self._states: dict[str, str] = {}

    @property
    def completed(self) -> bool:
        """Whether all have completed."""
        return all(state == "completed" for state in self._states.values())

    def follow(self, found: list[Run], user: str | None) -> None:
        """Show the runs, and with a user also those that come, until all have ended."""
        self._add(found)
        looked = time.monotonic()
        while not all(state in _OVER for state in self._states.values()):
            try:
                view = self._views.get(timeout=0.25)
            except queue.Empty:
                self._screen.tick()
            else:
                self._states[view.run] = view.state
                self._screen.show(view)
            if user is not None and time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                self._add(_under_way(user))

    def _add(self, found: list[Run]) -> None:
        for run in found:
            if run.id not in self._states:
                self._states[run.id] = ""
                self._stack.enter_context(self._source.watch(run.id, self._views.put))
