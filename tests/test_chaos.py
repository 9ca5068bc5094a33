"""Chaos itself works: some seconds of it, on each of its stages. `make chaos` takes as long as it is told."""

from __future__ import annotations

import pytest

from .chaos.__main__ import STAGES, play


@pytest.mark.fault(63)
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_row_63_what_must_be_zero_is_zero(stage: str) -> None:
    """Some seconds of kills and cuts: runs of several kinds complete, and no invariant is broken."""
    totals = play(stage, 5.0, seed=7, least=3)
    print(totals.table())
    assert totals.fine, totals.findings
    assert totals.runs >= 3 and totals.faults.total() >= 3, "too little was done to show anything"
