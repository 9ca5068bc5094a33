"""One attempt after the other, on a real Redis, in this process: the decision table and what it writes."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from nbjobs import connection, context, events, journal
from nbjobs.callbacks import Attempted
from nbjobs.cursors import unpack_cursor
from nbjobs.errors import InvalidStepError, ResultNotKept, RunFailed
from nbjobs.events import Event, notify
from nbjobs.jobs import Job, job
from nbjobs.journal import Journal
from nbjobs.keys import Keys
from nbjobs.retries import Retry
from nbjobs.run import Run
from nbjobs.settings import NbJobs, configure
from nbjobs.sinks.stream import StreamSink
from nbjobs.stepping import interrupt, step
from nbjobs.steps import Step
from nbjobs.store import Store
from nbjobs.testing import interrupt_during_step

from .support import wait_until

done: list[object] = []


@pytest.fixture(autouse=True)
def inline(nbjobs_settings: NbJobs) -> Iterator[NbJobs]:
    """Attempts run in this process, one after the other."""
    done.clear()
    yield configure(adapter="inline")


def names(run: Run) -> list[str]:
    return [event.name for event in run.events() if event.name != "job.progress"]


def told(run: Run, name: str) -> Event:
    return next(event for event in run.events() if event.name == name)


@job
def plain(x: int) -> int:
    return 2 * x


@job
def in_steps(rows: list[int]) -> str:
    step("prepare", done.append, "prepared")
    for row in step.each("process", rows):
        done.append(row)
    return step("finalize", "{}!".format, "done")


@job
def two_steps(rows: list[int]) -> None:
    step("prepare", done.append, "prepared")
    for row in step.each("process", rows):
        done.append(row)


@job
def fails_once_after_progress() -> None:
    for row in step.each("process", [1, 2, 3]):
        done.append(row)
        if row == 2 and done.count(2) == 1:
            raise OSError("the line went dead")


@job
def fails_at_once(key: str) -> None:
    {}[key]


@job
def repeats_a_step() -> None:
    step("a", list)
    step("a", list)


@job
def returns_no_data() -> object:
    return threading.Lock()


@job
async def asynchronous(rows: list[int]) -> int:
    async def total() -> int:
        return sum(rows)

    for row in step.each("process", rows):
        done.append(row)
    return await step("total", total)


@job
def tells(rows: list[int]) -> None:
    with events.tagged(source="crm"):
        notify("import.prepared", total=len(rows))
    for row in step.each("process", rows):
        notify("import.row", row=row)


def test_a_job_that_returns_is_completed_with_its_value() -> None:
    """The value is the result, and the events tell it once."""
    run = plain.enqueue(21)
    assert run.state == "completed"
    assert run.result() == 42
    assert names(run) == ["job.enqueued", "job.started", "job.completed"]


def test_steps_run_in_order_and_their_events_tell_it() -> None:
    """Each step has a beginning and an end, with its cursor and duration."""
    run = in_steps.enqueue([1, 2, 3])
    assert run.result() == "done!"
    assert done == ["prepared", 1, 2, 3]
    assert names(run) == [
        "job.enqueued",
        "job.started",
        *["job.step_started", "job.step"] * 3,
        "job.completed",
    ]
    process = [event for event in run.events() if event.payload.get("step") == "process"][-1]
    assert process.payload["done"] == process.payload["total"] == 3
    assert process.payload["duration"] >= 0


def spin() -> None:
    """Use the processor for 2.5 ms."""
    until = time.perf_counter() + 0.0025
    while time.perf_counter() < until:
        pass


@job
def spins_in_a_loop(count: int) -> None:
    for _ in step.each("spins", range(count)):
        spin()


@job
async def spins_in_an_async_loop(count: int) -> None:
    async for _ in step.each("spins", range(count)):
        spin()


def advance_and_spin(count: int) -> None:
    for _ in range(count):
        spin()
        step.current.advance(0 if step.current.cursor is None else None)


@job
def spins_in_a_function(count: int) -> None:
    step("spins", advance_and_spin, count)


@pytest.mark.parametrize("spins", [spins_in_a_loop, spins_in_an_async_loop, spins_in_a_function])
def test_a_loop_commits_by_the_clock_where_the_ticker_gets_no_turn(
    spins: Job[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside a body whose system calls are short: they keep all other threads from the interpreter."""
    monkeypatch.setattr(Journal, "tick", lambda journal, now: None)

    def commits(count: int) -> int:
        run = spins.enqueue(count)
        assert run.state == "completed"
        return int(connection.client().hget(Keys(run.user).run(run.id), "c") or 0)

    assert commits(120) >= commits(0) + 4  # in 0.3 s


