"""The card in a terminal, and lines where there is none."""

from __future__ import annotations

import io
import re
import threading
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console
from rich.text import Text

import nbjobs
from nbjobs import connection, rendering, stream
from nbjobs.errors import RunNotFound
from nbjobs.face import face
from nbjobs.settings import NbJobs
from nbjobs.store import Store
from nbjobs.terminal import Card, Screen, watch
from nbjobs.view import RunView, empty, fold

from .entries import Story, T, midway
from .support import wait_until
from .test_stream import Driver, now_d


def drawn(view: RunView, now: int = 0, **options: Any) -> list[str]:
    console = Console(file=io.StringIO(), **{"width": 80, "force_terminal": True, "color_system": None, **options})
    console.print(Card(face(view, now=now or view.updated)))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def lines(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def dumb(**options: Any) -> Console:
    return Console(file=io.StringIO(), width=80, **options)


def test_the_bar_shows_earlier_attempts_hatched_and_this_one_solid() -> None:
    """With a notch where it was resumed, and the percent beside it."""
    top, bar, facts = drawn(midway().view)
    assert top == "◐ import_orders  Step 2 · load rows"
    assert bar == "▒" * 26 + "┊" + "█" * 14 + "─" * 25 + "  62 %"
    assert facts == "12,431 of 20,000 · 212/s · about 35 s left · resumed once at 8,000"


def test_a_queued_run_has_neither_bar_nor_numbers() -> None:
    """Only how long it waits."""
    assert drawn(Story().queued().view, T + 3400) == ["○ import_orders  queued", "queued for 3 s"]


def test_a_done_run_keeps_the_notch() -> None:
    """The proof that it was resumed."""
    top, bar, facts = drawn(midway().loaded().completed().view)
    assert top == "✓ import_orders  done" and bar.strip() == "▒" * 26 + "┊" + "█" * 39
    assert facts == "20,000 of 20,000 · took 23 s · resumed once at 8,000"


def test_a_failed_run_shows_its_exception() -> None:
    """As the last line."""
    found = drawn(Story().queued().started().prepared().loading().progress(8000).failed().view)
    assert found[0] == "✕ import_orders  failed in step 2 · load rows"
    assert found[-1] == "ValueError: row 7: no date"


def test_an_unknown_total_has_no_bar_that_could_be_believed() -> None:
    """A dotted track, and no percent."""
    assert set(drawn(Story().queued().started().loading(total=None).view)[1].strip()) == {"╌"}


@pytest.mark.parametrize("width", [20, 40, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Nor than is comfortable to read."""
    assert all(len(line) <= min(width, rendering.WIDTH) for line in drawn(midway().view, width=width))


def many(count: int, *failed: int) -> list[RunView]:
    """Runs of which the first is running, some failed, and the others wait."""
    queued, broken = Story().queued().view, Story().queued().started().loading().failed().view
    views = [midway().view, *(broken if n in failed else queued for n in range(1, count))]
    return [replace(view, run=f"r{number}") for number, view in enumerate(views)]


def test_several_runs_are_drawn_below_each_other() -> None:
    """Where the window has room for them."""
    console = dumb(force_terminal=True, color_system=None, height=20)
    with Screen(console, now=lambda: T) as screen:
        for view in many(3):
            screen.show(view)
        assert [str(block) for block in map(type, screen._cards().renderables)] == [
            str(kind) for kind in (Card, Text, Card, Text, Card)
        ]


def test_more_runs_than_there_is_room_for_are_an_overview() -> None:
    """Counts, a bar, a sign for each, what failed, and below the cards of those that run, all within the window."""
    console = dumb(force_terminal=True, color_system=None, height=20)
    with Screen(console, now=lambda: T) as screen:
        for view in many(100, 7):
            screen.show(view)
        shown = ["".join(segment.text for segment in line).rstrip() for line in console.render_lines(screen._cards())]
    assert len(shown) < 20
    assert shown[0] == "◐ import_orders  100 runs"
    assert shown[2].startswith("✕ 1 failed · ◐ 1 running · ○ 98 queued")
    assert shown[3].startswith("✕◐○○○")
    assert len(shown[3] + shown[4]) == 100
    assert shown[5].startswith("✕ #8 · failed in step 1 · load rows · ValueError: ")
    assert shown[7] == "◐ import_orders  Step 2 · load rows"


def test_a_window_that_shrinks_is_drawn_anew() -> None:
    """What was drawn before is wrapped then, and would stay."""
    console = dumb(force_terminal=True, color_system=None)
    with Screen(console, now=lambda: T) as screen:
        screen.show(midway().view)
        assert "\x1b[2J" not in console.file.getvalue()  # type: ignore[attr-defined]
        console.width = 40
        screen.show(midway().loaded().view)
        after = console.file.getvalue().rpartition("\x1b[2J")[2]  # type: ignore[attr-defined]
    assert after
    assert all(len(line) <= 40 for line in plain(after))


def plain(text: str) -> list[str]:
    """The lines without what moves the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text).splitlines()


def test_markup_in_names_is_text() -> None:
    """A job cannot colour, link or blink."""
    view = fold(empty("r1"), {**Story().queued().entries[0], "d": '{"p": {"job": "[bold red]x[/] [link=http://a]"}}'})
    assert drawn(view)[0] == "○ [bold red]x[/] [link=http://a]  queued"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """And colour is there without it."""

    def codes() -> bool:
        return "\x1b[3" in "".join(drawn(midway().view, color_system="standard"))

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert codes()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not codes()


def test_an_ascii_terminal_gets_ascii() -> None:
    """Whatever the job is called."""
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, "ascii", write_through=True), width=80)
    screen = Screen(console)
    for view in (midway().view, midway().loaded().completed().view):
        console.print(Card(face(view)))
        screen.show(view)
    console.print(Card(face(empty("r1", "übung"))))
    assert b"* import_orders  Step 2 - load rows" in raw.getvalue()


