"""Events and output are read back, and what is missing of them is told."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis

from nbjobs import Gap, Run, history, keys
from nbjobs.events import Event
from nbjobs.history import LogLine
from nbjobs.jobs import job
from nbjobs.settings import NbJobs, configure
from nbjobs.stepping import step
from nbjobs.store import Commit, Store

from .entries import d
from .support import wait_until

KEYS = keys.Keys("ada")


@job
def double(x: int) -> int:
    return 2 * x


@job
def over(count: int) -> None:
    for _ in step.each("items", range(count)):
        pass


@pytest.fixture
def run(nbjobs_settings: NbJobs) -> Run:
    """A run that has ended, with five numbered events."""
    configure(adapter="inline")
    return over.enqueue(3)


def told(found: Any) -> list[str | int]:
    return [one.missed if isinstance(one, Gap) else one.name for one in found]


def numbered(found: Any) -> list[int]:
    return [one.n for one in found if isinstance(one, Event) and one.n is not None]


def trim(client: redis.Redis, run: Run, keep: int) -> None:
    client.xtrim(KEYS.events(run.id), maxlen=keep, approximate=False)


def test_events_are_all_that_is_kept_in_order(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over as many pages as it takes; nothing is missing."""
    whole = list(run.events())
    monkeypatch.setattr(history, "PAGE", 2)
    assert list(run.events()) == whole
    assert told(whole) == [
        "job.enqueued", "job.started", "job.step_started", "job.step", "job.completed",
    ]  # fmt: skip
    assert numbered(whole) == [1, 2, 3, 4, 5]


def test_a_gap_stands_where_events_were_trimmed(run: Run, redis_client: redis.Redis) -> None:
    """Their numbers prove how many, at least."""
    trim(redis_client, run, 2)
    assert told(run.events()) == [3, "job.step", "job.completed"]


def test_events_go_on_behind_one(run: Run, redis_client: redis.Redis) -> None:
    """By its id or itself; where it was trimmed since, a gap says so."""
    whole = list(run.events())
    started = whole[1]
    assert isinstance(started, Event)
    assert list(run.events(started)) == list(run.events(started.id)) == whole[2:]
    assert list(run.events(whole[-1])) == []  # type: ignore[arg-type]
    trim(redis_client, run, 2)
    assert told(run.events(started)) == [1, "job.step", "job.completed"]
    assert told(run.events(started.id)) == [0, "job.step", "job.completed"]


def test_a_bad_start_is_refused(run: Run) -> None:
    """What was found, and what is expected."""
    with pytest.raises(ValueError, match="expected an event or its id"):
        run.events("yesterday")
    with pytest.raises(ValueError, match="has no id"):
        run.events(Event("x", {}, {}, {}, 0, None))


def test_events_that_were_dropped_are_a_gap(store: Store, redis_client: redis.Redis) -> None:
    """The body's own beyond their rate; each attempt counts them anew."""
    store.enqueue("r1", {"job": "m.f", "args": "[]", "queue": "test"})
    for attempt in (1, 2):
        assert store.claim("r1", f"me:{attempt}", attempt, "").code == "OK"
        for c, dropped in ((1, 0), (2, 30), (3, 30), (4, 45)):
            payload = d({"attempt": attempt, **({"dropped": dropped} if dropped else {})})
            commit = Commit(
                c=c + 4 * (attempt - 1), n_seen=0, view="", moved=True, step="s", cursor="", done="", total="",
                events=[("p", "job.progress", payload)],
            )  # fmt: skip
            assert store.commit("r1", f"me:{attempt}", commit).code == "OK"
        store.finish("r1", f"me:{attempt}", "released", d=d())
    found = told(history.events(redis_client, KEYS, "r1"))
    attempt = ["job.started", "job.progress", 30, "job.progress", "job.progress", 15, "job.progress", "job.interrupt"]
    assert found == ["job.enqueued", *attempt, *attempt]
    store.control("r1", "cancel", 99)


def test_following_ends_with_the_run(nbjobs_settings: NbJobs) -> None:
    """What comes is told at once; behind the run's end there is nothing."""
    run = double.enqueue(1)
    seen: list[str] = []

    def follow() -> None:
        seen.extend(str(name) for name in told(run.events(follow=True)))

    following = threading.Thread(target=follow)
    following.start()
    run.pause()
    run.unpause()
    run.cancel()
    following.join(5)
    assert seen == ["job.enqueued", "job.paused", "job.unpaused", "job.cancelled"]
    assert told(run.events(follow=True)) == seen, "of a run that has ended it waits for nothing"


