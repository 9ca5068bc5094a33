"""The table of Redis' errors, against the answers of real ones."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from nbjobs import connection
from nbjobs.calls import Call
from nbjobs.errors import RedisUnavailable
from nbjobs.redis_errors import ERRORS, find, text_of
from nbjobs.settings import NbJobs
from nbjobs.store import Store

from .support import RedisServer, redis_programs, wait_until

OLD_SCRIPT = "return redis.call('SET', KEYS[1], '1')"  # without flags: it is refused within, not at its door


@pytest.fixture(params=sorted(redis_programs()), scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Redis of each version that is here; it has a dump file that cannot be written."""
    server = RedisServer(redis_programs()[request.param], save="3600 1", busy_reply_threshold="50")
    (server.folder / "dump.rdb" / "in the way").mkdir(parents=True)
    with server:
        yield server


@contextmanager
def set_to(plain: redis.Redis, **options: str) -> Iterator[None]:
    """Redis has these options, and afterwards those that it had."""
    before = {name: plain.config_get(name)[name] for name in options}
    for name, value in options.items():
        plain.config_set(name, value)
    yield
    for name, value in before.items():
        plain.config_set(name, value)


@contextmanager
def too_few_replicas(plain: redis.Redis) -> Iterator[None]:
    with set_to(plain, **{"min-replicas-to-write": "1"}):
        yield


@contextmanager
def full(plain: redis.Redis) -> Iterator[None]:
    with set_to(plain, maxmemory="1"):
        yield


@contextmanager
def replica(plain: redis.Redis) -> Iterator[None]:
    plain.replicaof("127.0.0.1", "1")
    yield
    plain.replicaof("NO", "ONE")


@contextmanager
def replica_that_answers_nothing(plain: redis.Redis) -> Iterator[None]:
    with replica(plain), set_to(plain, **{"replica-serve-stale-data": "no"}):
        yield


@contextmanager
def unable_to_save(plain: redis.Redis) -> Iterator[None]:
    plain.bgsave()
    wait_until(lambda: plain.info("persistence")["rdb_last_bgsave_status"] == "err", description="a save has failed")
    yield
    plain.config_set("stop-writes-on-bgsave-error", "no")


@contextmanager
def busy(plain: redis.Redis) -> Iterator[None]:
    told: list[Exception] = []

    def spin() -> None:
        with redis.Redis(connection_pool=plain.connection_pool) as other:
            try:
                other.eval("while true do end", 0)
            except redis.ResponseError as error:
                told.append(error)

    thread = threading.Thread(target=spin)
    thread.start()
    wait_until(lambda: is_busy(plain), description="Redis says that it is busy")
    yield
    plain.script_kill()
    thread.join()
    assert find(told[0]).word == "Script killed by user"


def is_busy(plain: redis.Redis) -> bool:
    try:
        plain.ping()
    except redis.ResponseError:
        return True
    return False


@contextmanager
def without_rights(plain: redis.Redis, *rules: str) -> Iterator[None]:
    plain.execute_command("ACL", "SETUSER", "default", *rules)
    yield
    plain.execute_command("ACL", "SETUSER", "default", "allkeys", "+@all")


CAUSES: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "NOREPLICAS": (too_few_replicas, ()),
    "OOM": (full, ()),
    "READONLY": (replica, ()),
    "MASTERDOWN": (replica_that_answers_nothing, ()),
    "MISCONF": (unable_to_save, ()),
    "BUSY": (busy, ()),
    "NOPERM": (without_rights, ("-evalsha", "-eval")),
    "NOPERM of a key": (without_rights, ("resetkeys",)),
    "NOPERM within": (without_rights, ("-hset", "-hmget", "-set")),
}


