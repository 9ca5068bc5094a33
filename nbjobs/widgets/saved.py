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

from ..face import Bar, Face

__all__ = ["html", "text"]

_ACCENTS = {
    "running": "var(--jp-brand-color1,#1976d2)",
    "retrying": "var(--jp-warn-color0,#e65100)",
    "completed": "var(--jp-success-color1,#388e3c)",
    "failed": "var(--jp-error-color1,#d32f2f)",
    "dead": "var(--jp-error-color1,#d32f2f)",
}
_AGEING = frozenset(("rate", "remaining", "elapsed", "wait"))  # untrue by the time it is read
_QUIET = "var(--jp-ui-font-color2,#757575)"
_EDGE = "var(--jp-border-color1,#bdbdbd)"
_CARD = (
    "box-sizing:border-box;max-width:45rem;margin:2px 0;padding:3px 10px;"
    "border:1px solid var(--jp-border-color2,#e0e0e0);border-radius:2px;"
    "font-family:var(--jp-ui-font-family,system-ui,sans-serif);"
    "font-size:var(--jp-ui-font-size1,13px);line-height:18px;font-variant-numeric:tabular-nums"
)
_ICON = "display:inline-block;width:14px;margin-right:3px;text-align:center"
_SMALL = f"font-size:12px;line-height:16px;min-height:16px;color:{_QUIET}"
_ERROR = "font-family:var(--jp-code-font-family,monospace);font-size:12px;line-height:16px;overflow-wrap:anywhere"


def text(face: Face) -> str:
    """The run in a few lines of plain text."""
    first = "  ".join(part for part in (f"{face.icon} {face.name}", face.headline, face.percent) if part)
    return "\n".join(line for line in (first, _facts(face), face.error, _attach(face)) if line)


def html(face: Face) -> str:
    """The run as one block of HTML of the card's size, everything in it escaped."""
    accent = _ACCENTS.get(face.state, _QUIET)
    head = (
        f'<span style="{_ICON};color:{accent}">{escape(face.icon)}</span> '
        f'<b style="margin-right:6px">{escape(face.name)}</b> {escape(face.headline)}'
    )
    parts = [f"<div>{head}</div>", _bar(face.bar, escape(face.percent), accent)]
    facts = escape(_facts(face))
    if facts or face.ended:
        parts.append(f'<div style="{_SMALL}">{facts}</div>')
    if face.error:
        parts.append(f'<div style="{_ERROR}">{escape(face.error)}</div>')
    if not face.ended:
        parts.append(f'<div style="{_SMALL}">{escape(_attach(face))}</div>')
    return f'<div style="{_CARD}">{"".join(parts)}</div>'


def _facts(face: Face) -> str:
    kept = (fact.text for fact in face.facts if face.ended or fact.kind not in _AGEING)
    return " · ".join(kept)


def _attach(face: Face) -> str:
    """Since when the run was under way, and how to see what became of it."""
    if face.ended:
        return ""
    since = f" since {datetime.fromtimestamp(face.begun / 1000):%Y-%m-%d %H:%M}" if face.begun else ""
    return f"under way{since}; nbjobs.attach({face.run!r}) shows it live"


def _bar(bar: Bar | None, percent: str, accent: str) -> str:
    if bar is None or bar.done is None:
        line = f'<div style="flex:1;height:1px;background:{_EDGE}"></div>'
    else:
        line = (
            f'<div style="flex:1;box-sizing:border-box;height:8px;overflow:hidden;border:1px solid {_EDGE};'
            f'border-radius:2px;background:var(--jp-layout-color2,#eee)">'
            f'<div style="width:{100 * bar.done:.2f}%;height:6px;background:{accent}">'
            f"{_earlier(bar, accent)}</div></div>"
        )
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
        f'{accent} 0 2px,var(--jp-layout-color1,#fff) 2px 4px)"></div>'
    )
