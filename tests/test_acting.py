"""What a page asks of a card reaches the run, whoever sends it, and the details come while a card is open."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from nbjobs import keys
from nbjobs.jobs import job
from nbjobs.run import Run
from nbjobs.settings import NbJobs, configure
from nbjobs.stepping import step
from nbjobs.widgets import display, tails
from nbjobs.widgets.acting import Asked, act, asked, reach_during_cells
from nbjobs.widgets.card import Card

from .support import wait_until

KEYS = keys.Keys("ada")
BROKEN = {"on": True}


@job
def double(x: int) -> int:
    return 2 * x


@job
def breaks_at(place: int) -> None:
    for number in step.each("items", range(5)):
        if number == place and BROKEN["on"]:
            raise ValueError("no date")


@pytest.fixture
def run(nbjobs_settings: NbJobs) -> Iterator[Run]:
    """A run that is queued, without a worker."""
    found = double.enqueue(1)
    yield found
    found.cancel()


class Page:
    """What a browser is to a card: it sends messages, and hears the answers."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.heard: list[dict[str, Any]] = []
        card.send = lambda content, buffers=None: self.heard.append(content)  # type: ignore[method-assign]

    def send(self, **content: Any) -> None:
        self.card._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})

    def ask(self, do: str, **more: Any) -> str:
        """Send it, and return why it was refused."""
        key = len(self.heard) + 1
        self.send(do=do, n=1, key=key, **more)
        wait_until(lambda: len(self.heard) == key, 10, "an answer")
        assert self.heard[-1]["answer"] == key
        return str(self.heard[-1]["refusal"])


@pytest.fixture
def opened(nbjobs_settings: NbJobs) -> Iterator[Callable[[Run], Page]]:
    """Makes the live card of a run, with a page that shows it."""
    cards: list[Card] = []

    def make(run: Run) -> Page:
        cards.append(display.card(run))
        return Page(cards[-1])

    yield make
    for card in cards:
        card.close()


@pytest.mark.parametrize(
    "message",
    [
        None,
        "cancel",
        [],
        {},
        {"do": "wait"},
        {"do": "__init__"},
        {"do": ["cancel"]},
        {"do": None},
        {"do": "retry", "from_step": 3},
        {"do": "retry", "from_step": ""},
        {"do": "retry", "from_step": "x" * 201},
        {"do": "cancel"},
        {"do": "cancel", "key": "1"},
        {"do": "cancel", "key": True},
    ],
)
def test_what_is_no_message_of_ours_is_ignored(message: object) -> None:
    """Whoever opens a notebook can send a card anything."""
    assert asked(message) is None


def test_only_a_retry_has_a_step() -> None:
    """Elsewhere it would mean nothing."""
    assert asked({"do": "retry", "from_step": "load", "n": 4, "key": 7}) == Asked("retry", "load", 7)
    assert asked({"do": "cancel", "from_step": "load", "key": 8}) == Asked("cancel", None, 8)


def test_buttons_do_what_they_say(run: Run, opened: Callable[[Run], Page]) -> None:
    """Pause, go on, cancel, open again: the run and the card agree, and nothing was refused."""
    page = opened(run)
    for do, state in (("pause", "paused"), ("unpause", "queued"), ("cancel", "cancelled"), ("retry", "queued")):
        assert page.ask(do) == ""
        assert run.state == state
        wait_until(lambda state=state: page.card.state == state, 10, f"the card is {state}")
    assert page.ask("kill") == ""
    assert run.state == "cancelled"


def test_what_is_said_twice_is_done_once(run: Run, opened: Callable[[Run], Page]) -> None:
    """A page that had no answer says it again; the first may come last, when the cell that kept it waiting ends."""
    page = opened(run)
    assert page.ask("pause") == ""
    assert page.ask("unpause") == ""
    page.send(do="pause", n=1, key=1)
    assert page.ask("expand") == ""  # comes behind it
    assert run.state == "queued"


def test_a_card_lives_on_after_its_end(opened: Callable[[Run], Page]) -> None:
    """A run that failed and is opened again, by whomever, is live on the same card."""
    configure(adapter="inline")
    BROKEN["on"] = True
    run = breaks_at.enqueue(3)
    page = opened(run)
    wait_until(lambda: page.card.state == "failed", 10, "the card has failed")
    assert [action["label"] for action in page.card.face["actions"]] == ["Retry from 3", "Restart from step 1"]
    BROKEN["on"] = False
    configure(adapter="arq")
    run.retry()
    wait_until(lambda: page.card.state == "queued", 10, "the card is live again")
    assert page.ask("cancel") == ""
    assert page.ask("retry", from_step="items") == ""
    wait_until(
        lambda: "count" not in {fact["kind"] for fact in page.card.face["facts"]}, 10, "its progress is forgotten"
    )
    run.cancel()
    assert "no step 'no such step'" in page.ask("retry", from_step="no such step")


