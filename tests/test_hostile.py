"""Sixty texts that want to be more than text, in every field that is shown, on the surfaces without a browser."""

from __future__ import annotations

import io
import json
import re

import msgspec
import pytest
from msgspec.structs import replace
from rich.console import Console

from nbjobs import listing
from nbjobs.details import Output, details
from nbjobs.face import face
from nbjobs.intake import text
from nbjobs.runview import RunView
from nbjobs.summary import Several
from nbjobs.terminal import Card, Screen, table
from nbjobs.view import fold
from nbjobs.widgets import display

from .entries import d
from .hostile import HARMLESS, HOSTILE
from .test_saved import Tags
from .widgets.shown import REASONS, bases, filled, marked, texts

PLACES = set(marked(RunView))
FILL = PLACES - {"after", "attempts.reason"}
BAD = [pytest.param(bad, id=name) for name, bad in HOSTILE.items()]
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def told(view: RunView) -> str:
    """All words that any surface has of a run."""
    summary = Several([view]).summary()
    parts = (face(view), details(view, Output(0, ())), summary)
    return json.dumps([msgspec.to_builtins(part) for part in parts], ensure_ascii=False)


def test_there_are_sixty() -> None:
    """And the largest has a megabyte."""
    assert len(HOSTILE) == 60
    assert max(map(len, HOSTILE.values())) == 1 << 20


def test_the_schema_marks_what_is_shown() -> None:
    """A text of a view that reaches any surface is marked in its schema, and one that is marked reaches one."""
    marker = "wherever7041"
    found = {
        place for place in texts(RunView) for view in bases().values() if marker in told(filled(view, {place}, marker))
    }
    ours = {"run", "state", "steps.state", "marks"}  # ids and names of our own
    assert found - ours == PLACES


@pytest.mark.fault(44)
@pytest.mark.parametrize("bad", BAD)
def test_saved_output_stays_text(bad: str) -> None:
    """No element, attribute or style more in HTML than with harmless texts, and the text as it came in."""
    needle = text(bad)
    for name in ("failed, opened", "retrying, opened", "changed"):
        plain = display.bundle(filled(bases()[name], FILL, HARMLESS))
        made = display.bundle(filled(bases()[name], FILL, bad))
        good, got = Tags(plain["text/html"]), Tags(made["text/html"])
        assert (got.tags, got.attributes) == (good.tags, good.attributes)
        assert not any("alert" in style or "evil" in style for style in got.styles)
        assert needle in got.data
        assert needle in made["text/plain"]
        assert not _CONTROL.search(made["text/plain"] + got.data)
    several = Several([filled(replace(bases()["failed"], run=f"r{n}"), FILL, bad) for n in range(3)]).summary()
    got = Tags(display.bundle_of_all(several)["text/html"])
    assert set(got.tags) == {"div", "span", "b", "details", "summary"}
    assert needle[:100] in got.data


@pytest.mark.fault(44)
@pytest.mark.parametrize("bad", BAD)
def test_a_terminal_prints_it(bad: str) -> None:
    """No control sequence but rich's own colours, no markup read, and no character lost, in place and line by line."""
    needle = "".join(text(bad).split())
    view = filled(bases()["failed, opened"], FILL, bad)
    for terminal in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=terminal, width=2000, highlight=False, color_system="truecolor")
        console.print(Card(face(view)))
        line = Screen(Console(file=screen, force_terminal=False, width=80))
        line.show(view)
        printed = _STYLE.sub("", screen.getvalue())
        assert not _CONTROL.search(printed)
        assert "".join(printed.split()).count(needle[:60]) >= 3


@pytest.mark.fault(44)
@pytest.mark.parametrize("bad", BAD)
def test_events_bring_it_in_as_text(bad: str) -> None:
    """Folded from events a text is cleaned and cut, whatever field of the payload it stands in."""
    payload = dict.fromkeys(("job", "queue", "worker", "step", "note", "description", "signal", "result_preview"), bad)
    error = {"type": bad, "message": bad, "traceback": [bad]}
    view = RunView(run="r1")
    for n, (name, state) in enumerate(
        (
            ("job.enqueued", "queued"),
            ("job.started", "running"),
            ("job.step_started", "running"),
            ("job.failed", "failed"),
        ),
        1,
    ):
        view = fold(
            view, {"e": name, "id": "r1", "a": "1", "n": str(n), "s": state, "d": d({**payload, "exception": error})}
        )
    shown = told(view)
    assert not _CONTROL.search(json.loads(json.dumps(shown)).replace("\\n", ""))
    assert len(shown) < 20_000


def test_reasons_are_words_of_ours() -> None:
    """An unknown one is shown only where it is the only word of a failure."""
    for name, view in bases().items():
        made = filled(view, {"after", "attempts.reason"}, HOSTILE["image"])
        assert display.bundle(made)["text/html"].count("<img") == 0, name
    assert set(REASONS) == {"after", "reason"}


@pytest.mark.fault(44)
def test_a_list_of_runs_is_clean() -> None:
    """What `nbjobs runs` prints of a hash is cleaned as what is folded from events."""
    for bad in HOSTILE.values():
        row = listing._row("r1", 0, [bad, "running", "0", "1", "0", bad, "1", "2", bad, "0"], 0)
        screen = io.StringIO()
        Console(file=screen, width=400).print(table([row]))
        assert not _CONTROL.search(screen.getvalue() + row.queue)
