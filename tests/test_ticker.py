"""The thread that looks at all attempts."""

from __future__ import annotations

import logging
import threading

import pytest

from nbjobs.ticker import Ticker

from .support import wait_until


class Look:
    """What is looked at; it raises where it is told to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.looks = 0
        self.threads: set[threading.Thread] = set()

    def tick(self, now: float) -> None:
        self.looks += 1
        self.threads.add(threading.current_thread())
        if self.error is not None:
            raise self.error


@pytest.mark.weather("M6")
@pytest.mark.parametrize("error", [ImportError("no such library"), SystemExit(3)], ids=["error", "exit"])
def test_a_look_that_raises_ends_no_other_look(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """What raises is logged once and asked again; all others are looked at as before."""
    ticker, bad, good = Ticker(), Look(error), Look()
    with caplog.at_level(logging.ERROR, "nbjobs.ticker"), ticker.ticking(bad), ticker.ticking(good):
        wait_until(lambda: bad.looks >= 3 and good.looks >= 3)
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]
    assert good.threads == bad.threads and len(good.threads) == 1


@pytest.mark.weather("M6")
def test_a_thread_that_has_ended_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ended the thread, the next attempt is looked at."""
    ticker, first, second = Ticker(), Look(), Look()
    with monkeypatch.context() as patch:
        patch.setattr(ticker, "_run", lambda: None)
        with ticker.ticking(first):
            assert ticker._thread is not None
            ticker._thread.join()
    with ticker.ticking(second):
        wait_until(lambda: second.looks)
    assert not first.looks