async def answers(url: str, call: Call) -> dict[str, Exception]:
    """Return what is answered to a script of nbjobs, and to one without flags, each way that one can ask."""
    client, other = connection.sync_client(url, retry=False), connection.async_client(url, retry=False)
    command = call.command()

    def piped(client: Any, fails: bool) -> Any:
        return client.pipeline(transaction=False).execute_command(*command).execute(raise_on_error=fails)

    ways: dict[str, Callable[[], Any]] = {
        "alone": lambda: client.execute_command(*command),
        "within": lambda: client.eval(OLD_SCRIPT, 1, "nbjobs:{ada}:x"),
        "pipeline that raises": lambda: piped(client, True),
        "pipeline": lambda: piped(client, False)[0],
    }
    others: dict[str, Callable[[], Any]] = {
        "asyncio": lambda: other.execute_command(*command),
        "asyncio, pipeline that raises": lambda: piped(other, True),
        "asyncio, pipeline": lambda: piped(other, False),
    }
    found: dict[str, Any] = {}
    for way, ask in ways.items():
        try:
            found[way] = ask()
        except redis.RedisError as error:
            found[way] = error
    for way, ask in others.items():
        try:
            answer = await ask()
            found[way] = answer[0] if isinstance(answer, list) else answer
        except redis.RedisError as error:
            found[way] = error
    client.close()
    await other.aclose()
    return found


@pytest.mark.weather("H2")
@pytest.mark.parametrize("cause", CAUSES)
async def test_each_cause_is_known_by_the_word_that_redis_answers(server: RedisServer, cause: str) -> None:
    """Alone, in a pipeline, from within a script, in sync and asyncio clients: one meaning, one sentence."""
    plain = server.client()
    store = Store(connection.sync_client(server.url, retry=False), "ada", NbJobs())
    store.load()
    make, options = CAUSES[cause]
    with make(plain, *options):
        found = await answers(server.url, store.calls.enqueue("r1", {"job": "x"}, d="{}", queue="q"))
        with pytest.raises(RedisUnavailable) as caught:
            store.enqueue("r1", {"job": "x"}, "{}")
    word = cause.split()[0]
    for way, error in found.items():
        meaning = find(error) if isinstance(error, Exception) else None
        assert meaning is not None, f"{way}: {error!r}"
        same = {"MASTERDOWN": ("MASTERDOWN", "READONLY"), "NOPERM": RIGHTS}.get(word, (word,))
        assert meaning.word in same, f"{way}: {error!r}"
        assert not text_of(error).startswith(("Command", "(")) and not text_of(error).endswith(")"), f"{way}: {error!r}"
    assert "\n" not in str(caught.value) and server.url.removeprefix("unix://") in str(caught.value)
    store._client.close()
    plain.close()


RIGHTS = ("NOPERM", "ACL failure in script", "The user executing the script")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        ("ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write", "READONLY"),
        ("Error running script (call to f_1): @user_script:1: READONLY You can't write", "READONLY"),
        ("ERR user_script:3: attempt to perform arithmetic on a nil value script: " + 40 * "a", "script"),
        ("MISCONF Errors writing to the AOF file: No space left on device", "MISCONF"),
        ("Command # 2 (SET a MISCONF of pipeline caused error: x) of pipeline caused error: OOM it", "OOM"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE"),
        ("No such master with that name", "No such master with that name"),
    ],
)
def test_a_word_is_found_wherever_it_stands(error: str, word: str) -> None:
    """Old scripts carry it within, pipelines put the command before it, which may name any word itself."""
    assert find(redis.ResponseError(error)).word == word


@pytest.mark.parametrize("text", ["ERR upstream failure", "EXPLODED all of it", "", "value is not an integer"])
def test_what_is_not_in_the_table_has_no_meaning(text: str) -> None:
    """It is nobody's guess: raised in a client, waited out in a service."""
    assert find(redis.ResponseError(text)) is None


def test_each_word_says_what_to_do() -> None:
    """Each stands once, and its sentence goes on after the server's address."""
    words = [one.word for one in ERRORS]
    assert len(words) == len(set(words)) > 40
    for one in ERRORS:
        assert one.told.endswith(".") and one.told[0].islower() and "\n" not in one.told, one
        assert one.concerns != "call" or not one.anew, one


def test_the_page_on_reliability_lists_each_word_where_it_belongs() -> None:
    """What an error means stands in the documentation as it is in the table."""
    page = (Path(__file__).parent.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "`" in line.rpartition(" | ")[2]]
    listed = {
        concerns: set(re.findall(r"`([^`]+)`", next(row for row in rows if row.startswith(start)).rpartition(" | ")[2]))
        for concerns, start in (("server", "| the server:"), ("settings", "| the settings:"), ("call", "| this call:"))
    }
    assert listed == {concerns: {one.word for one in ERRORS if one.concerns == concerns} for concerns in listed}
