"""Programs as people write them: what becomes of each, from its enqueue to its end.

Most of what they show is tested beside the module that does it, too; here the body, the store and the readers are there
at once.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from nbjobs import Run, notify, subscribe, unsubscribe
from nbjobs.errors import RunFailed
from nbjobs.events import Event
from nbjobs.jobs import job
from nbjobs.keys import Keys
from nbjobs.settings import NbJobs, configure
from nbjobs.sinks.stream import StreamSink
from nbjobs.stepping import step
from nbjobs.testing import interrupt_after_step, interrupt_during_step

from . import workjobs
from .farloops import in_steps
from .support import wait_until
from .workers import Ledger, Worker

done: list[Any] = []


@pytest.fixture
def inline(nbjobs_settings: NbJobs) -> Iterator[NbJobs]:
    """Attempts run in this process, one after the other."""
    done.clear()
    yield configure(adapter="inline")


def told(run: Run, name: str) -> list[dict[str, Any]]:
    return [dict(event.payload) for event in run.events() if isinstance(event, Event) and event.name == name]


# -- steps where they do not seem to be ------------------------------------------------------------


def test_a_step_in_a_loop_needs_names_that_differ(inline: NbJobs) -> None:
    """The second call says so, with the way out; with the item in its name each is a step of its own."""

    @job
    def one_name() -> None:
        for year in (2024, 2025):
            step("load", done.append, year)

    @job
    def names_that_differ() -> None:
        for year in (2024, 2025):
            step(f"load {year}", done.append, year)

    with pytest.raises(RunFailed, match=r"Step 'load' has already been encountered.*give each call a name of its own"):
        one_name.enqueue().result()
    assert done == [2024]
    with interrupt_after_step(names_that_differ, "load 2024"):
        run = names_that_differ.enqueue()
    assert (run.state, done) == ("completed", [2024, 2024, 2025])
    assert [one["step"] for one in told(run, "job.step")] == ["load 2024", "load 2025"]


def test_steps_may_stand_in_a_helper_of_another_module(inline: NbJobs) -> None:
    """The run knows them as if they stood in the body."""

    @job
    def asks_a_helper() -> str:
        step("near", done.append, "near")
        return in_steps(done)

    with interrupt_after_step(asks_a_helper, "far one"):
        run = asks_a_helper.enqueue()
    assert (run.result(), run.view.attempt) == ("nearone", 2)


@pytest.mark.parametrize("first", [True, False])
def test_a_conditional_step_that_differs_on_resume_pauses(inline: NbJobs, first: bool) -> None:
    """Whether it is there no more or all of a sudden: both lists are shown, and nothing is done behind it."""
    conditions = [first, not first]

    @job
    def depends() -> None:
        step("prepare", done.append, "prepare")
        if conditions.pop(0):
            step("extra", done.append, "extra")
        step("load", done.append, "load")
        step("finish", done.append, "finish")

    with interrupt_after_step(depends, "load"):
        run = depends.enqueue()
    before = ["prepare", *["extra"] * first, "load"]
    assert (run.state, done) == ("paused", before)
    (paused,) = [one for one in told(run, "job.interrupt") if one["reason"] == "changed"]
    found = ["prepare", "load"] if first else ["prepare", "extra"]
    assert (paused["stored"], paused["found"]) == (before, found)
    assert "changed" in run.view.marks


# -- items that are not what they were ---------------------------------------------------------------


def rows(order: str) -> Iterator[tuple[int, str]]:
    """A query of 20 rows, in this order."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("create table contacts (id integer, name text)")
        database.executemany("insert into contacts values (?, ?)", [(n, f"name {n}") for n in range(20)])
        found = database.execute(f"select id, name from contacts order by {order}").fetchall()
    yield from found  # a generator that is left behind must not hold the database


