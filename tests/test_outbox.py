"""How often cards are brought up to date."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from nbjobs.widgets.outbox import Outbox

from .support import wait_until


class Pen:
    """A sender that notes when it was asked to deliver, and what its latest was."""

    def __init__(self) -> None:
        self.latest = 0
        self.seen: list[tuple[float, int]] = []

    def deliver(self) -> None:
        self.seen.append((time.monotonic(), self.latest))

    @property
    def gaps(self) -> list[float]:
        times = [at for at, _ in self.seen]
        return [b - a for a, b in itertools.pairwise(times)]


def flood(outbox: Outbox, pens: list[Pen], seconds: float) -> None:
    """Post all pens as fast as possible."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for pen in pens:
            pen.latest += 1
            outbox.post(pen)


def test_the_first_is_delivered_at_once() -> None:
    """Where nothing was delivered lately nothing waits."""
    pen = Pen()
    start = time.monotonic()
    Outbox().post(pen)
    wait_until(lambda: pen.seen, 2, "the first delivery")
    assert pen.seen[0][0] - start < 0.09


def test_a_card_is_given_ten_a_second_and_the_latest_wins() -> None:
    """Between two deliveries of a card lie 100 ms, and the last one has the last state."""
    pen = Pen()
    flood(Outbox(), [pen], 0.55)
    wait_until(lambda: pen.seen and pen.seen[-1][1] == pen.latest, 2, "the latest")
    assert 5 <= len(pen.seen) <= 8
    assert min(pen.gaps) >= 0.099


def test_all_cards_together_are_given_a_hundred_a_second() -> None:
    """Forty cards that change all the time share the kernel's hundred messages fairly."""
    pens = [Pen() for _ in range(40)]
    flood(Outbox(), pens, 1.0)
    sent = sum(len(pen.seen) for pen in pens)
    assert sent <= 110
    assert min(len(pen.seen) for pen in pens) >= 1


def test_an_end_is_delivered_before_post_end_returns_and_once_more() -> None:
    """The last state is sent at once, whatever was sent a moment ago, and again when it has been quiet."""
    pen, outbox = Pen(), Outbox(quiet=0.2)
    outbox.post(pen)
    wait_until(lambda: pen.seen, 2, "the first delivery")
    pen.latest = 9
    outbox.post_end(pen)
    assert pen.seen[-1][1] == 9
    wait_until(lambda: len(pen.seen) == 3, 2, "the repetition")
    assert pen.gaps[-1] >= 0.19


def test_a_sender_that_fails_harms_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    """An error goes to the logger, never to the screen, and the thread goes on."""

    class Broken:
        def deliver(self) -> None:
            raise RuntimeError("no comm")

    outbox, pen = Outbox(), Pen()
    outbox.post(Broken())
    outbox.post(pen)
    wait_until(lambda: pen.seen, 2, "the other's delivery")
    assert capsys.readouterr() == ("", "")


def test_all_cards_share_one_daemon_thread() -> None:
    """However many cards there are, one thread serves them, and it does not hold up the exit."""
    before = set(threading.enumerate())
    flood(Outbox(), [Pen() for _ in range(20)], 0.05)
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
