"""Cards as rich draws them: of one run, of several, and a table of runs.

An output that has ASCII only gets no other character.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from . import words
from .face import Bar, Face
from .health import Finding
from .listing import Row
from .summary import Summary

__all__ = ["WIDTH", "Card", "Overview", "ascii_only", "diagnosis", "table"]

WIDTH = 72
FAILURES = 5  # that an overview tells one by one

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
        yield from _fitted(_lines(self.face, width), width, options)


class Overview:
    """Several runs as rich draws them: counts, a bar, a sign for each run, and what failed."""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield its lines, none wider than the terminal."""
        width = min(WIDTH, options.max_width)
        yield from _fitted(_overview(self.summary, width), width, options)


def _fitted(lines: Iterable[Text], width: int, options: ConsoleOptions) -> RenderResult:
    for line in lines:
        fitting = ascii_only(line) if options.ascii_only else line
        fitting.truncate(width, overflow="ellipsis" if not options.ascii_only else "crop")
        yield fitting


def _overview(shown: Summary, width: int) -> Iterable[Text]:
    style = _STYLES.get(shown.state, _QUIET)
    yield Text.assemble((shown.icon, style), " ", (shown.name, "bold"), "  ", shown.headline)
    yield _bar_of_all(shown, width)
    parts = [Text.assemble((part.icon, _STYLES.get(part.state, _QUIET)), " ", part.text) for part in shown.parts]
    yield Text(" · ").join([*parts, *(Text(fact.text) for fact in shown.facts)])
    for first in range(0, len(shown.cells), width):
        cells = shown.cells[first : first + width]
        yield Text.assemble(*((cell.icon, _STYLES.get(cell.state, _QUIET)) for cell in cells))
    failed = [cell for cell in shown.cells if cell.state in ("failed", "dead", "lost")]
    for cell in failed[:FAILURES]:
        yield Text(f"{cell.icon} {cell.text}", style="red")


def _bar_of_all(shown: Summary, width: int) -> Text:
    """Red is what failed, of what has ended; the rest of what is done has the colour of its state."""
    cells = max(8, width - 6)
    failed, done = round(shown.failed * cells), round(shown.done * cells)
    line = Text("█" * failed, style="red")
    line.append("█" * (done - failed), style="green" if shown.over else "cyan")
    line.append("─" * (cells - max(failed, done)), style=_QUIET)
    return line.append(f" {shown.percent:>5}")


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


def ascii_only(line: Text) -> Text:
    """The line in ASCII: signs have a letter each, any other character is a question mark."""
    text = line.plain.translate(_TO_ASCII).encode("ascii", "replace").decode()
    return Text(text, style=line.style)


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


_SIGNS = {"ok": ("✓", "green"), "unknown": ("?", _QUIET), "warning": ("!", "yellow"), "error": ("✕", "red")}


def diagnosis(findings: Sequence[Finding]) -> Group:
    """Return what a doctor has found: a line for each check, what to do under it, and the sum."""
    rows = Table.grid(padding=(0, 1))
    rows.add_column(width=1)
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    for one in findings:
        sign, style = _SIGNS[one.level]
        text = Text(one.found)
        if one.advice:
            text.append(f"\n{one.advice}", style="bold")
        rows.add_row(Text(sign, style), Text(one.check, _QUIET), text)
    counts = [(level, sum(one.level == level for one in findings)) for level in ("error", "warning")]
    found = ", ".join(words.plural(count, level) for level, count in counts if count) or "nothing to do"
    return Group(rows, Text(f"\n{found}", "bold"))
