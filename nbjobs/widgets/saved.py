"""A run as text and as HTML: what a saved notebook, nbconvert and a reader without JavaScript show.

The same words as the card's, without those that age. The HTML is one block without script, class or style
sheet; its inline styles hold nothing but our own constants and numbers, its text is escaped.

    >>> from nbjobs.face import face
    >>> from nbjobs.view import empty
    >>> print(text(face(empty("r1", "shop.import_orders"))))
    ○ import_orders  queued
    under way; nbjobs.attach('r1') shows it live
"""

from __future__ import annotations

from datetime import datetime
from html import escape

from .. import words
from ..details import Details
from ..face import Bar, Face
from ..summary import Cell, Summary

__all__ = ["html", "html_of_all", "text", "text_of_all"]

_ACCENTS = {
    "running": "var(--jp-brand-color1,#1976d2)",
    "retrying": "var(--jp-warn-color0,#e65100)",
    "completed": "var(--jp-success-color1,#388e3c)",
    "failed": "var(--jp-error-color1,#d32f2f)",
    "dead": "var(--jp-error-color1,#d32f2f)",
}
_AGEING = frozenset(("rate", "remaining", "elapsed", "wait"))  # untrue by the time it is read
_QUIET = "var(--jp-ui-font-color2,inherit)"
_EDGE = "var(--jp-border-color1,rgba(128,128,128,.6))"
_STEPS = {"running": "◐", "done": "✓", "stopped": "‖", "failed": "✕"}
_PLACES = frozenset(("Queue", "Worker"))  # of no use to who reads it later or elsewhere
_MOST_FAILURES = 10
_MOST_LINES = 200
_CARD = (
    "box-sizing:border-box;max-width:45rem;margin:2px 0;padding:3px 10px;"
    "border:1px solid var(--jp-border-color2,rgba(128,128,128,.4));border-radius:2px;"
    "font-family:var(--jp-ui-font-family,system-ui,sans-serif);"
    "font-size:var(--jp-ui-font-size1,13px);line-height:18px;font-variant-numeric:tabular-nums"
)
_ICON = "display:inline-block;width:14px;margin-right:3px;text-align:center"
_SMALL = f"font-size:12px;line-height:16px;min-height:16px;color:{_QUIET}"
_ERROR = "font-family:var(--jp-code-font-family,monospace);font-size:12px;line-height:16px;overflow-wrap:anywhere"


def text(face: Face) -> str:
    """The run in a few lines of plain text."""
    first = "  ".join(part for part in (f"{face.icon} {face.name}", face.headline, face.percent) if part)
    return "\n".join(line for line in (first, _facts(face), face.error, _next(face)) if line)


def html(face: Face, details: Details | None = None, *, unfolded: bool = False) -> str:
    """The run as one block of HTML of the card's size, everything in it escaped; steps and attempts unfold."""
    accent = _ACCENTS.get(face.state, _QUIET)
    parts = [
        f"<div>{_head(face.icon, face.name, face.headline, accent)}</div>",
        _bar(face.bar, escape(face.percent), accent),
    ]
    facts = _facts(face)
    if facts or face.ended:
        parts.append(_line(_SMALL, facts))
    if face.error:
        parts.append(_line(_ERROR, face.error))
    if details and details.error and details.error.place:
        error = details.error
        parts.append(_line(_ERROR, f"in {error.place}{f': {error.code}' if error.code else ''}"))
    if following := _next(face):
        parts.append(_line(_SMALL, following))
    parts += _folded(face, details, unfolded=unfolded)
    return f'<div style="{_CARD}">{"".join(parts)}</div>'


def _line(style: str, text: str) -> str:
    return f'<div style="{style}">{escape(text)}</div>'


def _folded(face: Face, details: Details | None, *, unfolded: bool) -> list[str]:
    """What a reader may want besides: the steps, the attempts, what it used. No clock runs in a saved page."""
    steps = [step for step in face.steps if step.state != "coming"]
    rows = [(_STEPS.get(step.state, ""), step.title, step.note, step.duration) for step in steps]
    if details:
        rows += [("", attempt.text, "", attempt.duration) for attempt in details.attempts]
        rows += [("", row.label, "", row.text) for row in details.facts if row.text and row.label not in _PLACES]
    if not rows:
        return []
    lines = "".join(map(_row, rows))
    what = words.plural(len(steps), "step") if steps else "More"
    opened = " open" if unfolded else ""
    return [f'<details{opened} style="{_SMALL}"><summary>{escape(what)}</summary>{lines}</details>']


def _row(row: tuple[str, str, str, str]) -> str:
    icon, left, note, right = map(escape, row)
    note = f' <span style="color:{_QUIET}">{note}</span>' if note else ""
    return (
        f'<div style="display:flex;gap:8px"><span style="{_ICON}">{icon}</span>'
        f'<span style="flex:1;overflow-wrap:anywhere">{left}{note}</span><span>{right}</span></div>'
    )