def test_a_refusal_is_told_in_a_line(run: Run, opened: Callable[[Run], Page]) -> None:
    """As the method would have told it."""
    page = opened(run)
    page.ask("cancel")
    assert page.ask("pause") == f"Run {run.id} has ended (cancelled), so there is nothing to pause."


def test_a_fault_is_told_without_its_words(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """What nobody foresaw goes to the log; the card names its kind."""
    broken = Run(run.id)
    broken.pause = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    assert act(broken, Asked("pause", None, 1)) == "This did not work: ZeroDivisionError"
    assert "could not be asked to pause" in caplog.text


def test_messages_are_handled_elsewhere(run: Run, opened: Callable[[Run], Page]) -> None:
    """The thread that brings a message is the kernel's: it does not wait for Redis."""
    page, seen = opened(run), threading.Event()
    page.card.observe(lambda change: seen.set() if change.new == "paused" else None, "state")
    threads: list[str] = []
    original = page.card.send
    page.card.send = lambda *args, **kw: (  # type: ignore[method-assign]
        threads.append(threading.current_thread().name),
        original(*args, **kw),
    )
    page.ask("pause")
    assert seen.wait(10)
    assert threads == ["nbjobs-actions"]


def test_a_card_of_a_view_alone_has_no_buttons(run: Run) -> None:
    """Nobody would hear them."""
    card = Card(run.view)
    assert not card.controlled
    card._handle_msg({"content": {"data": {"method": "custom", "content": {"do": "cancel", "key": 1}}}, "buffers": []})
    assert run.state == "queued"
    card.close()


# -- details -----------------------------------------------------------------------------------------------------


def test_details_come_while_a_card_is_open(run: Run, opened: Callable[[Run], Page]) -> None:
    """Nothing is read or sent for a closed one."""
    page = opened(run)
    assert (page.card.details, page.card.expanded) == ({}, False)
    page.ask("expand")
    wait_until(lambda: page.card.details, 10, "details")
    assert page.card.expanded
    assert [part["kind"] for part in page.card.details["timeline"]] == ["waiting"]
    run.pause()
    wait_until(lambda: page.card.details["timeline"][0]["text"] == "paused", 10, "they follow")
    page.ask("collapse")
    wait_until(lambda: page.card.details == {}, 10, "nothing")
    assert not page.card.expanded


def test_progress_sends_no_details(run: Run, opened: Callable[[Run], Page]) -> None:
    """They change with the run's state, not with each item."""
    page = opened(run)
    page.ask("expand")
    wait_until(lambda: page.card.details, 10, "details")
    changes: list[object] = []
    page.card.observe(changes.append, "details")
    for _ in range(5):
        page.card.deliver()
    assert changes == []


@pytest.fixture
def log(redis_client: redis.Redis, run: Run) -> Iterator[Callable[..., None]]:
    """Writes lines as a worker does."""
    total = 0

    def write(*texts: str, stream: str = "stdout", missing: int = 0) -> None:
        nonlocal total
        total += len(texts) + missing
        redis_client.xadd(KEYS.log(run.id), {"d": json.dumps([[stream, text, 7] for text in texts]), "t": total})

    yield write
    redis_client.delete(KEYS.log(run.id))


def shown(page: Page) -> tuple[int, list[str]]:
    output = page.card.details["output"]
    return output["first"], [text for _, text in output["lines"]]


def test_an_open_card_follows_the_output(run: Run, log: Callable[..., None], opened: Callable[[Run], Page]) -> None:
    """Its last 200 lines, and those that come."""
    for start in range(0, 250, 10):
        log(*(f"line {number}" for number in range(start, start + 10)))
    page = opened(run)
    page.ask("expand")
    wait_until(lambda: page.card.details and shown(page)[0] == 50, 10, "the lines")
    assert shown(page)[1] == [f"line {number}" for number in range(50, 250)]
    log("one more", stream="stderr")
    wait_until(lambda: shown(page)[0] == 51, 10, "one more")
    assert page.card.details["output"]["lines"][-1] == ("stderr", "one more")


def test_a_log_that_cannot_be_read_harms_no_other(
    run: Run, log: Callable[..., None], redis_client: redis.Redis, opened: Callable[[Run], Page]
) -> None:
    """Somebody wrote something else where the lines should be."""
    other = double.enqueue(2)
    redis_client.set(KEYS.log(other.id), "no stream", ex=60)
    log("mine")
    for page in (broken := opened(other), good := opened(run)):
        page.ask("expand")
    wait_until(lambda: good.card.details and shown(good)[1] == ["mine"], 10, "the line")
    wait_until(lambda: broken.card.details, 10, "its details")
    assert shown(broken)[1] == []
    redis_client.delete(KEYS.log(other.id))
    other.cancel()


def test_output_is_shown_without_what_a_terminal_obeys(
    run: Run, log: Callable[..., None], opened: Callable[[Run], Page]
) -> None:
    """Colours are taken away, controls too, and what is long is cut; a million characters do not travel."""
    log("\x1b[31mred\x1b[0m", "\x1b]0;title\x07bell\x07", "a\u202eb", "x" * 16_000, *("y" * 499 for _ in range(90)))
    page = opened(run)
    page.ask("expand")
    wait_until(lambda: page.card.details and shown(page)[1], 10, "the lines")
    first, lines = shown(page)
    assert (first, len(lines)) == (29, 65)
    run_again = [tails._clean(text) for text in ("\x1b[31mred\x1b[0m", "\x1b]0;title\x07bell\x07", "a\u202eb")]
    assert run_again == ["red", "bell", "ab"]
    assert tails._clean("x" * 16_000) == "x" * 499 + "…"


def test_who_reads_output_leaves_with_the_last_open_card(
    run: Run, log: Callable[..., None], opened: Callable[[Run], Page]
) -> None:
    """Neither thread nor connection stays."""
    page = opened(run)
    page.ask("expand")
    wait_until(lambda: page.card.details, 10, "details")
    page.card.close()
    wait_until(
        lambda: not any(thread.name == "nbjobs-tails" for thread in threading.enumerate()), 10, "the thread is gone"
    )


def test_what_is_closed_is_not_begun_again(run: Run) -> None:
    """As where a card is closed in one thread while another finds that its run was opened again."""
    following = tails.Following(run.user, run.id, lambda: None, lambda: False)
    following.close()
    tails.follow(following)
    assert following.over


def test_the_last_words_of_a_run_are_shown(run: Run, log: Callable[..., None], opened: Callable[[Run], Page]) -> None:
    """They come a moment after its end; then nobody looks any more."""
    page = opened(run)
    page.ask("expand")
    wait_until(lambda: page.card.details, 10, "details")
    run.cancel()
    wait_until(lambda: page.card.state == "cancelled", 10, "the end")
    log("my last words")
    wait_until(lambda: shown(page)[1] == ["my last words"], 10, "the words")
    wait_until(
        lambda: not any(thread.name == "nbjobs-tails" for thread in threading.enumerate()), 10, "the thread is gone"
    )
    assert shown(page)[1] == ["my last words"]
    page.ask("retry")
    log("and again")
    wait_until(lambda: shown(page)[1][-1] == "and again", 10, "it is followed again")


def test_the_kernel_is_asked_to_handle_messages_during_cells() -> None:
    """Where ipykernel sends them back to the main thread, that is taken back; elsewhere nothing is touched."""

    class Routing:
        def _reply_subshell_for(self, data: object, default: object) -> object:
            return None

    comm, other = Routing(), object()
    reach_during_cells(comm)
    reach_during_cells(other)
    assert comm._reply_subshell_for({}, "subshell-1") == "subshell-1"
    assert not hasattr(other, "_reply_subshell_for")


def test_the_hook_that_this_needs_is_there() -> None:
    """It is private to ipykernel: when it goes, look whether messages still arrive while a cell runs."""
    import ipykernel
    from ipykernel.comm import Comm

    if ipykernel.version_info[:2] >= (7, 4):
        assert callable(Comm._reply_subshell_for)


def test_who_observes_a_card_may_take_the_result(run: Run, opened: Callable[[Run], Page]) -> None:
    """When the state that was told is an end; the follower, in whose thread it is told, does not wait for itself."""
    card, taken = opened(run).card, list[str]()
    card.observe(lambda change: taken.append(run.wait(10).id) if change.new == "cancelled" else None, "state")
    run.cancel()
    wait_until(lambda: taken == [run.id], 20, "the observer has it")
