"""What became of a run, read from fields that anybody may have written."""

from __future__ import annotations

import pytest

from nbjobs.errors import BadData, NbjobsError, ResultNotKept, RunFailed
from nbjobs.results import outcome

FOREIGN = [
    *("words", "[1]", "null", "5", '"text"', "{", "[" * 100_000, "\ud800"),
    *('{"type":7}', '{"type":{"a":1},"message":[2]}'),
]


@pytest.mark.parametrize("error", FOREIGN, ids=range(len(FOREIGN)))
@pytest.mark.parametrize("state", ["completed", "failed", "dead", "cancelled", "", "no state"])
def test_a_foreign_error_field_is_an_error_of_nbjobs(state: str, error: str) -> None:
    """Whatever stands there: it says what became of the run, as far as that is known."""
    with pytest.raises(NbjobsError, match="r1"):
        outcome("r1", state, "", error)


@pytest.mark.parametrize("result", ["words", "{", "[" * 100_000, '{"$data":5}', '{"$data":["a"]}', "\ud800"])
def test_a_foreign_result_is_bad_data(result: str) -> None:
    """It is no value of the job."""
    with pytest.raises(BadData):
        outcome("r1", "completed", result, "")


def test_what_the_error_says_is_passed_on() -> None:
    """Type, message and traceback of the body's error, or why the result was not kept."""
    with pytest.raises(RunFailed, match="ValueError: no rows") as caught:
        outcome("r1", "failed", "", '{"type":"ValueError","message":"no rows","traceback":"line 1","counts":[1]}')
    assert (caught.value.type, caught.value.message, caught.value.traceback) == ("ValueError", "no rows", "line 1")
    with pytest.raises(ResultNotKept, match="too large"):
        outcome("r1", "completed", "", '{"not_kept":"too large"}')
