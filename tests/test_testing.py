"""Jobs are interrupted where a test says, and go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from nbjobs.errors import SettingsError
from nbjobs.jobs import job
from nbjobs.run import Run
from nbjobs.settings import NbJobs, configure
from nbjobs.stepping import step
from nbjobs.testing import assert_event_reported, interrupt_after_step, interrupt_during_step, perform

done: list[object] = []


@pytest.fixture(autouse=True)
def inline(nbjobs_settings: NbJobs) -> Iterator[NbJobs]:
    """Attempts run in this process."""
    done.clear()
    yield configure(adapter="inline")


@job
def load(rows: list[int]) -> int:
    step("prepare", done.append, "prepared")
    for row in step.each("process", rows):
        done.append(row)
    step("pages", pages)
    return len(rows)


def pages() -> None:
    for page in ((1, "a"), (1, "b"), (2, "a")):
        if step.current.cursor is None or page > step.current.cursor:
            done.append(page)
            step.current.set(page)


ALL = ["prepared", 1, 2, 3, (1, "a"), (1, "b"), (2, "a")]


def interrupts(run: Run) -> list[str]:
    return [event.payload["description"] for event in run.events() if event.name == "job.interrupt"]


@pytest.mark.parametrize(
    ("name", "cursor", "place"),
    [
        ("process", 1, "at 'process', cursor 1"),
        ("process", 3, "at 'process', cursor 3"),
        ("pages", (1, "b"), "at 'pages', cursor (1, 'b')"),
    ],
)
def test_a_step_is_interrupted_at_a_cursor(name: str, cursor: object, place: str) -> None:
    """Once, in a loop as in a function, and the next attempt does the rest."""
    with interrupt_during_step(load, name, cursor=cursor):
        run = load.enqueue([1, 2, 3])
    assert (run.state, run.result(), done) == ("completed", 3, ALL)
    assert interrupts(run) == [place]


def test_a_step_is_interrupted_at_its_first_checkpoint() -> None:
    """Where no cursor is given: a loop after its first item."""
    with interrupt_during_step(load, "process"):
        run = load.enqueue([1, 2, 3])
    assert (interrupts(run), done) == (["at 'process', cursor 1"], ALL)


def test_a_run_is_interrupted_between_two_steps() -> None:
    """After the one, before the other begins; a loop is a step as well."""
    for name in ("prepare", "process"):
        done.clear()
        with interrupt_after_step(load, name):
            run = load.enqueue([1, 2, 3])
        assert (interrupts(run), done) == ([f"after '{name}'"], ALL)


def test_each_run_is_interrupted_once() -> None:
    """Also where its cursor stands still, so that it ends."""

    @job
    def stands_still() -> None:
        step("wait", lambda: step.current.checkpoint())

    with interrupt_during_step(stands_still, "wait", cursor=None):
        runs = [stands_still.enqueue() for _ in range(2)]
    assert [interrupts(run) for run in runs] == [["at 'wait', cursor None"]] * 2


def test_two_places_are_both_interrupted() -> None:
    """Blocks may be nested."""
    with interrupt_after_step(load, "prepare"), interrupt_during_step(load, "process", cursor=2):
        run = load.enqueue([1, 2, 3])
    assert (interrupts(run), done) == (["after 'prepare'", "at 'process', cursor 2"], ALL)


def test_other_jobs_and_later_runs_go_through() -> None:
    """Only this job, only in the block."""

    @job
    def other() -> None:
        for _ in step.each("process", [1, 2]):
            pass

    with interrupt_during_step(load, "process", cursor=2):
        runs = [other.enqueue(), load.enqueue([1, 2, 3])]
    runs.append(load.enqueue([1, 2, 3]))
    assert [len(interrupts(run)) for run in runs] == [0, 1, 0]


def test_async_jobs_are_interrupted_too() -> None:
    """In an `async for` as well."""

    async def rows() -> AsyncIterator[int]:
        for row in (1, 2, 3):
            yield row

    @job
    async def asynchronous() -> None:
        async for row in step.each("process", rows()):
            done.append(row)

    with interrupt_during_step(asynchronous, "process", cursor=2):
        run = asynchronous.enqueue()
    assert (interrupts(run), done) == (["at 'process', cursor 2"], [1, 2, 3])


def test_the_limit_of_resumptions_counts() -> None:
    """A job that may not be resumed fails at the interrupt."""

    @job(max_resumptions=0)
    def once() -> None:
        for row in step.each("process", [1, 2]):
            done.append(row)

    with interrupt_during_step(once, "process", cursor=1), assert_event_reported("job.failed"):
        run = once.enqueue()
    assert (run.state, done) == ("failed", [1])


def test_a_place_that_no_run_reaches_is_told() -> None:
    """With the places where it could have been interrupted."""
    with (
        pytest.raises(AssertionError, match=r"in step 'process' at cursor 7; .*at 'process', cursor 2, "),
        interrupt_during_step(load, "process", cursor=7),
    ):
        load.enqueue([1, 2, 3])
    with pytest.raises(AssertionError, match="between step 'pages' and the next"), interrupt_after_step(load, "pages"):
        load.enqueue([1])


def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    """And nothing is interrupted after it."""
    with pytest.raises(KeyError), interrupt_during_step(load, "process"):
        raise KeyError
    assert interrupts(load.enqueue([1])) == []


def test_only_the_inline_adapter_can_interrupt() -> None:
    """A worker is another process; the message names the setting."""
    configure(adapter="arq")
    with pytest.raises(SettingsError, match='adapter="inline"'), interrupt_after_step(load, "prepare"):
        pass


def test_a_queued_run_is_performed_here() -> None:
    """A failed one that was opened again goes on, with a job that cannot be imported too."""

    @job
    def picky() -> str:
        step("prepare", done.append, "prepared")
        if len(done) == 1:
            done.append("failed")
            raise KeyError("x")
        return "well"

    run = picky.options(id="picky").enqueue()
    assert run.state in ("failed", "completed")
    if run.state == "failed":
        run.retry()
        perform(run, picky)
    assert (run.state, run.result(), done) == ("completed", "well", ["prepared", "failed"])
