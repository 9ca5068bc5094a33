"""What bodies print is in the logs of their runs, with real processes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from nbjobs import Event, Gap, LogLine, Run
from nbjobs.lines import Line
from nbjobs.running import Running
from nbjobs.settings import NbJobs

from . import workjobs
from .support import wait_until
from .workers import Worker

pytestmark = pytest.mark.leaky  # workers leave their sign, their queue's entries and a lock


@pytest.fixture
def url(redis_url: str, nbjobs_settings: NbJobs) -> str:
    return redis_url


def lines(run: Run) -> list[LogLine]:
    """The whole log of a run that ends."""
    found = list(run.logs(follow=True))
    assert not [one for one in found if isinstance(one, Gap)]
    return [one for one in found if isinstance(one, LogLine)]


def texts(run: Run) -> list[str]:
    return [line.text for line in lines(run)]


def story(run: Run) -> list[str]:
    """Output and events of a run by their times."""
    found: list[tuple[int, str]] = [(line.at, f"{line.stream}: {line.text}") for line in lines(run)]
    for event in run.events():
        assert isinstance(event, Event)
        if event.name.startswith("own.") or event.name in ("job.step_started", "job.step"):
            found.append((event.timestamp, f"{event.name} {event.payload.get('step', '')}".strip()))
    return [text for _, text in sorted(found, key=lambda one: one[0])]


@pytest.mark.parametrize("job", [workjobs.tells_everything, workjobs.atells_everything], ids=["sync", "async"])
def test_output_and_events_are_in_one_order(url: str, job: Any) -> None:
    """What was printed, logged and warned of, and what was notified, stand as they happened, by their times."""
    with Worker(url):
        run = job.enqueue()
        run.result(timeout=20)
        told = story(run)
    expected = []
    for number in range(3):
        expected += [
            f"stdout: stdout {number}",
            f"own.{number}",
            f"stderr: stderr {number}",
            f"stderr: INFO:shop.orders:logged {number}",
            f"job.step_started step {number}",
            f"stdout: in step {number}",
            f"job.step step {number}",
        ]
    assert told[: len(expected)] == expected
    warned, source, bar, *thread = told[len(expected) :]
    assert "UserWarning: the disk is nearly full" in warned
    assert "warnings.warn" in source
    assert bar.startswith("stderr: 100%")
    assert "50/50" in bar
    assert thread == (["stdout: in a thread"] if job is workjobs.atells_everything else [])


def test_c_code_and_programs_are_heard(url: str) -> None:
    """Each of the two streams as a whole is in order."""
    with Worker(url):
        run = workjobs.tells_in_c.enqueue()
        run.result(timeout=20)
        found = lines(run)
    assert [line.text for line in found if line.stream == "stdout"] == ["before", "C's buffer", "a program", "after"]
    assert [line.text for line in found if line.stream == "stderr"] == ["a descriptor"]


async def test_each_stream_stays_in_its_own_order() -> None:
    """Though a program's line, which tells no time, was read after the line behind it was complete."""
    told: list[str] = []
    running = Running(SimpleNamespace(origin=0), lambda _, lines: told.extend(line.text for line in lines))
    running.printed([Line("stdout", "a program", 9), Line("stdout", "after", 7), Line("stderr", "between", 8)])
    running.flush()
    assert told == ["between", "a program", "after"]


@pytest.mark.weather("forged times")
@pytest.mark.parametrize("origin", [0, 86_400_000_000_000])
async def test_no_line_is_older_than_its_attempt_nor_of_the_future(origin: int) -> None:
    """Whatever time a body has written behind its line."""
    told: list[Line] = []
    ahead = origin and origin + time.monotonic_ns() - time.time_ns()
    began = time.time_ns() + ahead
    running = Running(SimpleNamespace(origin=origin), lambda _, lines: told.extend(lines))
    running.printed([Line("stdout", "old", 1), Line("stdout", "new", 2**64 - 1)])
    running.flush()
    assert [line.text for line in told] == ["old", "new"]
    slack = 1_000_000_000  # two clocks are read, one after the other
    assert all(began - slack <= line.ns <= time.time_ns() + ahead + slack for line in told)


def test_a_warning_is_shown_in_each_run(url: str) -> None:
    """Though the process has shown it before, to another run."""
    with Worker(url, children=1):
        for _ in range(2):
            run = workjobs.tells_everything.enqueue()
            run.result(timeout=20)
            assert sum("nearly full" in text for text in texts(run)) == 2  # and its source line


def test_who_sets_logging_up_is_obeyed(url: str) -> None:
    """`basicConfig` does in a body what it does in a script."""
    with Worker(url):
        run = workjobs.logs_its_own_way.enqueue()
        run.result(timeout=20)
        assert "mine: a detail" in texts(run)


def test_a_flood_is_counted_to_the_line(url: str, redis_client: redis.Redis) -> None:
    """What is kept and what is missing make the whole, and the last lines are there; the worker goes on."""
    with Worker(url):
        run = workjobs.floods.enqueue(200_000)
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3
        run.wait(timeout=60)
        found = list(run.logs(follow=True))
    kept = [one.text for one in found if isinstance(one, LogLine)]
    missed = sum(one.missed for one in found if isinstance(one, Gap))
    assert len(kept) + missed == 200_000
    assert kept[-100:] == [f"line {number}" for number in range(199_900, 200_000)]
    assert redis_client.memory_usage(f"nbjobs:{{ada}}:run:{run.id}:log") < 1_000_000


@pytest.mark.weather("A6")
@pytest.mark.parametrize("job", [workjobs.floods, workjobs.afloods], ids=["sync", "async"])
def test_who_has_waited_for_the_end_reads_all_that_was_printed_before(url: str, job: Any) -> None:
    """However soon: a reader of the log waits for what the worker is about to write."""
    with Worker(url):
        for count in range(1, 20):
            run = job.enqueue(count).wait(timeout=20)
            assert [line.text for line in run.logs()] == [f"line {number}" for number in range(count)]


@pytest.mark.weather("A6")
def test_who_has_waited_for_a_death_reads_the_last_words(url: str) -> None:
    """Of the attempt that ended it too."""
    with Worker(url):
        run = workjobs.dies_talking.enqueue().wait(timeout=20)
        assert [line.text for line in run.logs()] == ["my last words", "without an end"] * 4


def test_the_last_words_of_a_process_that_was_killed_are_kept(url: str) -> None:
    """Those without a line end too, once an attempt."""
    with Worker(url):
        run = workjobs.dies_talking.enqueue()
        run.wait(timeout=20)
        assert texts(run) == ["my last words", "without an end"] * 4
    assert run.state == "dead"


async def test_a_log_is_followed_while_it_is_written(url: str) -> None:
    """Line by line, until the run has ended."""
    with Worker(url):
        run = workjobs.say.enqueue("one\ntwo")
        assert [line.text async for line in run.alogs(follow=True) if isinstance(line, LogLine)] == ["one", "two"]
        wait_until(lambda: run.state == "completed", 5)