async def test_events_for_asyncio_are_the_same(run: Run, redis_client: redis.Redis) -> None:
    """With gaps, from a start and to the end; no connection is left."""
    before = {client["id"] for client in redis_client.client_list()}
    whole = [one async for one in run.aevents()]
    assert whole == list(run.events())
    assert [one async for one in run.aevents(whole[1], follow=True)] == whole[2:]  # type: ignore[arg-type]
    trim(redis_client, run, 2)
    assert told([one async for one in run.aevents()]) == [3, "job.step", "job.completed"]
    left = [client["name"] for client in redis_client.client_list() if client["id"] not in before]
    assert left in ([], ["nbjobs-client"]), "the shared one may have been made"


async def test_following_for_asyncio_leaves_the_loop_free(nbjobs_settings: NbJobs) -> None:
    """The body's events arrive while others work."""
    run = double.enqueue(1)
    names = []
    async for event in run.aevents(follow=True):
        names.append(told([event])[0])
        if names[-1] == "job.enqueued":
            await run.acancel()
    assert names == ["job.enqueued", "job.cancelled"]


def log(client: redis.Redis, run: Run, total: int, *lines: str, closes: int = 0) -> None:
    text = "[" + ",".join(f'["stdout","{line}",5]' for line in lines) + "]"
    client.xadd(KEYS.log(run.id), {"d": text, "t": total, **({"z": closes} if closes else {})})
    client.pexpire(KEYS.log(run.id), 60_000)


def test_lines_that_are_missing_are_a_gap(run: Run, redis_client: redis.Redis) -> None:
    """At the beginning or in between; each entry counts all lines before its end."""
    log(redis_client, run, 12, "one", "two")
    log(redis_client, run, 13, "three")
    log(redis_client, run, 20, "four")
    assert list(run.logs()) == [
        Gap(10), LogLine("stdout", "one", 5), LogLine("stdout", "two", 5), LogLine("stdout", "three", 5),
        Gap(6), LogLine("stdout", "four", 5),
    ]  # fmt: skip


def test_a_run_that_printed_nothing_has_no_lines(run: Run) -> None:
    """No gap either."""
    assert list(run.logs()) == []


def test_following_a_log_waits_for_the_last_words(run: Run, redis_client: redis.Redis) -> None:
    """The worker writes them a moment after the run's end."""
    found: list[Any] = []
    following = threading.Thread(target=lambda: found.extend(run.logs(follow=True)))
    following.start()
    wait_until(lambda: any(one["cmd"] == "xread" for one in redis_client.client_list()), 3)
    log(redis_client, run, 1, "the last")
    following.join(5)
    assert found == [LogLine("stdout", "the last", 5)]


class Asking:
    """Notes what is asked of Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.asked: list[tuple[Any, ...]] = []

    def execute_command(self, *command: Any) -> Any:
        self.asked.append(command)
        return self.client.execute_command(*command)

    def waits(self) -> list[int]:
        """How long it asked Redis to wait, each time, in ms."""
        return [command[command.index("BLOCK") + 1] for command in self.asked if "BLOCK" in command]


def ends(store: Store, run: str, **payload: Any) -> None:
    store.enqueue(run, {"job": "m.f", "args": "[]", "queue": "test"})
    assert store.claim(run, "me:1", 1, "").code == "OK"
    assert store.finish(run, "me:1", "completed", d=d({"attempt": 1, **payload})).code == "OK"


@pytest.mark.weather("A6")
def test_a_log_is_read_once_its_last_words_are_written(store: Store, redis_client: redis.Redis) -> None:
    """It waits where the end says that something was printed and no entry closes the attempt, and no longer."""
    ends(store, "r1", printed=True)
    log(redis_client, Run("r1"), 1, "the first")
    asking, found = Asking(redis_client), []
    reading = threading.Thread(target=lambda: found.extend(history.logs(asking, KEYS, "r1")))  # type: ignore[arg-type]
    reading.start()
    wait_until(lambda: found, 3)
    log(redis_client, Run("r1"), 2, "the last", closes=1)
    reading.join(5)
    assert [line.text for line in found] == ["the first", "the last"]
    again = Asking(redis_client)
    assert list(history.logs(again, KEYS, "r1")) == found  # type: ignore[arg-type]
    assert again.waits() == [], "the attempt is closed"


@pytest.mark.weather("A6")
def test_a_log_whose_last_words_never_come_is_waited_for_a_second_at_most(
    store: Store, redis_client: redis.Redis
) -> None:
    """From the end on, and only a moment where its process knows of nothing that was printed."""
    ends(store, "r1", printed=True)
    ends(store, "r2")
    for run, longest in (("r1", 1000), ("r2", 100)):
        asking = Asking(redis_client)
        for _ in range(2):
            assert list(history.logs(asking, KEYS, run)) == []  # type: ignore[arg-type]
        assert sum(asking.waits()) <= longest


async def test_logs_for_asyncio_are_the_same(run: Run, redis_client: redis.Redis) -> None:
    """Line by line."""
    log(redis_client, run, 3, "one", "two")
    assert [one async for one in run.alogs()] == list(run.logs())
