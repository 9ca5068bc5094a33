"""The card in the kernel: what it tells a browser, and how a run becomes the output of a cell."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from nbjobs.face import face
from nbjobs.view import RunView
from nbjobs.widgets import display
from nbjobs.widgets.card import Card

from .support import wait_until
from .widgets.faces import views

WIDGETS = Path(display.__file__).parent
NOW = 1_795_000_000_000
QUEUED, RUNNING, COMPLETED, FAILED = (views(NOW)[name] for name in ("queued", "running", "completed", "failed"))


@pytest.fixture
def card() -> Iterator[Card]:
    made = Card(QUEUED)
    yield made
    made.close()


def test_the_script_is_small() -> None:
    """The script has 12 KB gzipped at most, and the style sheet 4."""
    sizes = [len(gzip.compress((WIDGETS / name).read_bytes())) for name in ("card.js", "card.css")]
    assert sizes[0] < 12 * 1024
    assert sizes[1] < 4 * 1024


@pytest.mark.fault(44)
@pytest.mark.parametrize(
    "way",
    ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "createContextualFragment",
     "setHTML", "eval(", "new Function", "cssText", "href", "fetch(", "import(", "save_changes", "localStorage"],
)  # fmt: skip
def test_the_script_has_no_way_from_text_to_markup(way: str) -> None:
    """Text is put in as text; nothing is parsed, loaded, sent or set on the model."""
    assert way not in (WIDGETS / "card.js").read_text()


def test_every_theme_variable_has_a_fallback() -> None:
    """Outside JupyterLab its variables do not exist: no `var(--jp-…)` stands alone."""
    css = (WIDGETS / "card.css").read_text()
    used = re.findall(r"var\((--(?:jp|vscode)-[\w-]+)\s*([,)])", css)
    assert used
    assert [name for name, after in used if after != ","] == []


def test_the_browser_is_told_the_run_and_its_face_alone(card: Card) -> None:
    """Synced are anywidget's own traits, the run's id and the face: no address, user or token."""
    ours = {name for name in card.get_state() if not name.startswith("_")}
    assert ours == {"run_id", "face", "details", "controlled", "code", "layout", "tabbable", "tooltip"}
    assert card.get_state()["code"] == f"anywidget:{card.code.model_id}"
    told = dict(card.face)
    assert abs(told.pop("sent") - time.time() * 1000) < 5000
    assert told == msgspec.to_builtins(face(QUEUED))
    json.dumps(card.face)


def test_a_fed_card_sets_a_new_dict_each_time(card: Card) -> None:
    """Each view becomes one change of one trait, with the latest face in it."""
    seen: list[dict[str, Any]] = []
    card.observe(lambda change: seen.append(change.new), "face")
    card.feed(RUNNING)
    wait_until(lambda: card.state == "running", 2, "the card shows it")
    assert [one["state"] for one in seen] == ["running"]
    assert seen[0] is not card.face or len(seen) == 1


def test_an_end_is_shown_before_feed_returns(card: Card) -> None:
    """What follows the end (the swap, the cell's end) finds it on the card, and it cannot be overtaken."""
    card.feed(RUNNING)
    card.feed(COMPLETED)
    assert card.face["state"] == "completed"
    assert card.state == "completed"


def test_state_can_be_observed(card: Card) -> None:
    """`card.observe(fn, "state")` hears of each state the card shows."""
    seen: list[str] = []
    card.observe(lambda change: seen.append(change.new), "state")
    card.feed(COMPLETED)
    assert seen == ["completed"]


def test_a_page_can_set_nothing(card: Card) -> None:
    """What a browser, or a crafted notebook, sends as state is ignored."""
    before = card.face
    card.set_state({"face": {"state": "completed", "run": "x"}, "run_id": "x"})
    assert (card.face, card.run_id) == (before, "r-queued")


def test_repr_is_short(card: Card) -> None:
    """The repr names run and state, not the widget's code."""
    assert repr(card) == "<Card of run r-queued: queued>"


def test_cards_share_one_layout(card: Card) -> None:
    """A hundred cards do not open a hundred layout models."""
    other = Card(RUNNING)
    assert other.layout is card.layout
    other.close()


def sent(widget: Any) -> int:
    """The bytes that tell a browser of a model."""
    return len(json.dumps(widget.get_state()).encode())


def test_the_code_travels_once() -> None:
    """A hundred cards send script and style sheet once: less than a tenth of what they would with the code in each."""
    cards = [Card(RUNNING) for _ in range(100)]
    assert len({card.code for card in cards}) == 1
    ours = sum(map(sent, cards)) + sent(cards[0].code)
    each = ours + 99 * sum((WIDGETS / name).stat().st_size for name in ("card.js", "card.css"))
    assert ours < each / 10, (ours, each)
    assert (WIDGETS / "stub.js").stat().st_size < 640
    for card in cards:
        card.close()


def test_a_card_made_after_all_were_closed_brings_the_code_again(card: Card) -> None:
    """`Widget.close_all()` takes the hidden model away as well; the next card has a new one."""
    Card.close_all()
    other = Card(RUNNING)
    assert other.code is not card.code
    assert other.code.comm is not None
    assert other.layout.comm is not None
    other.close()


# -- as a cell's output ------------------------------------------------------------------------------------------


class Shell:
    """What IPython is to `show`: a publisher, and a kernel where there is one."""

    def __init__(self, kernel: object | None) -> None:
        self.kernel = kernel
        self.display_pub = self.events = self
        self.begin_cell: Callable[[object], None] = lambda info: None
        self.published: list[tuple[dict[str, Any], dict[str, Any], bool]] = []

    def register(self, event: str, callback: Callable[[object], None]) -> None:
        assert event == "pre_run_cell"
        self.begin_cell = callback

    def publish(self, data: dict[str, Any], *, transient: dict[str, Any] | None = None, update: bool = False) -> None:
        self.published.append((data, transient or {}, update))


class Watched:
    """A run and its follower in one."""

    id, user = "r-queued", "ada"

    def __init__(self, view: RunView) -> None:
        self.view = view
        self.see: Callable[[RunView], None] | None = None

    def watch_all(self, runs: list[str], see: Callable[[RunView], None], *, rests: bool) -> list[Watched]:
        assert runs == [self.id]
        assert rests
        self.see = see
        return [self]

    def close(self) -> None:
        self.see = None

    def comes_to(self, view: RunView) -> None:
        assert self.see is not None
        self.see(replace(view, run=self.id))


@pytest.fixture
def in_cell(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Shell, Watched]]:
    def show(view: RunView, kernel: object | None = object()) -> tuple[Shell, Watched]:
        shell, run = Shell(kernel), Watched(replace(view, run=Watched.id))
        monkeypatch.setattr(display.InteractiveShell, "instance", lambda: shell)
        monkeypatch.setattr(display, "follower", lambda user: run)
        display.show(run)
        return shell, run

    return show


