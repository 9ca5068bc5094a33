"""The card of several runs in the kernel."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from nbjobs.summary import Several
from nbjobs.widgets import acting, saved
from nbjobs.widgets.code import HERE
from nbjobs.widgets.runs import RunsCard

from .support import wait_until
from .widgets.faces import views

VIEWS = views(1_795_000_000_000)
QUEUED, RUNNING, COMPLETED, FAILED = (VIEWS[name] for name in ("queued", "running", "completed", "failed"))


def numbered(*given: Any) -> Several:
    return Several(replace(view, run=f"r{number}") for number, view in enumerate(given, 1))


@pytest.fixture
def card() -> Iterator[RunsCard]:
    made = RunsCard(numbered(QUEUED, RUNNING, COMPLETED))
    yield made
    made.close()


def test_the_browser_is_told_words_and_ids_alone(card: RunsCard) -> None:
    """Synced are the summary, which run is open, and where the code is."""
    ours = {name for name in card.get_state() if not name.startswith("_")}
    assert ours == {"summary", "opened", "opened_run", "code", "card_code", "layout", "tabbable", "tooltip"}
    assert [cell["run"] for cell in card.summary["cells"]] == ["r1", "r2", "r3"] == list(card.run_ids)
    json.dumps(card.get_state())
    assert len(card.get_state()["_esm"]) < 640


def test_a_state_can_be_observed(card: RunsCard) -> None:
    """`card.observe(fn, "state")` and `"summary"` hear of each change."""
    seen: list[Any] = []
    card.observe(lambda change: seen.append(change.new), ["state"])
    card.feed(replace(FAILED, run="r1"))
    card.feed(replace(COMPLETED, run="r2"))
    wait_until(lambda: seen, 3, "the end is shown")
    assert seen[-1] == "failed" == card.state
    assert card.summary["ended"] == 3


def test_one_of_the_runs_is_shown_on_demand(card: RunsCard) -> None:
    """A message of the page opens the run's own card, which is fed from then on, and closes the one before."""

    def ask(run: str) -> None:
        card._handle_custom_msg({"kind": "open", "run": run}, [])
        wait_until(lambda: card.opened_run == run, 3, "the card is opened")

    ask("r2")
    first = card.opened
    assert first.run_id == "r2"
    card.feed(replace(COMPLETED, run="r2"))
    assert first.state == "completed"
    ask("r1")
    assert card.opened.run_id == "r1"
    wait_until(lambda: first.comm is None, 3, "the one before is closed")
    ask("")
    assert card.opened is None


@pytest.mark.parametrize(
    "message", [{"kind": "open", "run": "of somebody else"}, {"kind": "open", "run": 3}, {"run": "r1"}, "r1", None]
)
def test_a_page_can_ask_for_nothing_else(card: RunsCard, message: object) -> None:
    """Only a run of these can be opened, and no state can be set."""
    card._handle_custom_msg(message, [])
    done = threading.Event()
    acting.later(done.set)
    assert done.wait(3)
    card.set_state({"opened_run": "r1", "summary": {}})
    assert (card.opened, card.opened_run, card.summary["total"]) == (None, "", 3)


def test_repr_is_short(card: RunsCard) -> None:
    """The repr names number and state."""
    assert repr(card) == "<Card of 3 runs: running>"


def test_saved_forms_tell_how_many_and_what_failed() -> None:
    """Text and HTML have the counts, the failures with their errors, and when they were under way."""
    several = numbered(COMPLETED, FAILED, RUNNING)
    text, html = saved.text_of_all(several.summary()), saved.html_of_all(several.summary())
    assert text.splitlines()[0].startswith("◐ import_orders  3 runs  ")
    for form in (text, html):
        assert "1 failed · 1 running · 1 done" in form
        assert "#2 · failed in step 2 · load rows · ValueError: row 12,432: expected 14 columns" in form
        assert "under way since" in form
    several.take(replace(COMPLETED, run="r3"))
    assert "under way" not in saved.text_of_all(several.summary())


def test_saved_forms_name_ten_failures() -> None:
    """The rest is a number."""
    text = saved.text_of_all(numbered(*[FAILED] * 14).summary())
    assert text.count("\n✕ #") == 10
    assert "and 4 more that failed" in text


def test_the_two_style_sheets_share_no_class_by_chance() -> None:
    """A page has both: what they both name is the card's frame and its bar, on purpose."""
    sheets = [HERE / name for name in ("card.css", "runs.css")]
    classes = [set(re.findall(r"\.(nbjobs-[\w-]+)", sheet.read_text())) for sheet in sheets]
    assert classes[0] & classes[1] == {"nbjobs-card", "nbjobs-fill"}
