"""The card in a terminal: the same words as in the notebook, in place.

    with Screen() as screen:
        screen.show(view)

More runs than the window has room for are one overview, with the cards of those that are running. Where the output is
no terminal, each change of state, step or mark is one line. ``NO_COLOR`` is respected.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType

import msgspec
from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.text import Text

from .face import Face, face
from .listing import attach, runs
from .rendering import Card, Overview, ascii_only, table
from .run import Run
from .runview import HELD
from .stream import Follower, follower
from .summary import Several
from .view import RunView

__all__ = ["Card", "Overview", "Screen", "show", "table", "watch"]

REFRESH = 0.05  # s between two drawings, where nothing but progress has changed
LOOK = 1.0  # s between two looks for new runs


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
        self._width = self.console.width
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
        line = ascii_only(Text(text)) if self.console.options.ascii_only else Text(text)
        self.console.print(line, soft_wrap=self._live is None)

    def _cards(self) -> Group:
        width, before = self.console.width, self._width
        self._width = width
        if width < before and self._live is not None:  # what was drawn is wrapped now, and cannot be drawn over
            self.console.control(Control.clear(), Control.home())
        views, now = list(self._views.values()), self._now()
        faces = [face(view, now=now) for view in views]
        room = self.console.height - 1
        if sum(map(_rows, faces)) + len(faces) - 1 <= room:
            return Group(*_apart([Card(one) for one in faces]))
        overview = Overview(Several(views).summary())
        room -= len(self.console.render_lines(overview))
        blocks: list[Card | Overview] = [overview]
        for one in faces:
            if one.state in HELD and (room := room - 1 - _rows(one)) >= 0:
                blocks.append(Card(one))
        return Group(*_apart(blocks))

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


def _rows(shown: Face) -> int:
    """How many lines a card has."""
    return 1 + (shown.bar is not None) + bool(shown.facts) + bool(shown.error)


def _apart(blocks: Sequence[Card | Overview]) -> Iterator[Card | Overview | Text]:
    """The blocks, with an empty line between two."""
    for number, block in enumerate(blocks):
        if number:
            yield Text()
        yield block


def show(*views: RunView, console: Console | None = None) -> None:
    """Print how runs stand now: one as its card, several as an overview."""
    console = console or Console(highlight=False)
    now = round(time.time() * 1000)
    console.print(Card(face(views[0], now=now)) if len(views) == 1 else Overview(Several(views).summary()))


class JsonScreen(Screen):
    """Prints each change as the JSON of a face, one object a line."""

    def __enter__(self) -> JsonScreen:
        return self

    def say(self, text: str) -> None:
        """Print nothing: it is for people."""

    def _print(self, shown: Face, text: str) -> None:
        print(msgspec.json.encode(shown).decode(), flush=True)


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
        new = [run.id for run in found if run.id not in self._states]
        self._states.update(dict.fromkeys(new, ""))
        for watch in self._source.watch_all(new, self._views.put):
            self._stack.enter_context(watch)