WIDGET = "application/vnd.jupyter.widget-view+json"
STATIC = {"text/plain", "text/html", display.MIME_TYPE}


def test_a_run_is_shown_as_card_text_html_and_id(in_cell: Callable[..., tuple[Shell, Watched]]) -> None:
    """The bundle has the live card and what stands in for it, under a display id of its own."""
    shell, _ = in_cell(QUEUED)
    ((data, transient, update),) = shell.published
    assert set(data) == STATIC | {WIDGET}
    assert data[display.MIME_TYPE] == {"run": "r-queued"}
    assert "nbjobs.attach('r-queued')" in data["text/plain"]
    assert transient["display_id"].startswith("nbjobs-")
    assert not update


def test_the_end_replaces_the_bundle_once(in_cell: Callable[..., tuple[Shell, Watched]]) -> None:
    """At the run's end, and only then, the same output comes without the widget."""
    shell, run = in_cell(QUEUED)
    run.comes_to(RUNNING)
    assert len(shell.published) == 1
    run.comes_to(COMPLETED)
    run.comes_to(COMPLETED)
    (_, first, _), (data, transient, update) = shell.published
    assert set(data) == STATIC
    assert "done" in data["text/html"]
    assert (transient, update) == (first, True)


def test_an_end_is_said_again_as_the_next_cell_begins(
    in_cell: Callable[..., tuple[Shell, Watched]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and only where it came a moment before: somebody may have opened the output since."""
    shell, run = in_cell(QUEUED)
    shell.begin_cell(None)
    assert len(shell.published) == 1
    run.comes_to(COMPLETED)
    shell.begin_cell(None)
    shell.begin_cell(None)
    assert shell.published[1:] == shell.published[1:2] * 2
    run.comes_to(RUNNING)
    count = len(shell.published)
    monkeypatch.setattr(display, "_BETWEEN_CELLS", 0)
    shell.begin_cell(None)
    assert len(shell.published) == count


def test_who_has_a_card_open_at_its_end_goes_on_reading(
    in_cell: Callable[..., tuple[Shell, Watched]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes its place is unfolded, and stays so although the card is gone."""
    shell, run = in_cell(RUNNING)
    monkeypatch.setattr(Card, "expanded", True)
    run.comes_to(COMPLETED)
    assert "<details open" in shell.published[-1][0]["text/html"]
    monkeypatch.setattr(Card, "expanded", False)
    run.comes_to(COMPLETED)
    assert len(shell.published) == 2
    run.comes_to(RUNNING)
    run.comes_to(COMPLETED)
    assert "<details style" in shell.published[-1][0]["text/html"]


def test_an_ended_run_is_shown_without_a_widget(in_cell: Callable[..., tuple[Shell, Watched]]) -> None:
    """Where nothing moves there is nothing to follow, and one message says all."""
    shell, run = in_cell(COMPLETED)
    run.comes_to(COMPLETED)
    ((data, _, update),) = shell.published
    assert set(data) == STATIC
    assert not update


@pytest.mark.parametrize("first", [QUEUED, FAILED], ids=["seen to its end", "shown as it stood"])
def test_a_run_that_is_opened_again_is_live_again(
    in_cell: Callable[..., tuple[Shell, Watched]], first: RunView
) -> None:
    """After a retry the same output has the live card, and at the next end none."""
    shell, run = in_cell(first)
    run.comes_to(FAILED)
    run.comes_to(QUEUED)
    run.comes_to(RUNNING)
    run.comes_to(COMPLETED)
    kinds = [WIDGET in data for data, _, _ in shell.published]
    assert kinds == ([True] if first is QUEUED else []) + [False, True, False]
    assert len({transient["display_id"] for _, transient, _ in shell.published}) == 1


def test_another_end_is_shown_although_nothing_was_seen_in_between(
    in_cell: Callable[..., tuple[Shell, Watched]],
) -> None:
    """A run that is opened again may end before anybody looks."""
    shell, run = in_cell(FAILED)
    run.comes_to(FAILED)
    run.comes_to(COMPLETED)
    assert ["failed" in data["text/plain"] for data, _, _ in shell.published] == [True, False]


def test_a_fault_in_showing_stays_out_of_the_cells(
    in_cell: Callable[..., tuple[Shell, Watched]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A publisher that fails is logged; nothing is raised into the follower and nothing printed."""
    shell, run = in_cell(QUEUED)
    shell.publish = None  # type: ignore[assignment, method-assign]
    run.comes_to(COMPLETED)
    assert capsys.readouterr() == ("", "")
