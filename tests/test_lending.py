"""Lending a place while a body waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nbjobs import lending


@pytest.fixture
def told() -> Iterator[list[bool]]:
    calls: list[bool] = []
    lending.set_lender(calls.append)
    yield calls
    lending.set_lender(None)


def test_outside_a_child_nothing_happens() -> None:
    """Plain Python lends nothing to nobody."""
    with lending.lent_place():
        pass


def test_a_place_is_lent_and_taken_back(told: list[bool]) -> None:
    """Before the wait the place is lent, behind it taken back, also after an error."""
    with pytest.raises(KeyError), lending.lent_place():
        assert told == [True]
        raise KeyError
    assert told == [True, False]


def test_a_refused_loan_is_not_taken_back() -> None:
    """Where no place is lent, the wait does not begin."""

    def refuse(lend: bool) -> None:
        raise RuntimeError("no place")

    lending.set_lender(refuse)
    try:
        with pytest.raises(RuntimeError, match="no place"), lending.lent_place():
            raise AssertionError("never reached")
    finally:
        lending.set_lender(None)
