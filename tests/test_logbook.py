"""What bodies print goes into bounded streams, and what is dropped is counted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import pytest
import redis

from nbjobs import history, logbook
from nbjobs.connection import async_client
from nbjobs.history import Gap, LogLine
from nbjobs.keys import Keys
from nbjobs.lines import Line
from nbjobs.logbook import ENTRY_LIMIT, KEPT, Logbook
from nbjobs.settings import NbJobs

from .support import RedisServer, await_until

ADA = Keys("ada")


class Writing:
    """A logbook that writes, as in a worker."""

    def __init__(self, url: str) -> None:
        self.client = async_client(url, retry=False)
        self.book = Logbook(self.client, NbJobs())
        self._task = asyncio.create_task(self.book.run())

    def note(self, *texts: str, run: str = "r1", stream: str = "stdout") -> None:
        self.book.note(ADA, run, [Line(stream, text, 7) for text in texts])

    async def write(self, *texts: str) -> None:
        self.note(*texts)
        await self.book.flush(5)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.client.aclose()


@pytest.fixture
async def writing(redis_url: str, redis_client: redis.Redis) -> AsyncIterator[Writing]:
    found = Writing(redis_url)
    yield found
    await found.close()
    redis_client.delete(ADA.log("r1"), ADA.log("r2"))


def read(client: redis.Redis, run: str = "r1") -> list[str | int]:
    """What a reader gets: lines as text, gaps as numbers."""
    found = history.logs(client, ADA, run)
    return [one.missed if isinstance(one, Gap) else one.text for one in found]


async def test_lines_come_back_as_they_were_printed(writing: Writing, redis_client: redis.Redis) -> None:
    """Stream, text and time, in order; each run has its own; the key ends though nobody else sees to it."""
    writing.note("one", "two")
    writing.note("three", stream="stderr")
    writing.note("other", run="r2")
    await writing.book.flush(5)
    assert list(history.logs(redis_client, ADA, "r1")) == [
        LogLine("stdout", "one", 7), LogLine("stdout", "two", 7), LogLine("stderr", "three", 7),
    ]  # fmt: skip
    assert read(redis_client, "r2") == ["other"]
    assert 0 < redis_client.pttl(ADA.log("r1")) <= 7 * 86_400_000


async def test_an_entry_has_at_most_16_kib(writing: Writing, redis_client: redis.Redis) -> None:
    """What does not fit goes into the next one."""
    texts = ["x" * 1000] * 50 + ["\x01" * 3 + "€" * 3000] * 5
    await writing.write(*texts, "😀" * 4096)
    entries = redis_client.xrange(ADA.log("r1"))
    assert max(len(entry["d"].encode()) for _, entry in entries) <= ENTRY_LIMIT
    assert read(redis_client) == ["x" * 1000] * 50 + ["€" * 3000] * 5 + ["😀" * 4000 + "…(+96 characters)"]


async def test_what_is_kept_is_safe_and_says_where_it_is_cut(writing: Writing, redis_client: redis.Redis) -> None:
    """No control characters, no lone surrogates; a very long line ends with what is missing of it."""
    await writing.write("\ud800\x1b[31mred\u202e", "y" * 5000)
    assert read(redis_client) == ["\ufffd[31mred", "y" * 4096 + "…(+904 characters)"]


async def test_a_flood_is_dropped_and_counted_and_its_last_lines_stay(
    writing: Writing, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its rate a run loses the middle of what it prints at once, and the reader is told how many lines."""
    monkeypatch.setattr(logbook, "_BURST", 3.0)
    monkeypatch.setattr(logbook, "_RATE", 5.0)  # on a busy machine too
    await writing.write("first")
    for start in range(0, 5000, 50):
        writing.note(*map(str, range(start, start + 50)))
    await writing.book.flush(5)
    found = read(redis_client)
    (gap,) = (one for one in found if isinstance(one, int))
    assert gap >= 4000
    assert found == ["first", *map(str, range(4800 - gap)), gap, *map(str, range(4800, 5000))]


async def test_about_2000_lines_stay_and_the_rest_is_counted(writing: Writing, redis_client: redis.Redis) -> None:
    """Whether they come one by one or many at once, short or long."""
    for start in range(0, 6000, 100):
        await writing.write(*(f"{start} " + "z" * 50 for _ in range(100)))
    gap, *lines = read(redis_client)
    assert isinstance(gap, int)
    assert gap + len(lines) == 6000
    assert KEPT <= len(lines) <= 1.2 * KEPT
    assert redis_client.memory_usage(ADA.log("r1")) < 1_000_000