def text_of_all(summary: Summary) -> str:
    """Several runs in plain text: how many are in which state, and what became of those that failed."""
    first = "  ".join(part for part in (f"{summary.icon} {summary.name}", summary.headline, summary.percent) if part)
    worst, more = _worst(summary)
    lines = [first, _counts(summary), *(f"{cell.icon} {cell.text}" for cell in worst), more, _attach_all(summary)]
    return "\n".join(line for line in lines if line)


def html_of_all(summary: Summary) -> str:
    """Several runs as one block of HTML, everything in it escaped; the lines of all of them unfold."""
    accent = _ACCENTS.get(summary.state, _QUIET)
    worst, more = _worst(summary)
    lines = "".join(f"<div>{escape(cell.icon)} {escape(cell.text)}</div>" for cell in summary.cells[:_MOST_LINES])
    small = [f'<div style="{_SMALL}">{escape(line)}</div>' for line in (more, _attach_all(summary)) if line]
    parts = [
        f"<div>{_head(summary.icon, summary.name, summary.headline, accent)}</div>",
        _bar_of_all(summary),
        f'<div style="{_SMALL}">{escape(_counts(summary))}</div>',
        *(f'<div style="{_ERROR}">{escape(cell.icon)} {escape(cell.text)}</div>' for cell in worst),
        *small,
        f'<details style="{_SMALL}"><summary>All runs</summary>{lines}</details>',
    ]
    return f'<div style="{_CARD}">{"".join(parts)}</div>'


def _bar_of_all(summary: Summary) -> str:
    """What failed and what is done, of all."""
    failed, rest = 100 * summary.failed, 100 * max(0.0, summary.done - summary.failed)
    accent = _ACCENTS["completed" if summary.over else "running"]
    shares = "".join(
        f'<div style="width:{share:.2f}%;background:{colour}"></div>'
        for share, colour in ((failed, _ACCENTS["failed"]), (rest, accent))
    )
    return _progress(f'<div style="display:flex;height:6px">{shares}</div>', escape(summary.percent))


def _worst(summary: Summary) -> tuple[list[Cell], str]:
    """The lines of those that failed, and what is said of the rest of them."""
    failed = [cell for cell in summary.cells if cell.state in ("failed", "dead", "lost")]
    more = len(failed) - _MOST_FAILURES
    return failed[:_MOST_FAILURES], f"and {more:,} more that failed" if more > 0 else ""


def _counts(summary: Summary) -> str:
    kept = (fact.text for fact in summary.facts if summary.over or fact.kind not in _AGEING)
    return " · ".join([*(part.text for part in summary.parts), *kept])


def _attach_all(summary: Summary) -> str:
    if summary.over:
        return ""
    return f"under way{_since(summary.begun)}; nbjobs.runs() lists them"


def _head(icon: str, name: str, headline: str, accent: str) -> str:
    return (
        f'<span style="{_ICON};color:{accent}">{escape(icon)}</span> '
        f'<b style="margin-right:6px">{escape(name)}</b> {escape(headline)}'
    )


def _facts(face: Face) -> str:
    kept = (fact.text for fact in face.facts if face.ended or fact.kind not in _AGEING)
    return " · ".join(kept)


def _next(face: Face) -> str:
    """Since when a run was under way and how to see what became of it; how to take up one that failed."""
    if face.state in ("failed", "dead", "cancelled"):
        return f"nbjobs.attach({face.run!r}).retry() goes on where it stopped"
    return "" if face.ended else f"under way{_since(face.begun)}; nbjobs.attach({face.run!r}) shows it live"


def _since(begun: int) -> str:
    return f" since {datetime.fromtimestamp(begun / 1000):%Y-%m-%d %H:%M}" if begun else ""


def _bar(bar: Bar | None, percent: str, accent: str) -> str:
    if bar is None or bar.done is None:
        return _progress("", percent)
    done = f'<div style="width:{100 * bar.done:.2f}%;height:6px;background:{accent}">{_earlier(bar, accent)}</div>'
    return _progress(done, percent)


def _progress(done: str, percent: str) -> str:
    """The bar's line: what is done of it in a frame, or a bare line where there is nothing to fill."""
    if done:
        line = (
            f'<div style="flex:1;box-sizing:border-box;height:8px;overflow:hidden;border:1px solid {_EDGE};'
            f'border-radius:2px;background:var(--jp-layout-color2,rgba(128,128,128,.15))">{done}</div>'
        )
    else:
        line = f'<div style="flex:1;height:1px;background:{_EDGE}"></div>'
    number = f'<div style="width:5ch;font-size:12px;text-align:right">{percent}</div>'
    return f'<div style="display:flex;align-items:center;gap:8px;height:14px">{line}{number}</div>'


def _earlier(bar: Bar, accent: str) -> str:
    """The hatched share of earlier attempts, inside of what is done."""
    if not bar.done or not bar.earlier:
        return ""
    share = 100 * min(1.0, bar.earlier / bar.done)
    return (
        f'<div style="box-sizing:border-box;width:{share:.2f}%;height:6px;'
        "border-right:2px solid var(--jp-info-color1,#0097a7);background:repeating-linear-gradient(-45deg,"
        f'{accent} 0 2px,var(--jp-layout-color1,Canvas) 2px 4px)"></div>'
    )
