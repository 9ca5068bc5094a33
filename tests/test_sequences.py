"""What each course of a run tells, from its enqueue to its end: the events, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from nbjobs import events
from nbjobs.errors import Interrupt
from nbjobs.jobs import job
from nbjobs.keys import Keys
from nbjobs.retries import Retry
from nbjobs.run import Run
from nbjobs.settings import NbJobs, configure
from nbjobs.stepping import interrupt, step
from nbjobs.testing import capture_events, interrupt_after_step, interrupt_during_step, perform

SHORT = {"step_started": "begin", "step": "end", "step_skipped": "skip"}
done: list[object] = []


@pytest.fixture(autouse=True)
def inline(nbjobs_settings: NbJobs) -> Iterator[NbJobs]:
    """Attempts run in this process, one after the other, without waiting."""
    done.clear()
    yield configure(adapter="inline")


def course(run: Run) -> str:
    """The events of a run in short; a bar before each attempt."""
    words = []
    for event in run.events():
        name = event.name.removeprefix("job.")
        if name in SHORT:
            mark = "!" if event.payload.get("exception") else "?" if event.payload.get("interrupted") else ""
            words.append(f"{SHORT[name]} {event.payload['step']}{mark}")
        elif name == "started":
            words.append("|")
        elif name not in ("enqueued", "progress"):
            words.append(name)
    return ", ".join(words).replace("|, ", "| ")


def told(run: Run, name: str) -> list[dict[str, Any]]:
    return [event.payload for event in run.events() if event.name == name]


def fails_once(error: Exception) -> None:
    """A step's body that raises in the first attempt."""
    done.append("tried")
    if done.count("tried") == 1:
        raise error


@job
def abc() -> None:
    step("a", done.append, "a")
    for _ in step.each("b", range(3)):
        pass
    step("c", done.append, "c")


@job(retry_on=[ValueError])
def picky(x: int) -> None: ...


def test_undisturbed() -> None:
    """Each step begins and ends once, and the run once."""
    assert course(abc.enqueue()) == "| begin a, end a, begin b, end b, begin c, end c, completed"


def test_interrupted_in_a_step() -> None:
    """The step ends as interrupted, then the attempt; the next goes on in the middle of it."""
    with interrupt_during_step(abc, "b", cursor=2):
        run = abc.enqueue()
    assert course(run) == (
        "| begin a, end a, begin b, end b?, interrupt, | resume, skip a, begin b, end b, begin c, end c, completed"
    )
    assert told(run, "job.interrupt")[0]["description"] == "at 'b', cursor 2"
    assert told(run, "job.resume")[0]["description"] == "at 'b', cursor 2"


def test_interrupted_between_two_steps() -> None:
    """No step is told as interrupted."""
    with interrupt_after_step(abc, "a"):
        run = abc.enqueue()
    assert course(run) == "| begin a, end a, interrupt, | resume, skip a, begin b, end b, begin c, end c, completed"
    assert told(run, "job.interrupt")[0]["description"] == "after 'a'"


def test_an_isolated_step_in_the_middle() -> None:
    """An attempt before it, one for it, one behind it."""

    @job
    def isolates() -> None:
        step("a", str)
        step(name="b", isolated=True)(str)()
        step("c", str)

    run = isolates.enqueue()
    assert course(run) == (
        "| begin a, end a, interrupt, "
        "| resume, skip a, begin b, end b, interrupt, "
        "| resume, skip a, skip b, begin c, end c, completed"
    )
    assert [payload["reason"] for payload in told(run, "job.interrupt")] == ["isolating"] * 2


def test_an_isolated_step_at_the_end() -> None:
    """No attempt behind it; hops count as resumptions."""

    def isolates() -> None:
        step("a", str)
        step(name="b", isolated=True)(str)()

    run = job(max_resumptions=1)(isolates).enqueue()
    assert course(run) == "| begin a, end a, interrupt, | resume, skip a, begin b, end b, completed"
    run = job(max_resumptions=0)(isolates).enqueue()
    assert course(run) == "| begin a, end a, failed"


def test_an_error_after_progress() -> None:
    """It is told with the exception, waits, and goes on; there is no interrupt."""

    @job
    def fails() -> None:
        step("a", str)
        step("b", fails_once, OSError("gone"))

    run = fails.enqueue()
    assert (
        course(run) == "| begin a, end a, begin b, end b!, retry_scheduled, | resume, skip a, begin b, end b, completed"
    )
    (payload,) = told(run, "job.retry_scheduled")
    assert (payload["wait_seconds"], payload["exception"]["type"], payload["failures"]) == (5, "OSError", 1)


