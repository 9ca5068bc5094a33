"""Redis time as a worker knows it, and what it makes of a jump."""

from __future__ import annotations

import pytest

from nbjobs import clock
from nbjobs.clock import SteadyClock

SECOND, HOUR = 1_000, 3_600_000


class Steady:
    """A steady clock that a test moves, and Redis' wall clock beside it."""

    def __init__(self) -> None:
        self.seconds = 50.0
        self.redis = 5_000 * HOUR

    def go_on(self, seconds: float) -> None:
        self.seconds += seconds
        self.redis += round(seconds * SECOND)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Steady:
    found = Steady()
    monkeypatch.setattr(clock.time, "monotonic", lambda: found.seconds)
    return found


@pytest.fixture
def settled(steady: Steady) -> SteadyClock:
    """A clock that has run for long without a jump."""
    found = SteadyClock(patience=10, tolerance=2.5)
    found.heard(steady.redis)
    steady.go_on(11)
    assert found.settled
    return found


@pytest.mark.weather("H1")
def test_a_new_clock_knows_nothing_for_a_while(steady: Steady) -> None:
    """There may have been a jump just before: nothing is certain to be over, or to be too far ahead."""
    new = SteadyClock(patience=10, tolerance=2.5)
    assert new.bounds()[0] == 0
    new.heard(steady.redis)
    steady.go_on(9)
    new.heard(steady.redis)
    assert not new.settled
    assert new.bounds()[0] == 0
    assert new.bounds()[1] > 10**6 * HOUR
    steady.go_on(2)
    assert new.settled
    assert new.bounds() == (steady.redis, steady.redis)


@pytest.mark.weather("H1")
@pytest.mark.parametrize("jump", [600 * SECOND, -HOUR])
def test_after_a_jump_both_times_are_possible(steady: Steady, settled: SteadyClock, jump: int) -> None:
    """Until each living holder has renewed its lease it may be as late as before the jump, or as it is now."""
    steady.redis += jump
    settled.heard(steady.redis)
    for _ in range(3):
        steady.go_on(3)
        settled.heard(steady.redis)
        assert settled.bounds() == tuple(sorted((steady.redis, steady.redis - jump)))
        assert settled.now() == steady.redis
    steady.go_on(2)
    assert settled.bounds() == (steady.redis, steady.redis)


@pytest.mark.weather("H1")
def test_jumps_in_a_row_are_all_remembered(steady: Steady, settled: SteadyClock) -> None:
    """A holder may have renewed its lease last before any of them."""
    before = steady.redis
    for jump in (HOUR, -3 * HOUR):
        steady.redis += jump
        settled.heard(steady.redis)
    assert settled.bounds() == (before - 2 * HOUR, before + HOUR)


def test_an_answer_that_comes_late_is_no_jump(steady: Steady, settled: SteadyClock) -> None:
    """A slow answer tells a time that is over."""
    jumps = settled.jumps
    settled.heard(steady.redis - 2 * SECOND)
    settled.heard(steady.redis)
    assert settled.settled
    assert settled.jumps == jumps
