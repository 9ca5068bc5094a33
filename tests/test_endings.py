"""The decision table, row by row, without Redis."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from nbjobs import events
from nbjobs.endings import Facts, Policy, after_error, after_return, counts_of, exception
from nbjobs.errors import BadData, Interrupt, InvalidStepError, StepsChanged
from nbjobs.event import EVENT_LIMIT, Event
from nbjobs.journal import Ending
from nbjobs.plain import clean_text
from nbjobs.retries import Retry, declared, discarded, first_match
from nbjobs.shown import cut, masked

from .faults import endjobs
from .hostile import HOSTILE

FRESH = Facts(Policy())
ADVANCED = Facts(Policy(), advanced=True, description="at 'load', cursor 5", resumptions=1)


def test_a_value_completes_the_run() -> None:
    """With the codec's text, and a preview for the card."""
    ending = after_return({"rows": 3})
    assert (ending.outcome, ending.result) == ("completed", '{"rows":3}')
    assert ending.payload["result_preview"] == "{'rows': 3}"


def test_a_value_that_is_no_data_completes_it_too() -> None:
    """With the reason why it is not kept."""
    ending = after_return(object())
    assert (ending.outcome, ending.result) == ("completed", "")
    assert "object" in json.loads(ending.error)["not_kept"]


@pytest.mark.parametrize("error", [Interrupt("stopping"), asyncio.CancelledError(), KeyboardInterrupt()])
def test_an_interrupt_releases_the_run(error: BaseException) -> None:
    """No failure is counted of a stop that was asked for."""
    ending = after_error(error, FRESH._replace(asked=True))
    assert (ending.outcome, ending.failed, ending.payload["reason"]) == ("released", False, "stopping")


def test_steps_that_no_longer_fit_pause_the_run() -> None:
    """With both lists."""
    ending = after_error(StepsChanged("changed", stored=["a"], found=["b"]), ADVANCED)
    assert (ending.outcome, ending.payload["stored"], ending.payload["found"]) == ("paused", ["a"], ["b"])


def test_an_error_fails_a_run_without_progress() -> None:
    """And counts as a failure."""
    ending = after_error(OSError("gone"), FRESH)
    assert (ending.outcome, ending.failed, ending.payload["reason"]) == ("failed", True, "exception")
    assert ending.payload["exception"]["message"] == "gone"


def test_an_error_after_progress_is_tried_again() -> None:
    """After ``resume_wait``."""
    ending = after_error(OSError("gone"), ADVANCED)
    assert (ending.outcome, ending.wait, ending.payload["failures"]) == ("retrying", 5.0, 1)


@pytest.mark.parametrize("error", [InvalidStepError("nested"), BadData("none of ours"), SystemExit(1)])
def test_some_errors_fail_a_run_even_after_progress(error: BaseException) -> None:
    """They would come again, or are meant to end it."""
    assert after_error(error, ADVANCED).outcome == "failed"


def test_resuming_has_the_limit_that_the_job_declares() -> None:
    """For stops and errors alike, in Rails' words."""
    facts = Facts(Policy(max_resumptions=1), advanced=True, resumptions=1)
    for error in (Interrupt("stopping"), OSError("gone")):
        ending = after_error(error, facts)
        assert (ending.outcome, ending.payload["reason"]) == ("failed", "resume limit")
        assert ending.payload["exception"]["message"] == "Job was resumed a maximum of 1 times"


def test_the_limit_of_resumptions_is_not_retried_away() -> None:
    """A job that retries all its errors is not resumed more often than it allows."""
    policy = Policy(max_resumptions=0, retry_on=declared([Exception]))
    assert after_error(Interrupt("stopping"), Facts(policy)).outcome == "failed"


def test_a_limit_of_n_allows_n_resumptions() -> None:
    """None is without limit, 0 ends at the first interrupt."""

    def resumed(limit: int | None) -> list[bool]:
        facts = [Facts(Policy(max_resumptions=limit), resumptions=k) for k in range(4)]
        return [after_error(Interrupt("stopping"), one).outcome == "released" for one in facts]

    assert resumed(None) == [True, True, True, True]
    assert resumed(2) == [True, True, False, False]
    assert resumed(0) == [False, False, False, False]


def test_errors_after_progress_can_be_left_to_fail() -> None:
    """With ``resume_errors_after_advancing=False`` what is declared decides, or the run fails."""
    policy = Policy(resume_errors_after_advancing=False, retry_on=declared([OSError]))
    facts = ADVANCED._replace(policy=policy)
    assert after_error(KeyError("x"), facts).outcome == "failed"
    assert after_error(OSError("gone"), facts).outcome == "retrying"