@pytest.mark.parametrize(("trips", "pause"), [([1, 80, 1, 1, 80, 1, 1, 1, 80], 0.03), ([80] * 9, 0.4)])
def test_commits_come_less_often_where_most_of_them_take_long(
    trips: list[int], pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a fifth of the time. A few slow ones, as on a busy machine, stretch no pause: a kill would repeat more."""
    clock = [1000.0]
    ticking = SimpleNamespace(monotonic=lambda: clock[0], monotonic_ns=time.monotonic_ns, sleep=time.sleep)
    monkeypatch.setattr(journal, "time", ticking)
    monkeypatch.setattr(Journal, "tick", lambda journal, now: None)

    def commit(store: Store, *args: Any) -> Any:
        clock[0] += took
        return real(store, *args)

    def commit_often() -> list[bool]:
        nonlocal took
        for number, ms in enumerate(trips):
            began, took = clock[0], ms / 1000
            step.current.advance(number)
            step.current.checkpoint()
        run: Any = step.current._owner
        return [run.is_due(began + pause + off, 0.2) for off in (-0.001, 0.001)]

    @job
    def commits() -> Any:
        return step("commits", commit_often)

    real, took = Store.commit, 0.0
    monkeypatch.setattr(Store, "commit", commit)
    assert commits.enqueue().result() == [False, True]


def test_state_events_are_numbered_without_a_hole() -> None:
    """A reader can prove that it saw every one."""
    run = in_steps.enqueue([1, 2])
    numbered = [event.n for event in run.events() if event.n is not None]
    assert numbered == list(range(1, len(numbered) + 1))


def test_every_event_has_the_run_and_its_user_in_its_context() -> None:
    """Own events and the framework's."""
    run = tells.enqueue([1])
    seen = list(run.events())
    assert {"import.prepared", "import.row", "job.step"} <= {event.name for event in seen}
    for event in seen:
        assert event.context["job_id"] == run.id, event.name
        assert event.context["user_id"] == "ada", event.name
    assert told(run, "import.prepared").tags == {"source": "crm"}
    assert told(run, "import.prepared").payload == {"total": 1}


def test_a_run_takes_no_context_and_leaves_none() -> None:
    """What the enqueuer has set is in its own events; what the body sets ends with it."""

    @job
    def sets() -> None:
        events.set_context(row=1)
        notify("own")

    events.set_context(request=7)
    try:
        run = sets.enqueue()
        assert events.get_context() == {"request": 7}
    finally:
        events.clear_context()
    assert told(run, "job.enqueued").context == {"request": 7, "user_id": "ada", "job_id": run.id}
    assert told(run, "own").context == {"row": 1, "user_id": "ada", "job_id": run.id}


def test_only_own_events_point_at_a_line() -> None:
    """That of the user's; the framework's have none, instead of one in nbjobs."""
    run = tells.enqueue([])
    assert (told(run, "import.prepared").source_location or {})["filepath"] == __file__
    assert {event.source_location for event in run.events() if event.name.startswith("job.")} == {None}


def test_what_a_bodys_own_thread_notifies_is_missed_aloud(caplog: pytest.LogCaptureFixture) -> None:
    """A thread begins without the context, so its events are in no run: said once, with the way out."""

    @job
    def threads() -> None:
        notify("own")
        for target in (notify, notify, contextvars.copy_context().run):
            thread = threading.Thread(target=target, args=("lost",) if target is notify else (notify, "copied"))
            thread.start()
            thread.join()

    sink = events.subscribe(StreamSink(), names=["lost"])  # the usual one may have said it in another test
    try:
        run = threads.enqueue()
    finally:
        events.unsubscribe(sink)
    assert [name for name in names(run) if not name.startswith("job.")] == ["own", "copied"]
    (message,) = {record.getMessage() for record in caplog.records if record.name == "nbjobs.events"}
    assert "copy_context().run" in message


def test_an_interrupted_job_goes_on_where_it_was() -> None:
    """Nothing that was done is done again, and the second attempt says so."""
    with interrupt_during_step(two_steps, "process", cursor=3):
        run = two_steps.enqueue([1, 2, 3, 4, 5])
    assert run.state == "completed"
    assert done == ["prepared", 1, 2, 3, 4, 5]
    seen = names(run)
    assert seen[seen.index("job.interrupt") :] == [
        "job.interrupt",
        "job.started",
        "job.resume",
        "job.step_skipped",
        "job.step_started",
        "job.step",
        "job.completed",
    ]
    assert told(run, "job.interrupt").payload["reason"] == "stopping"
    assert told(run, "job.resume").payload["description"] == "at 'process', cursor 3"
    resumed = [event for event in run.events() if event.name == "job.step_started"][-1]
    assert resumed.payload["resumed"] is True
    assert resumed.payload["cursor"] == 3


def test_an_error_after_progress_is_resumed() -> None:
    """What was done stays done; the item that failed is tried again."""
    run = fails_once_after_progress.enqueue()
    assert run.state == "completed"
    assert done == [1, 2, 2, 3]
    retry = told(run, "job.retry_scheduled")
    assert retry.payload["exception"]["type"] == "OSError"
    assert retry.payload["wait_seconds"] == 5


def test_an_error_without_progress_fails_the_run() -> None:
    """``result`` raises what the body raised, as text that begins with the user's own frame."""
    run = fails_at_once.enqueue("colour")
    assert run.state == "failed"
    with pytest.raises(RunFailed, match="KeyError: 'colour'") as raised:
        run.result()
    assert raised.value.type == "KeyError"
    frames = [line for line in raised.value.traceback.splitlines() if line.strip().startswith("File")]
    assert "test_runner.py" in frames[0]
    assert told(run, "job.failed").payload["reason"] == "exception"


def test_a_wrong_use_of_steps_fails_even_after_progress() -> None:
    """It would be as wrong on every attempt."""
    run = repeats_a_step.enqueue()
    assert run.state == "failed"
    with pytest.raises(RunFailed, match=f"{InvalidStepError.__name__}: Step 'a' has already been encountered"):
        run.result()


def test_a_result_that_is_no_data_completes_the_run_all_the_same() -> None:
    """The work is done; ``result`` says why there is nothing to return."""
    run = returns_no_data.enqueue()
    assert run.state == "completed"
    with pytest.raises(ResultNotKept, match="lock"):
        run.result()


def test_an_async_job_has_steps_too() -> None:
    """Plain loops and awaited steps."""
    run = asynchronous.enqueue([1, 2, 3])
    assert run.result() == 6
    assert done == [1, 2, 3]


def test_resumptions_have_a_limit_where_the_job_declares_one() -> None:
    """The run fails instead of going on for ever."""

    @job(max_resumptions=2)
    def never_ends() -> None:
        for _ in step.each("process", range(100)):
            if step.current.done > len(done):
                done.append(step.current.done)
                interrupt()

    run = never_ends.enqueue()
    assert run.state == "failed"
    assert len(done) == 3
    with pytest.raises(RunFailed, match="Job was resumed a maximum of 2 times"):
        run.result()


def test_progress_is_durable_while_the_loop_goes_on() -> None:
    """The store holds what is done within the cadence, not at the end of the step only."""

    @job
    def looks_itself_up(id: str) -> int:
        store = connection.client()
        key = Keys("ada").run(id)
        for row in step.each("process", range(1_000_000_000)):
            if row % 1000 == 0 and int(store.hget(key, "done") or 0) > 1000:
                return row
        raise AssertionError

    run = looks_itself_up.options(id="fast").enqueue("fast")
    assert run.result() > 1000
    step_event = [event for event in run.events() if event.name == "job.step"][-1]
    assert step_event.payload["done"] < step_event.payload["total"]


@pytest.mark.parametrize("pair", [(1, True), (2, 2.0), (Decimal("1.1"), Decimal("1.10"))], ids=repr)
def test_a_cursor_that_only_equals_the_last_one_is_committed(pair: tuple[object, object]) -> None:
    """``True == 1``, and still they are two cursors."""
    kept: list[object] = []

    @job
    def sets_both() -> None:
        def move() -> None:
            for value in pair:
                step.current.set(value)
                step.current.checkpoint()
                text = connection.client().hget(Keys("ada").run("twins"), "cursor")
                kept.append(unpack_cursor(text).value)

        step("move", move)

    sets_both.options(id="twins").enqueue()
    assert [repr(value) for value in kept] == [repr(value) for value in pair]


def test_slow_items_are_committed_one_by_one() -> None:
    """An item that takes longer than the cadence is durable before the next one begins."""
    gate = threading.Event()

    @job
    def slow(id: str) -> None:
        key = Keys("ada").run(id)
        for row in step.each("process", range(3)):
            assert int(connection.client().hget(key, "done") or 0) == row
            gate.wait(0.12)

    assert slow.options(id="slow").enqueue("slow").state == "completed"


def test_changed_data_pauses_the_run_and_shows_both_lists() -> None:
    """Reordered input would skip items or repeat them."""
    rows = ["a", "b", "c", "d"]

    def reversed_rows() -> list[str]:
        return rows[::-1]

    @job
    def reordered() -> None:
        for row in step.each("process", reversed_rows() if done else rows):
            done.append(row)

    with interrupt_during_step(reordered, "process", cursor=3):
        run = reordered.enqueue()
    assert run.state == "paused"
    last = [event for event in run.events() if event.name == "job.interrupt"][-1]
    assert last.payload["reason"] == "changed"
    assert last.payload["stored"] and last.payload["found"]
    assert run.cancel() == "cancelled"


def test_own_events_beyond_fifty_a_second_are_thinned_and_counted() -> None:
    """The latest of a name always arrives, and how many are missing is told."""

    @job
    def storm() -> None:
        for row in step.each("process", range(3000)):
            notify("row", row=row)

    run = storm.enqueue()
    rows = [event.payload["row"] for event in run.events() if event.name == "row"]
    assert rows[-1] == 2999
    assert len(rows) < 400
    ended = [event for event in run.events() if event.name == "job.step"][-1]
    assert ended.payload["dropped"] + len(rows) == 3000


def test_subscribers_in_the_process_see_each_event() -> None:
    """The framework's and the body's own, in order."""
    seen: list[str] = []

    def listen(event: Event) -> None:
        seen.append(event.name)

    events.subscribe(listen)
    try:
        run = tells.enqueue([1, 2])
    finally:
        events.unsubscribe(listen)
    wait_until(lambda: run.state == "completed", 5, "the run's end")
    assert [name for name in seen if name != "job.progress"] == [
        "job.enqueued",
        "job.started",
        "import.prepared",
        "job.step_started",
        "import.row",
        "import.row",
        "job.step",
        "job.completed",
    ]


def test_what_is_around_an_attempt_runs_each_time() -> None:
    """In the order declared, with the attempt in hand; an error in it counts as the body's."""

    @job
    def body() -> None:
        done.append("body")

    @body.around_perform
    def around(attempted: Attempted) -> Iterator[None]:
        done.append(f"open {attempted.attempt}")
        yield
        done.append("close")

    body.before_perform(lambda attempted: done.append(f"before {attempted.user}"))
    body.after_perform(lambda attempted: done.append("after"))
    assert body.enqueue().state == "completed"
    assert done == ["open 1", "before ada", "body", "after", "close"]

    @body.before_perform
    def refuses(attempted: Attempted) -> None:
        raise PermissionError("not today")

    with pytest.raises(RunFailed, match="PermissionError: not today"):
        body.enqueue().result()


def test_a_type_error_of_the_body_is_an_error_like_others() -> None:
    """Only arguments that do not fit the function mean that the code has changed."""

    @job
    def adds(x: int) -> int:
        return x + "1"  # type: ignore[operator]

    with pytest.raises(RunFailed, match="TypeError: unsupported operand"):
        adds.enqueue(1).result()


@pytest.mark.parametrize("retries", [[], [Retry(TimeoutError, wait=0, attempts=2)]])
def test_a_timeout_ends_an_attempt_like_an_error(retries: list[Retry]) -> None:
    """At the next checkpoint; ``retry_on=TimeoutError`` catches it."""

    @job(timeout=0.1, retry_on=retries, resume_errors_after_advancing=False)
    def slow() -> None:
        done.append("attempt")
        for _ in step.each("wait", range(10_000)):
            threading.Event().wait(0.005)

    run = slow.enqueue()
    with pytest.raises(RunFailed, match="TimeoutError: the attempt took longer"):
        run.result()
    assert done == ["attempt"] * (len(retries) + 1)


def test_a_timeout_cancels_an_async_body() -> None:
    """Where it waits, without a checkpoint."""

    @job(timeout=0.1)
    async def waits() -> None:
        await asyncio.sleep(60)

    with pytest.raises(RunFailed, match="TimeoutError"):
        waits.enqueue().result()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.fault(59)
def test_a_fork_of_a_body_writes_nothing_of_its_run() -> None:
    """It has a copy of everything, and the run is not its to write; the parent goes on."""

    @job
    def forks() -> int:
        step("before", done.append, "before")
        pid = os.fork()
        step("after", done.append, "after")
        if pid == 0:
            raise ForkedError
        return os.waitpid(pid, 0)[1]

    class ForkedError(Exception):
        pass

    parent = os.getpid()
    try:
        run = forks.enqueue()
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert run.result() == 0
    assert names(run).count("job.step") == 2
    assert names(run)[-1] == "job.completed"


@job
def ends_an_item_while_it_is_committed() -> None:
    writer: Any = context.carrier()
    standing = Step.standing

    def slow(self: Step, *given: Any) -> Any:
        found = standing(self, *given)
        self.done += 1  # what the loop does meanwhile
        return found

    for row in step.each("process", [1, 2, 3]):
        if row == 2:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Step, "standing", slow)
                done.append(writer.commit())
            done.append(writer.commit())


@pytest.mark.weather("M12")
def test_an_item_that_ends_while_another_thread_commits_is_committed_next() -> None:
    """What a commit holds, and what counts as written by it, is read once."""
    ends_an_item_while_it_is_committed.enqueue()
    assert done == [True, True]
