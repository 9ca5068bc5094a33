"""How a run looks where nothing can move: as text and as HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from nbjobs.details import details
from nbjobs.face import Face, face
from nbjobs.view import AttemptView
from nbjobs.widgets import saved

from .widgets.faces import views

NOW = 1_795_000_000_000
TRACEBACK = """Traceback (most recent call last):
  File "/home/somebody/shop/orders.py", line 7, in load
    price = row[13]
ValueError: row 12,432: expected 14 columns, found 13
"""
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</div></script><script>alert(1)</script>",
    "\"' onmouseover=alert(1) x='",
    "<b id=MathJax data-commandlinker-command=x>{{7*7}}",
    "expression(alert(1))&#60;svg onload=x&#62;",
]


def made(name: str) -> Face:
    return face(views(NOW)[name])


class Tags(HTMLParser):
    """Collects what a browser would make of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.styles: list[str] = []
        self.data = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.styles += [value or "" for name, value in attrs if name == "style"]

    def handle_data(self, data: str) -> None:
        self.data += data


def test_text_says_how_a_run_ended() -> None:
    """A run that completed is told in two lines: what it is, and what it did."""
    assert saved.text(made("completed")).splitlines() == [
        "✓ import_orders  done",
        "20,000 of 20,000 · took 1 min 36 s · resumed once at 8,000",
    ]


def test_text_tells_the_error_of_a_failed_run_and_how_to_go_on() -> None:
    """A failed run says what was raised, and then how to take it up again."""
    assert saved.text(made("failed")).splitlines()[-2:] == [
        "ValueError: row 12,432: expected 14 columns, found 13",
        "nbjobs.attach('r-failed').retry() goes on where it stopped",
    ]


def test_html_unfolds_to_steps_and_attempts() -> None:
    """What the opened card lists is there without a script; the user's own line is shown, no file's path."""
    attempt = AttemptView(no=1, began=NOW - 60_000, ended=NOW, worker="w-7", step="load_rows", done=8000)
    view = replace(views(NOW)["failed"], traceback=TRACEBACK, memory=3 << 20, attempts=(attempt,))
    html = saved.html(face(view), details(view))
    unfolded = html[html.index("<details") : html.index("</details>")]
    assert "<summary>2 steps</summary>" in unfolded
    for told in (
        "prepare",
        "420 ms",
        "load rows",
        "12,431 of 20,000",
        "Attempt 1, resumed at load rows, cursor 8,000",
        "Peak memory",
        "3 MB",
    ):
        assert told in unfolded
    assert "in load, line 7 of orders.py: price = row[13]" in html
    assert "/home/" not in html


def test_a_run_under_way_says_since_when_and_how_to_attach() -> None:
    """What was saved before the end points to the live card."""
    for form in (saved.text, saved.html):
        told = form(made("resumed"))
        assert re.search(r"under way since \d{4}-\d\d-\d\d \d\d:\d\d", told)
        assert "nbjobs.attach(" in told
        assert "under way" not in form(made("completed"))


def test_what_ages_is_not_saved() -> None:
    """A rate, or "36 s left", would be untrue when the notebook is opened again."""
    assert "left" in made("resumed").facts[2].text
    for form in (saved.text, saved.html):
        told = form(made("resumed"))
        assert "12,431 of 20,000 · resumed once at 8,000" in told
        assert "left" not in told


@pytest.mark.parametrize("name", list(views(NOW)))
def test_both_forms_use_the_words_of_the_face(name: str) -> None:
    """Name, headline, percent, facts and error stand in text and HTML just as in the card, but for what ages."""
    shown = made(name)
    text, html = saved.text(shown), Tags(saved.html(shown)).data
    ageing = () if shown.ended else ("rate", "remaining")
    facts = (fact.text for fact in shown.facts if fact.kind not in ageing)
    for words in (shown.name, shown.headline, shown.percent, shown.error, *facts):
        assert words in text
        assert words in html


@pytest.mark.parametrize("name", list(views(NOW)))
def test_html_has_no_part_that_acts(name: str) -> None:
    """Only boxes, text and what unfolds, no attribute but style: nothing for a sanitizer to take out."""
    view = views(NOW)[name]
    tags = Tags(saved.html(face(view), details(view)))
    assert set(tags.tags) <= {"div", "span", "b", "details", "summary"}
    assert tags.attributes == {"style"}


@pytest.mark.fault(44)
@pytest.mark.parametrize("bad", HOSTILE)
def test_hostile_text_is_shown_and_stays_text(bad: str) -> None:
    """Markup in any field adds no element, no attribute and no style."""
    plain = made("failed")
    facts = tuple(replace(fact, text=bad) for fact in plain.facts)
    words = dict.fromkeys(("name", "headline", "percent", "error", "icon", "state"), bad)
    hostile = replace(plain, facts=facts, ended=False, **words)
    good, got = Tags(saved.html(replace(plain, ended=False))), Tags(saved.html(hostile))
    assert (got.tags, got.attributes) == (good.tags, good.attributes)
    assert bad in got.data
    assert not any("alert" in style for style in got.styles)