def test_an_error_without_progress() -> None:
    """The run fails; `enqueue` raises nothing."""

    @job
    def fails() -> None:
        step("b", fails_once, OSError("gone"))

    run = fails.enqueue()
    assert course(run) == "| begin b, end b!, failed"
    assert told(run, "job.failed")[0]["reason"] == "exception"


def test_an_error_that_is_to_be_retried() -> None:
    """Told once, with the wait and the exception; nothing is enqueued anew."""

    @job(retry_on=[Retry(OSError, wait=7, jitter=0)])
    def fails() -> None:
        step("b", fails_once, OSError("gone"))

    run = fails.enqueue()
    assert course(run) == "| begin b, end b!, retry_scheduled, | resume, begin b, end b, completed"
    (payload,) = told(run, "job.retry_scheduled")
    assert (payload["wait_seconds"], payload["exception"]["message"]) == (7, "gone")
    assert len(told(run, "job.enqueued")) == 1


def test_a_retry_goes_on_at_its_cursor() -> None:
    """Progress is kept whoever decides; what is declared comes before the rule of progress."""

    @job(retry_on=[Retry(OSError, wait=7, jitter=0)])
    def fails() -> None:
        for row in step.each("b", range(4)):
            done.append(row)
            if row == 2:
                fails_once(OSError("gone"))

    run = fails.enqueue()
    assert told(run, "job.retry_scheduled")[0]["wait_seconds"] == 7
    assert told(run, "job.step_started")[-1]["cursor"] == 2
    assert [row for row in done if row != "tried"] == [0, 1, 2, 2, 3]


def test_retries_that_are_used_up() -> None:
    """Told before the end."""

    @job(retry_on=[Retry(OSError, wait=0, attempts=2)])
    def fails() -> None:
        raise OSError("gone")

    run = fails.enqueue()
    assert course(run) == "| retry_scheduled, | retry_stopped, failed"
    assert told(run, "job.retry_stopped")[0]["failures"] == 2


def test_an_error_that_is_to_be_discarded() -> None:
    """Told before the end, even after progress."""

    @job(discard_on=[KeyError])
    def fails() -> None:
        step("a", str)
        step("b", fails_once, KeyError("x"))

    run = fails.enqueue()
    assert course(run) == "| begin a, end a, begin b, end b!, discarded, failed"
    assert told(run, "job.failed")[0]["reason"] == "discarded"


def test_resumed_too_often() -> None:
    """The attempt that may not be resumed is the last."""

    @job(max_resumptions=1)
    def stops() -> None:
        for row in step.each("b", range(9)):
            if row > len(done):
                done.append(row)
                interrupt()

    run = stops.enqueue()
    assert course(run) == "| begin b, end b?, interrupt, | resume, begin b, end b?, failed"
    (payload,) = told(run, "job.failed")
    assert (payload["reason"], payload["exception"]["type"]) == ("resume limit", "ResumeLimitError")


def test_stopped_before_there_is_progress() -> None:
    """It does not count, so a limit is not used up by it."""

    @job(max_resumptions=1)
    def waits() -> None:
        done.append("attempt")
        if len(done) < 4:
            interrupt("waiting")
        step("a", str)

    run = waits.enqueue()
    assert course(run) == "| interrupt, | interrupt, | interrupt, | begin a, end a, completed"
    assert {(payload["reason"], payload["description"]) for payload in told(run, "job.interrupt")} == {
        ("waiting", "not started")
    }


def test_arguments_that_cannot_be_read(redis_client: redis.Redis) -> None:
    """The run has begun, and fails as bad data; nothing is tried again."""
    configure(adapter="arq")
    run = picky.enqueue(1)
    configure(adapter="inline")
    redis_client.hset(Keys("ada").run(run.id), "args", '{"$what":1}')
    perform(run, picky)
    assert course(run) == "| failed"
    assert told(run, "job.failed")[0]["reason"] == "bad data"


def test_a_callback_that_raises() -> None:
    """It counts as the body's error: before a body nothing has advanced, so the run fails."""

    @job
    def body() -> None:
        step("a", str)

    @body.before_perform
    def refuse(attempted: object) -> None:
        raise PermissionError

    assert course(body.enqueue()) == "| failed"