@pytest.mark.parametrize("keyed", [False, True])
def test_a_query_in_another_order_pauses_or_is_found_by_its_key(inline: NbJobs, keyed: bool) -> None:
    """Without `order by` a database may give another order each time: nothing is skipped or done twice in silence."""
    orders = ["id", "id + 7 * (id % 2)"]  # the second as a database that has moved its rows

    @job
    def imports() -> None:
        for number, _ in step.each("rows", rows(orders.pop(0)), key=(lambda row: row[0]) if keyed else None, every=1):
            done.append(number)

    with interrupt_during_step(imports, "rows", cursor=10 if not keyed else 9):
        run = imports.enqueue()
    assert done[:10] == list(range(10))
    if not keyed:
        assert (run.state, len(done)) == ("paused", 10)
        (paused,) = [one for one in told(run, "job.interrupt") if one["reason"] == "changed"]
        assert "item 10, the last one done, is another now" in paused["description"]
    else:
        assert run.state == "completed"
        behind = [number for number, _ in rows("id + 7 * (id % 2)")]
        assert done[10:] == behind[behind.index(9) + 1 :]


def test_a_list_that_grows_while_it_is_worked_through_is_done_to_its_end(inline: NbJobs) -> None:
    """What the body appends is an item like the others, also after a resume."""
    pages = [1, 2, 3]

    @job
    def crawls() -> None:
        for page in step.each("pages", pages, every=1):
            done.append(page)
            if page < 4 and page + 10 not in pages:
                pages.append(page + 10)

    with interrupt_during_step(crawls, "pages", cursor=2):
        run = crawls.enqueue()
    assert (run.state, done) == ("completed", [1, 2, 3, 11, 12, 13])


def test_what_belongs_together_is_zipped_inside_of_each(inline: NbJobs) -> None:
    """The pairs are the items, so a resume goes on with the right ones."""
    names, ages = ["ann", "bob", "cyd"], [31, 32, 33]

    @job
    def pairs() -> None:
        for name, age in step.each("people", list(zip(names, ages, strict=True)), every=1):
            done.append((name, age))

    with interrupt_during_step(pairs, "people", cursor=2):
        assert pairs.enqueue().state == "completed"
    assert done == [("ann", 31), ("bob", 32), ("cyd", 33)]


# -- more than one line of execution ------------------------------------------------------------------


def test_events_of_a_bodys_threads_belong_to_the_run_where_they_have_its_context(
    inline: NbJobs, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread begins with none: its event goes to subscribers of the process alone, which is said once, in the log."""

    @job
    def starts_threads() -> None:
        with_context = contextvars.copy_context().run
        for number, run in enumerate([with_context, lambda fn, *args: fn(*args), lambda fn, *args: fn(*args)]):
            thread = threading.Thread(target=run, args=(notify, f"own.{number}"))
            thread.start()
            thread.join()

    sink = subscribe(StreamSink(), names=["own.1", "own.2"])  # the usual one may have said it in another test
    with caplog.at_level(logging.WARNING):
        run = starts_threads.enqueue()
    unsubscribe(sink)
    assert [event.name for event in run.events() if event.name.startswith("own.")] == ["own.0"]
    said = [text for text in caplog.messages if "is in no run's stream" in text]
    assert said and all(text.startswith("Event own.1 ") and "copy_context" in text for text in said)


@pytest.mark.leaky
def test_a_parent_waits_for_its_child_in_a_worker_with_one_place(
    redis_url: str, nbjobs_settings: NbJobs, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """It lends its place meanwhile; after its process was killed the child that it enqueues is the one that exists."""
    ledger = Ledger(tmp_path / "ledger")
    with Worker(redis_url, children=1):
        run = workjobs.parent.options(tags={"team": "sales"}).enqueue(ledger.path)
        assert run.result(timeout=20) == 21
        (one, _), (two, _) = ledger.lines()
        child = Run(one, user="ada")
        wait_until(lambda: child.state == "completed", 10)
    assert one == two
    assert redis_client.zcard(Keys("ada").runs) == 2
    assert (run.view.attempt, child.view.attempt) == (2, 1)
    assert next(iter(child.events())).tags == {"team": "sales"}
