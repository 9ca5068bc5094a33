"""How often something may happen."""

from __future__ import annotations

import time

import pytest

from nbjobs.allowance import Allowance


def test_so_many_at_once_and_so_many_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst first, then the rate; a quiet time fills it up again, and no further."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    allowance = Allowance(rate=10, burst=3)
    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]
    now += 0.25
    assert [allowance.take() for _ in range(4)] == [True, True, False, False]
    now += 60
    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]