async def test_long_lines_count_for_several(writing: Writing, redis_client: redis.Redis) -> None:
    """A log has about a megabyte at most."""
    for _ in range(200):
        await writing.write(*["w" * 4000] * 10)
    gap, *lines = read(redis_client)
    assert isinstance(gap, int)
    assert gap + len(lines) == 2000
    assert redis_client.memory_usage(ADA.log("r1")) < 1_500_000


async def test_the_next_worker_goes_on_counting(writing: Writing, redis_client: redis.Redis, redis_url: str) -> None:
    """So a reader's count is right over several attempts."""
    await writing.write("one", "two")
    other = Writing(redis_url)
    await other.write("three")
    await other.close()
    redis_client.xtrim(ADA.log("r1"), maxlen=1, approximate=False)
    assert read(redis_client) == [2, "three"]


async def test_forgetting_a_run_forgets_no_count(
    writing: Writing, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker knows of runs is bounded."""
    monkeypatch.setattr(logbook, "_REMEMBERED", 1)
    await writing.write("one", "two")
    writing.note("other", run="r2")
    await writing.book.flush(5)
    assert len(writing.book._logs) == 1
    await writing.write("three")
    assert [entry["t"] for _, entry in redis_client.xrange(ADA.log("r1"))] == ["2", "3"]


async def test_an_entry_of_another_version_is_a_gap(writing: Writing, redis_client: redis.Redis) -> None:
    """What cannot be read is counted by its number."""
    await writing.write("one")
    redis_client.xadd(ADA.log("r1"), {"d": json.dumps({"new": 1}), "t": 5})
    assert read(redis_client) == ["one", 4]


async def test_lines_that_redis_did_not_take_are_counted() -> None:
    """They are not sent twice; when Redis is back the reader is told how many are missing."""
    with RedisServer() as server:
        writing = Writing(server.url)
        await writing.write("one")
        server.stop()
        writing.note("two", "three")
        await asyncio.sleep(0)
        await await_until(lambda: writing.book._logs[ADA.log("r1")].dropped or server.process, 5)
        server.start()
        await writing.book.flush(5)
        await writing.write("four")
        client = server.client()
        found = read(client)
        client.close()
        await writing.close()
    assert found in (["one", 2, "four"], ["one", "two", "three", "four"])


@pytest.mark.weather("M1")
async def test_the_backlog_while_redis_is_away_is_bounded_in_bytes(redis_url: str, redis_client: redis.Redis) -> None:
    """At most 2 MB of a run and 64 MB of all wait; the newest lines stay, and what was dropped is counted."""
    client = async_client(redis_url, retry=False)
    book = Logbook(client, NbJobs())
    texts = ["x" * 16_000, "€" * 5_000, "", "\U0001f600" * 4_000]
    try:
        for number in range(0, 12_000, 200):
            book.note(ADA, "r1", [Line("stdout", f"{at} {texts[at % 4]}", at) for at in range(number, number + 200)])
            assert _held(book, ADA.log("r1")) <= 2_000_000
        for run in range(60):
            for _ in range(10):
                book.note(ADA, f"other{run}", [Line("stderr", "y" * 4_000) for _ in range(100)])
            assert sum(_held(book, key) for key in book._logs) <= 64_000_000
        assert min(_held(book, key) for key in book._logs) > 500_000  # none pays for all
        writing = asyncio.create_task(book.run())
        await book.flush(30)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        gap, *lines = read(redis_client)
        assert isinstance(gap, int) and gap + len(lines) == 12_000
        assert [str(line).partition(" ")[0] for line in lines] == [str(number) for number in range(gap, 12_000)]
    finally:
        await client.aclose()
        redis_client.delete(*redis_client.keys("nbjobs:*"))


def _held(book: Logbook, key: str) -> int:
    """Return the bytes of the lines that wait, as Python counts them."""
    return sum(sys.getsizeof(line) + sys.getsizeof(line.text) for line in book._logs[key]._waiting)


@pytest.mark.weather("M2")
async def test_a_reader_sees_where_lines_were_dropped_before_they_were_read(
    writing: Writing, redis_client: redis.Redis
) -> None:
    """A line tells how many before it are missing, and the gap stands there."""
    writing.book.note(ADA, "r1", [Line("stdout", "one", 7), Line("stdout", "two", 8, 5), Line("stdout", "three", 9)])
    await writing.book.flush(5)
    assert read(redis_client) == ["one", 5, "two", "three"]
