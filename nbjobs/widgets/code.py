"""The cards' scripts and style sheets: sent to a page once for each kernel, however many cards it shows.

A widget's model carries its whole script. So the script is carried by a model that is never shown, and a card's own
script, `stub.js`, asks for that one's exports.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets  # type: ignore[import-untyped]

__all__ = ["HERE", "STUB", "CardCode", "code", "layout"]

HERE = Path(__file__).parent
STUB = HERE / "stub.js"


class CardCode(anywidget.AnyWidget):
    """The code of the cards of single runs."""

    _esm = HERE / "card.js"
    _css = HERE / "card.css"


_open: dict[type[anywidget.AnyWidget], Any] = {}


def code(kind: type[anywidget.AnyWidget] = CardCode) -> Any:
    """The model of this kernel that carries the code of this kind; made with the first card that wants it."""
    made = _open.get(kind)
    if made is None or made.comm is None:  # none yet, or somebody closed all widgets
        made = _open[kind] = kind(layout=layout())
    return made


@lru_cache(maxsize=1)
def _layout() -> ipywidgets.Layout:
    return ipywidgets.Layout()


def layout() -> ipywidgets.Layout:
    """One layout model for all cards: each would cost a message and a model in the browser."""
    if _layout().comm is None:
        _layout.cache_clear()
    return _layout()