def test_without_a_terminal_each_change_is_one_line() -> None:
    """However often the view comes, and without a line for progress."""
    console, view = dumb(), empty("r1")
    story = midway().loaded().completed()
    with Screen(console, now=lambda: view.updated) as screen:
        for entry in story.entries:
            view = fold(view, entry)
            screen.show(view)
            screen.show(view)
    assert [line.partition(" · ")[0] for line in lines(console)] == [
        "○ import_orders  queued",
        "◐ import_orders  running",
        "◐ import_orders  Step 1",
        "◐ import_orders  Step 2",
        "○ import_orders  queued",
        "◐ import_orders  resuming step 2",
        "◐ import_orders  Step 2",
        "✓ import_orders  done",
    ]
    assert lines(console)[4].endswith("40 % · 8,000 of 20,000 · after: its process died (SIGKILL)")


def test_without_a_terminal_time_alone_is_told_on_a_tick() -> None:
    """A run that is stuck."""
    story, now = Story().queued().started().loading().progress(1, 2, 3, 4, 5), [0]
    console = dumb()
    with Screen(console, now=lambda: now[0]) as screen:
        now[0] = story.ms
        screen.show(story.view)
        now[0] += 20_000
        screen.tick()
        screen.tick()
    assert len(lines(console)) == 2 and "stuck? Step 1 · load rows" in lines(console)[1]


def test_in_a_terminal_each_state_is_drawn_when_show_returns() -> None:
    """In place; what is said stands above."""
    console = dumb(force_terminal=True, color_system=None)
    view = empty("r1")
    with Screen(console) as screen:
        for entry in midway().entries:
            view = fold(view, entry)
            screen.show(view)
            if "n" in entry:
                assert face(view).headline in "\n".join(lines(console))
        screen.say("killed [the] child")
    assert "killed [the] child" in "\n".join(lines(console))


@pytest.fixture
def driver(nbjobs_settings: NbJobs, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(stream, "LINGER", 0.05)
    client = connection.sync_client(nbjobs_settings.redis_url or "")
    yield Driver(Store(client, "ada", nbjobs_settings))
    monkeypatch.setattr(stream, "BLOCK", 0.01)
    wait_until(lambda: not any(one.name == "nbjobs-follower" for one in threading.enumerate()), 4)
    client.close()


def test_watching_follows_a_run_to_its_end(driver: Driver) -> None:
    """And says whether it completed."""
    driver.enqueue()
    console = dumb()
    answers: list[bool] = []
    watching = threading.Thread(target=lambda: answers.append(watch("r1", console=console)))
    watching.start()
    wait_until(lambda: "queued" in console.file.getvalue())  # type: ignore[attr-defined]
    driver.claim().start()
    wait_until(lambda: "Step 1 · load rows" in console.file.getvalue())  # type: ignore[attr-defined]
    driver.finish()
    watching.join(5)
    assert answers == [True] and lines(console)[-1].startswith("✓ import_orders  done")


def test_a_run_is_watched_from_python(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """`run.watch()` shows it to its end; what has ended is shown as it stands."""
    run = nbjobs.attach(driver.enqueue().claim().finish().run)
    run.watch()
    nbjobs.Runs([run, run]).watch()
    nbjobs.Runs([]).watch()
    assert capsys.readouterr().out.startswith("✓ import_orders  done")


def test_outside_a_kernel_a_run_is_displayed_in_the_terminal(
    driver: Driver, capsys: pytest.CaptureFixture[str]
) -> None:
    """IPython prints the card; several runs are an overview."""
    run = nbjobs.attach(driver.enqueue().run)
    run._ipython_display_()
    nbjobs.Runs([run, run])._ipython_display_()
    one, *_, head, _bar, counts, _cells = capsys.readouterr().out.splitlines()
    assert one == "○ import_orders  queued"
    assert (head, counts) == ("○ import_orders  1 run", "○ 1 queued")


def test_watching_all_shows_what_is_under_way(driver: Driver) -> None:
    """Also what is enqueued meanwhile; a run that was cancelled has not completed."""
    console = dumb()
    assert watch(console=console) is True and "No run is under way" in lines(console)[0]
    driver.enqueue()
    later = Driver(driver.store, "r2")
    answers: list[bool] = []
    watching = threading.Thread(target=lambda: answers.append(watch(console=console)))
    watching.start()
    wait_until(lambda: "queued" in console.file.getvalue())  # type: ignore[attr-defined]
    later.enqueue()
    wait_until(lambda: console.file.getvalue().count("queued") == 2)  # type: ignore[attr-defined]
    driver.claim().finish()
    driver.store.control("r2", "cancel", 10**9, now_d())
    watching.join(5)
    assert answers == [False] and "⊘ import_orders  cancelled" in lines(console)[-1]


def test_watching_a_run_that_is_not_there_says_so(driver: Driver) -> None:
    """Before anything is drawn."""
    with pytest.raises(RunNotFound):
        watch("nothing", console=dumb())


def test_an_interrupt_leaves_the_run_alone(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """And names the command that shows it again."""
    driver.enqueue()
    monkeypatch.setattr(Screen, "show", lambda self, view: (_ for _ in ()).throw(KeyboardInterrupt))
    console = dumb()
    assert watch("r1", console=console) is False
    assert lines(console)[-1].endswith("nbjobs watch r1")
    driver.store.control("r1", "cancel", 10**9, now_d())
