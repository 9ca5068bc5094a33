"""Whether the kernel ended a process because memory was short."""

from __future__ import annotations

import pytest

from nbjobs import shortage
from nbjobs.shortage import Shortage


@pytest.mark.weather("A5")
def test_each_end_that_the_kernel_counts_explains_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two counted ends explain two processes, whenever they are reaped, and no third; another group counts anew."""
    counts = {"now": ("a group", 5)}
    monkeypatch.setattr(shortage, "_killed", lambda: counts["now"])
    monkeypatch.setattr(shortage, "memory_there_is", lambda: 100)
    watch = Shortage()
    assert watch.explains(99) == 0
    counts["now"] = ("a group", 7)
    assert [watch.explains(1) for _ in range(3)] == [100, 100, 0]
    counts["now"] = ("another group", 1)
    assert [watch.explains(1) for _ in range(2)] == [100, 0]


@pytest.mark.weather("A5")
def test_where_nobody_counts_the_peak_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process that had nearly all memory has probably run out of it."""
    monkeypatch.setattr(shortage, "_killed", lambda: ("", 0))
    monkeypatch.setattr(shortage, "memory_there_is", lambda: 100)
    assert [Shortage().explains(peak) for peak in (50, 95)] == [0, 100]