def test_what_is_after_a_body_runs_when_it_has_returned() -> None:
    """Not where the attempt was interrupted; what is around it ends each time."""

    @job
    def stops() -> None:
        step("a", str)
        if not done:
            done.append("stop")
            interrupt()

    @stops.around_perform
    def around(attempted: object) -> Iterator[None]:
        try:
            yield
        finally:
            done.append("around")

    stops.after_perform(lambda attempted: done.append("after"))
    assert stops.enqueue().state == "completed"
    assert done == ["stop", "around", "after", "around"]


# -- what every event says -------------------------------------------------------------------------------------------


def test_each_event_names_job_run_and_attempt() -> None:
    """Durations are milliseconds with two decimals; arguments are in none."""

    @job
    def sums(rows: list[str]) -> None:
        for _ in step.each("b", rows):
            pass

    run = sums.enqueue(["forty-one", "forty-two"])
    for event in run.events():
        payload = event.payload
        assert (payload["job"], payload["job_id"]) == (sums.name, run.id)
        assert payload["attempt"] == (0 if event.name == "job.enqueued" else 1)
        assert "forty" not in str(payload)
    for payload in (*told(run, "job.step"), *told(run, "job.completed")):
        assert payload["duration"] == round(payload["duration"], 2) >= 0


def test_an_enqueued_run_says_where() -> None:
    """Queue and adapter; a delayed one is told as such, with its time in ms. When it starts it says since when."""
    at_once, later = abc.options(queue="gpu").enqueue(), abc.options(delay=60).enqueue()
    assert (told(at_once, "job.enqueued")[0]["queue"], told(at_once, "job.enqueued")[0]["adapter"]) == ("gpu", "inline")
    (started,) = [event for event in at_once.events() if event.name == "job.started"]
    assert started.payload["queue"] == "gpu"
    assert 0 <= started.timestamp // 1_000_000 - started.payload["enqueued_at"] < 20_000
    (payload,) = told(later, "job.enqueued_at")
    assert payload["scheduled_at"] > 1_000_000_000_000
    assert later.cancel() == "cancelled"


def test_several_runs_are_told_together_as_well() -> None:
    """Once, in the process that enqueues; each has its own event all the same."""

    @job
    def double(x: int) -> None: ...

    with capture_events() as reported:
        double.enqueue_all([1, 2, 3])
    (bulk,) = [event.payload for event in reported if event.name == "job.bulk_enqueued"]
    assert (bulk["count"], bulk["jobs"], bulk["adapter"]) == (3, {double.name: 3}, "inline")
    assert [event.name for event in reported].count("job.enqueued") == 3


def test_progress_is_told_while_a_step_runs() -> None:
    """With cursor, count and total, and without a number: it is no change of the run's state."""

    @job
    def commits() -> None:
        for _ in step.each("b", range(3), every=1):
            pass

    run = commits.enqueue()
    names = [event.name for event in run.events()]
    assert names.index("job.step_started") < names.index("job.progress") < names.index("job.step")
    (event, *_) = [event for event in run.events() if event.name == "job.progress"]
    payload = event.payload
    assert (payload["step"], payload["done"], payload["total"], payload["cursor"]) == ("b", 1, 3, 1)
    assert event.n is None


def test_subscribers_errors_do_not_reach_a_job() -> None:
    """Not even with `raise_on_error`."""

    def fails(event: events.Event) -> None:
        raise KeyError

    events.subscribe(fails, names="job.*")
    events.reporter.raise_on_error = True
    try:
        assert abc.enqueue().state == "completed"
    finally:
        events.reporter.raise_on_error = False
        events.unsubscribe(fails)


@pytest.mark.parametrize("swallow", [Exception, Interrupt])
def test_an_interrupt_holds_where_a_body_catches_it(swallow: type[BaseException]) -> None:
    """`except Exception` does not see it, and who catches it all the same gets it again."""

    def body(catch: Callable[[], None]) -> None:
        step("a", catch)
        step("b", str)

    @job
    def careless() -> None:
        def catch() -> None:
            try:
                if not done:
                    done.append("stop")
                    interrupt()
            except swallow:
                done.append("caught")

        body(catch)

    run = careless.enqueue()
    assert run.state == "completed"
    assert len(told(run, "job.interrupt")) == 1
    assert ("caught" in done) is (swallow is Interrupt)