def test_a_resumed_error_waits_as_declared() -> None:
    """A stop does not wait: the run goes on at once."""
    facts = ADVANCED._replace(policy=Policy(resume_wait=60))
    assert after_error(OSError("gone"), facts).wait == 60
    assert after_error(Interrupt("stopping"), facts).wait == 0


def test_what_is_discarded_fails_at_once() -> None:
    """Even after progress: what the user declared comes first."""
    ending = after_error(KeyError("x"), ADVANCED._replace(policy=Policy(discard_on=discarded([KeyError]))))
    assert (ending.outcome, ending.payload["reason"]) == ("failed", "discarded")
    assert [name for name, _ in ending.events] == ["job.discarded"]


def test_what_is_declared_is_retried_until_its_attempts_are_used_up() -> None:
    """Each declaration counts for itself, the first attempt included."""
    retries = declared([Retry(OSError, wait=7, attempts=2, jitter=0), KeyError])
    facts = Facts(Policy(retry_on=retries))
    first = after_error(OSError("gone"), facts)
    assert (first.outcome, first.wait) == ("retrying", 7.0)
    counts = counts_of(first.error)
    assert counts == {"OSError": 1}
    other = after_error(KeyError("x"), facts._replace(counts=counts))
    assert counts_of(other.error) == {"OSError": 1, "KeyError": 1}
    last = after_error(OSError("gone"), facts._replace(counts=counts))
    assert (last.outcome, [name for name, _ in last.events]) == ("failed", ["job.retry_stopped"])


def test_counts_survive_a_deploy_in_between() -> None:
    """A release keeps what the next attempt has to know."""
    ending = after_error(Interrupt("stopping"), FRESH._replace(counts={"OSError": 1}))
    assert counts_of(ending.error) == {"OSError": 1}


def test_retries_may_be_without_end() -> None:
    """``attempts=None``: each failure is tried again."""
    facts = Facts(Policy(retry_on=(Retry(OSError, attempts=None),)), counts={"OSError": 10**6})
    assert after_error(OSError("gone"), facts).outcome == "retrying"


def test_the_fixed_wait_is_three_seconds_and_five_attempts() -> None:
    """A bare class is Rails' own default, but for the jitter of its generated apps."""
    (retry,) = declared([OSError])
    assert (retry.wait, retry.attempts, retry.jitter) == (3.0, 5, 0.15)


@pytest.mark.parametrize(
    ("wait", "expected"),
    [(4, [4, 4, 4]), ("exponential", [3, 6, 12]), ("polynomial", [3, 18, 83]), (lambda k: k / 2, [0.5, 1, 1.5])],
)
def test_waits_grow_as_declared(wait: object, expected: list[float]) -> None:
    """In seconds, without jitter."""
    retry = Retry(OSError, wait=wait, jitter=0)  # type: ignore[arg-type]
    assert [retry.delay(k) for k in (1, 2, 3)] == expected


def test_jitter_adds_up_to_its_share() -> None:
    """Never less than the wait."""
    delays = [Retry(OSError, wait=10).delay(1) for _ in range(200)]
    assert 10 <= min(delays) < max(delays) <= 11.5


def test_the_first_declaration_that_matches_decides() -> None:
    """As ``except`` clauses are read."""
    retries = declared([ConnectionError, OSError])
    assert first_match(retries, ConnectionResetError()) is retries[0]
    assert first_match(retries, FileNotFoundError()) is retries[1]
    assert first_match(retries, KeyError()) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: declared("OSError"),  # type: ignore[arg-type]
        lambda: declared([OSError("x")]),  # type: ignore[list-item]
        lambda: discarded([KeyboardInterrupt]),
        lambda: Retry(int),  # type: ignore[arg-type]
    ],
)
def test_only_classes_of_errors_are_declared(wrong: object) -> None:
    """The mistake is told where it is written."""
    with pytest.raises(TypeError, match="expected a class of errors"):
        wrong()  # type: ignore[operator]


@pytest.mark.parametrize("wrong", [{"wait": "slowly"}, {"wait": -1}, {"wait": float("nan")}, {"attempts": 0}])
def test_a_retry_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match="expected"):
        Retry(OSError, **wrong)  # type: ignore[arg-type]


# -- errors that do not want to be told ------------------------------------------------------------------------------

BAD = [pytest.param(bad, id=name) for name, bad in HOSTILE.items()]
ODD = [pytest.param(error, id=name) for name, error in endjobs.ODD.items()]
STORED = 64 * 1024  # bytes of an error that Redis takes


def fits(ending: Ending) -> dict[str, str]:
    """Return the error that is stored, which is clean and not too long."""
    assert len(ending.error.encode()) <= STORED
    assert len(events.encode(Event("", ending.payload, {}, {}, 0)).encode()) <= EVENT_LIMIT
    told: dict[str, str] = json.loads(ending.error)
    for text in told.values():
        assert text == clean_text(text)
    return told


@pytest.mark.weather("H5")
@pytest.mark.parametrize("bad", BAD)
def test_an_error_of_any_words_is_told(bad: str) -> None:
    """As its text, the name of its class, its notes and its causes, cleaned and cut."""
    ending = after_error(endjobs.hostile_error(bad), FRESH)
    assert (ending.outcome, ending.failed, ending.payload["reason"]) == ("failed", True, "exception")
    told = fits(ending)
    words = clean_text(bad[:60]).split("\n")[0]
    assert told["message"].startswith(words)
    assert words.strip() in told["traceback"]


@pytest.mark.weather("H5")
@pytest.mark.parametrize("error", ODD)
def test_an_error_that_refuses_to_be_told_is_told_all_the_same(error: BaseException) -> None:
    """At worst by the name of its class: nothing that it raises comes out."""
    try:
        told = fits(after_error(error, FRESH))
    except BaseException:  # what pytest cannot tell either
        raise AssertionError("an error came out of the telling of an error") from None
    assert told["type"] in (type.__dict__["__name__"].__get__(type(error)), "GeneratorExit")


@pytest.mark.weather("H4", "H5")
@pytest.mark.parametrize("character", ['"', "\n", "\\", "é", "語", "🙂", "a"])
def test_a_text_is_cut_by_its_bytes(character: str) -> None:
    """As JSON writes it, with its escapes; whole characters are left, and no more are taken than need be."""
    for end in (False, True):
        for limit in (0, 1, 2, 9, 100):
            text = cut(character * 80, limit, end=end)
            size = len(json.dumps(character, ensure_ascii=False).encode()) - 2
            assert text == character * min(80, limit // size)
    assert cut("ab\ncd", 3) == "ab" and cut("ab\ncd", 4, end=True) == "\ncd"


@pytest.mark.weather("H5")
def test_a_wait_that_cannot_be_computed_fails_the_run() -> None:
    """The error of the function is told, with that of the body behind it."""

    def wait(count: int) -> float:
        raise SystemExit("no idea")

    told = fits(after_error(OSError("gone"), Facts(Policy(retry_on=(Retry(OSError, wait=wait),)))))
    assert (told["type"], told["message"]) == ("SystemExit", "no idea")
    assert "OSError: gone" in told["traceback"]


@pytest.mark.weather("H5")
def test_a_value_that_cannot_be_looked_at_completes_the_run() -> None:
    """Whatever its class raises."""

    class Shy:
        def __repr__(self) -> str:
            raise SystemExit(3)

    ending = after_return(Shy())
    assert (ending.outcome, ending.result, ending.failed) == ("completed", "", False)
    assert "SystemExit" in ending.payload["result_not_kept"]


@pytest.mark.weather("M8")
@pytest.mark.parametrize("text", ["x" * 99 + "=", "key: ", "password=x ", "\n", "'"])
def test_a_long_error_is_cut_before_it_is_masked(text: str) -> None:
    """100 MB cost no more than half a second, and hold the interpreter no longer."""
    error = ValueError(text * (100_000_000 // len(text)))
    began = time.process_time()
    told = exception(error)
    assert time.process_time() - began < 0.5
    assert len(told["message"]) <= 4096
    assert "password=x" not in told["traceback"]


@pytest.mark.weather("M8")
def test_masking_takes_a_time_that_grows_as_the_text_does() -> None:
    """A word without end is looked at once."""
    began = time.process_time()
    assert masked("x" * 1_000_000 + "=") == "x" * 1_000_000 + "="
    assert time.process_time() - began < 0.5


@pytest.mark.weather("H4")
@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt()])
def test_a_stop_that_nobody_asked_for_is_an_error(error: BaseException) -> None:
    """It is counted as others are, and after progress the run goes on."""
    failed, retried = after_error(error, FRESH), after_error(error, ADVANCED)
    assert (failed.outcome, failed.failed) == ("failed", True)
    assert (retried.outcome, retried.failed, retried.wait) == ("retrying", True, 5.0)
