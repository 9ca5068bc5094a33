"""Clients of Redis: lost answers, interrupts, forks, and errors that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from nbjobs import connection, embedded
from nbjobs.errors import RedisUnavailable, SettingsError
from nbjobs.outages import where
from nbjobs.settings import NbJobs, configure

from .proxy import Proxy
from .support import RedisServer, wait_until


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    found = connection.sync_client(redis_url)
    yield found
    found.close()


@pytest.fixture
def proxy(redis_server: RedisServer, redis_client: redis.Redis) -> Iterator[Proxy]:
    with Proxy(str(redis_server.socket)) as found:
        yield found


# -- the connection --------------------------------------------------------------------------------


def test_client_speaks_text(client: redis.Redis) -> None:
    """Answers are str, also where the bytes are no UTF-8."""
    client.set("nbjobs:x", b"\xff\xc3\xa9")
    assert client.get("nbjobs:x") == "\udcff\u00e9"
    assert client.execute_command("GET", "nbjobs:x", NEVER_DECODE=True) == b"\xff\xc3\xa9"


def test_client_has_a_name(redis_url: str, redis_client: redis.Redis) -> None:
    """CLIENT LIST says who is connected."""
    client = connection.sync_client(redis_url, name="nbjobs-test")
    client.ping()
    assert any(one["name"] == "nbjobs-test" for one in redis_client.client_list())
    client.close()


def test_close_closes_all_connections(redis_url: str, redis_client: redis.Redis) -> None:
    """A closed client leaves no connection in Redis."""
    client = connection.sync_client(redis_url, name="nbjobs-closed")
    client.ping()
    client.close()
    wait_until(
        lambda: not any(one["name"] == "nbjobs-closed" for one in redis_client.client_list()),
        description="the connection is closed",
    )


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/2", "rediss://127.0.0.1:1/2", "unix:///nowhere/s?db=2"])
def test_each_kind_of_connection_counts_its_answers(url: str) -> None:
    """TCP, TLS and unix sockets are guarded alike, and keep what the URL says."""
    pool = connection.sync_client(url).connection_pool
    made = pool.make_connection()
    assert made.owed == 0
    assert pool.connection_kwargs["db"] == 2


def interrupted(client: redis.Redis, at: str) -> None:
    """Send a command and be interrupted before its answer is read."""
    pool = client.connection_pool
    made = pool.get_connection()
    pool.release(made)
    real = getattr(made, at)

    def interrupt(*args: Any, **options: Any) -> None:
        setattr(made, at, real)
        if at == "send_packed_command":
            real(*args, **options)
        raise KeyboardInterrupt

    setattr(made, at, interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.echo("mine")


@pytest.mark.parametrize("at", ["send_packed_command", "read_response"])
@pytest.mark.parametrize("delay", [0.0, 0.05])
@pytest.mark.fault(12)
def test_interrupt_never_gives_an_answer_to_another_call(proxy: Proxy, at: str, delay: float) -> None:
    """After an interrupt between sending and reading, the connection is dropped, however late the answer comes."""
    client = connection.sync_client(proxy.url)
    client.ping()
    proxy.delay = delay
    interrupted(client, at)
    assert client.echo("theirs") == "theirs"
    assert client.echo("more") == "more"
    client.close()


@pytest.mark.fault(12)
def test_interrupt_within_a_pipeline_drops_its_connection(proxy: Proxy) -> None:
    """A pipeline that was interrupted between two of its answers leaves none behind."""
    client = connection.sync_client(proxy.url)
    pipe = client.pipeline(transaction=False)
    pipe.echo("a").echo("b").echo("c")
    made = client.connection_pool.get_connection()
    client.connection_pool.release(made)
    real, seen = made.read_response, []

    def second(*args: Any, **options: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            made.read_response = real
            raise KeyboardInterrupt
        return real(*args, **options)

    made.read_response = second
    with pytest.raises(KeyboardInterrupt):
        pipe.execute()
    assert client.echo("d") == "d"
    client.close()


def test_good_connection_is_used_again(client: redis.Redis, redis_client: redis.Redis) -> None:
    """Errors of Redis, transactions and pipelines leave a connection as it was: no new one is made for them."""
    client.ping()
    id = client.client_id()
    with pytest.raises(redis.ResponseError):
        client.execute_command("NOSUCH")
    with client.pipeline() as pipe:
        pipe.echo("a").echo("b").execute()
    with client.pipeline(transaction=False) as pipe:
        pipe.execute_command("NOSUCH").echo("b").execute(raise_on_error=False)
    assert client.client_id() == id


@pytest.mark.fault(12)
async def test_cancelled_calls_never_cross(redis_url: str) -> None:
    """A thousand calls cancelled at random points: no later call gets another's answer."""
    client = connection.async_client(redis_url)
    dice = random.Random(12)
    crossed = cancelled = 0

    async def tagged(tag: str) -> None:
        nonlocal crossed
        if dice.random() < 0.5:
            answers = [await client.echo(tag)]
        else:
            pipe = client.pipeline(transaction=False)
            answers = await pipe.echo(tag).echo(tag).execute()
        crossed += any(answer != tag for answer in answers)

    for round in range(125):
        tasks = [asyncio.ensure_future(tagged(f"{round}-{k}")) for k in range(8)]
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        for task in dice.sample(tasks, 4):
            cancelled += task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert crossed == 0
    assert cancelled > 100
    await client.aclose()


async def test_clients_for_asyncio_send_what_others_send(client: redis.Redis, redis_url: str) -> None:
    """Text with lone surrogates, bytes, numbers and large values arrive as redis-py would send them."""
    lean = connection.async_client(redis_url)
    for value in ("\udcff\u00e9", b"\x00\r\n", 7, 2.5, memoryview(b"m"), "x" * 100_000):
        await lean.set("nbjobs:x", value)
        if not isinstance(value, str):
            client.set("nbjobs:y", value)
            assert await lean.get("nbjobs:x") == client.get("nbjobs:y")
        else:
            assert await lean.get("nbjobs:x") == value
    assert "maxmemory" in await lean.execute_command("CONFIG GET", "maxmemory")
    with pytest.raises(redis.DataError):
        await lean.set("nbjobs:x", None)  # type: ignore[arg-type]
    await lean.aclose()


async def test_clients_for_asyncio_wait_once_for_a_pipeline(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived is read without a timer, errors among it; the parts of redis-py for that are as expected."""
    lean = connection.async_client(redis_url)
    await lean.ping()
    timers = []
    for module in (redis.asyncio.connection, redis._parsers.hiredis):
        timer = module.async_timeout
        monkeypatch.setattr(module, "async_timeout", lambda *args, timer=timer: timers.append(args) or timer(*args))
    pipe = lean.pipeline(transaction=False)
    pipe.set("nbjobs:x", "1").lpush("nbjobs:x", "2").get("nbjobs:x").echo("y" * 100_000)
    done, refused, one, large = await pipe.execute(raise_on_error=False)
    assert (done, type(refused), one, large) == (True, redis.ResponseError, "1", "y" * 100_000)
    assert 1 <= len(timers) <= 3  # one, and one more for each time that the large answer was not whole yet
    await lean.aclose()


@pytest.mark.parametrize("size", [1, 1_000_000])
async def test_clients_for_asyncio_do_not_wait_for_ever(proxy: Proxy, redis_client: redis.Redis, size: int) -> None:
    """Where no answer comes, the wait ends after the timeout, also behind a command that asyncio has to buffer."""
    client = connection.async_client(proxy.url, timeout=0.5, retry=False)
    await client.ping()
    proxy.delay = 2
    with pytest.raises(connection.TimeoutError):
        await client.echo("x" * size)
    proxy.delay = 0
    assert await client.echo("again") == "again"
    await client.aclose()


def test_threads_share_a_client(client: redis.Redis) -> None:
    """Eight threads on one client get each its own answers."""
    wrong: list[str] = []

    def ask(name: str) -> None:
        for k in range(50):
            tag = f"{name}-{k}"
            if client.echo(tag) != tag:
                wrong.append(tag)

    threads = [threading.Thread(target=ask, args=(str(k),)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# -- trying again ----------------------------------------------------------------------------------


def test_lost_answer_is_asked_for_again(proxy: Proxy, redis_client: redis.Redis) -> None:
    """Reads and idempotent writes come through where an answer was lost."""
    client = connection.sync_client(proxy.url)
    proxy.lose = 2
    assert client.echo("a") == "a"
    assert proxy.lost == 2
    client.close()


def test_command_that_must_not_come_twice_is_sent_once(proxy: Proxy, redis_client: redis.Redis) -> None:
    """With retry off, a lost answer is an error, and the command was done once."""
    client = connection.sync_client(proxy.url, retry=False)
    proxy.lose = 1
    with pytest.raises(connection.ConnectionError):
        client.incr("nbjobs:count")
    assert redis_client.get("nbjobs:count") == "1"
    client.close()


@pytest.mark.fault(23)
def test_answer_that_does_not_come_is_an_error(proxy: Proxy) -> None:
    """A wait ends after the timeout."""
    client = connection.sync_client(proxy.url, timeout=0.05, retry=False)
    client.ping()
    proxy.delay = 0.5
    with pytest.raises(connection.TimeoutError):
        client.ping()
    client.close()


# -- another server ------------------------------------------------------------------------------


@pytest.mark.weather("H3")
async def test_what_says_that_another_server_is_meant_renews_all_connections() -> None:
    """After READONLY to one client, idle connections of all are made anew before their next use, of asyncio too; and
    no more than once, as often as it is said of a connection that was made since.
    """
    with RedisServer(appendonly="no") as server:
        one, other = connection.sync_client(server.url, retry=False), connection.sync_client(server.url, retry=False)
        third = connection.async_client(server.url, retry=False)
        for client in (one, other):
            client.ping()
        before = other.client_id(), await third.client_id()
        one.replicaof("127.0.0.1", "1")
        with pytest.raises(redis.ReadOnlyError):
            one.set("nbjobs:x", "1")
        after = other.client_id(), await third.client_id()
        assert after[0] > before[0] and after[1] > before[1]
        with pytest.raises(redis.ReadOnlyError):
            await third.set("nbjobs:x", "1")
        assert other.client_id() > after[0]
        one.replicaof("NO", "ONE")
        assert one.set("nbjobs:x", "1")
        assert other.client_id() == other.client_id()
        one.close()
        other.close()
        await third.aclose()


@pytest.mark.weather("H2")
async def test_a_connection_whose_login_was_refused_is_not_used() -> None:
    """Where Redis refuses to choose the database for a moment, no later command goes to another one."""
    with RedisServer(appendonly="no") as server, server.client() as plain:
        client = connection.async_client(f"{server.url}?db=1", retry=False)
        other = connection.sync_client(f"{server.url}?db=1", retry=False)
        plain.execute_command("ACL", "SETUSER", "default", "-select")
        with pytest.raises(RedisUnavailable, match="does not let this user"), connection.translated(client):
            await client.set("nbjobs:x", "1")
        with pytest.raises(RedisUnavailable, match="does not let this user"), connection.translated(other):
            other.set("nbjobs:y", "1")
        plain.execute_command("ACL", "SETUSER", "default", "+select")
        await client.set("nbjobs:x", "1")
        other.set("nbjobs:y", "1")
        assert plain.dbsize() == 0
        await client.aclose()
        other.close()


@pytest.mark.weather("A4")
async def test_another_service_is_told(redis_url: str) -> None:
    """What is no answer of Redis is told in one line, by both kinds of clients, and leaves no connection behind."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=greet, args=(listener,), daemon=True).start()
        url = f"redis://:secret@127.0.0.1:{listener.getsockname()[1]}/0"
        assert "does not speak as Redis does" in told(url)
        client = connection.async_client(url, retry=False, timeout=1)
        for _ in range(2):
            with pytest.raises(RedisUnavailable, match="does not speak as Redis does"), connection.translated(client):
                await client.ping()
        await client.aclose()
        listener.shutdown(socket.SHUT_RDWR)


def greet(listener: socket.socket) -> None:
    """Answer each connection as a web server does."""
    while True:
        try:
            link, _ = listener.accept()
        except OSError:
            return
        with link:
            link.recv(1000)
            link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.weather("Sentinel")
@pytest.mark.parametrize("make", [connection.sync_client, connection.async_client])
def test_urls_of_sentinels(make: Any) -> None:
    """Hosts, the service, the database and both passwords arrive; the address is told without them."""
    client = make("rediss+sentinel://ada:s%40cret@one:1,two/main/3?sentinel_password=secret&socket_timeout=9")
    pool = client.connection_pool
    options = pool.connection_kwargs
    assert (options["username"], options["password"], options["db"]) == ("ada", "s@cret", 3)
    assert options["socket_timeout"] == 9
    assert issubclass(pool.connection_class, (redis.SSLConnection, redis.asyncio.SSLConnection))
    for sentinel in pool.sentinel_manager.sentinels:
        kept = sentinel.connection_pool.connection_kwargs
        assert (kept["password"], kept["socket_timeout"]) == ("secret", 1)
    assert where(client) == "one:1,two:26379/main/3"


@pytest.mark.weather("Sentinel")
@pytest.mark.parametrize("url", ["redis+sentinel://:secret@one", "redis+sentinel:///main", "redis+sentinel://one:x/m"])
def test_urls_of_sentinels_that_lack_something_are_refused(url: str) -> None:
    """No service, no host, no port that is a number: the error shows the form that is expected."""
    with pytest.raises(
        SettingsError, match=r"redis\+sentinel://user:password@host:26379,host2:26379/service/0"
    ) as caught:
        connection.sync_client(url)
    assert "secret" not in str(caught.value)


@pytest.mark.weather("Sentinel")
def test_sentinels_that_are_away_are_told() -> None:
    """In one line, with their addresses."""
    assert "Redis at 127.0.0.1:1,127.0.0.1:2/main/0 does not answer" in told(
        "redis+sentinel://:secret@127.0.0.1:1,127.0.0.1:2/main"
    )


# -- the shared client -----------------------------------------------------------------------------


def test_process_shares_one_client(nbjobs_settings: NbJobs, redis_url: str) -> None:
    """client() is one client per process and setting of redis_url."""
    first = connection.client()
    assert connection.client() is first
    configure(redis_url=redis_url + "?db=1")
    second = connection.client()
    assert second is not first
    assert second.connection_pool.connection_kwargs["db"] == 1
    first.close()
    second.close()


def test_embedded_redis_is_asked_for_its_url(
    nbjobs_settings: NbJobs, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without redis_url, the embedded daemon says where its Redis is; it is asked once."""
    asked = []

    def url(settings: NbJobs) -> str:
        asked.append(settings)
        return redis_url

    monkeypatch.setattr(embedded, "url", url)
    configure(redis_url=None)
    assert connection.client().ping()
    assert connection.client().ping()
    assert len(asked) == 1
    connection.client().close()


@pytest.mark.fault(59)
def test_fork_shares_no_connection(nbjobs_settings: NbJobs, redis_client: redis.Redis) -> None:
    """A forked child connects anew; the parent's connection goes on as it was."""
    shared = connection.client()
    mine = shared.client_id()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            again = connection.client()
            os.write(write, f"{again is shared} {again.client_id()} {shared.client_id()}".encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    same, new, old = os.read(read, 1000).decode().split()
    os.close(read)
    os.close(write)
    assert same == "False"
    assert str(mine) not in (new, old)
    assert shared.client_id() == mine
    shared.close()


# -- what is wrong ---------------------------------------------------------------------------------


def told(url: str, **options: Any) -> str:
    """Return what check says of a Redis that cannot be used."""
    client = connection.sync_client(url, retry=False, timeout=1, **options)
    with pytest.raises(RedisUnavailable) as caught:
        connection.check(client)
    client.close()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_check_returns_the_version(client: redis.Redis) -> None:
    """A Redis that can be used answers its version."""
    assert connection.check(client) >= (7, 0)


@pytest.mark.fault(60)
def test_nobody_there_is_told() -> None:
    """A port where nothing listens, and a socket that is not there."""
    assert "127.0.0.1:1/0 does not answer (Connection refused)" in told("redis://ada:secret@127.0.0.1:1/0")
    assert "unix:///nowhere/redis.sock does not answer (No such file" in told("unix:///nowhere/redis.sock")


@pytest.mark.fault(60)
def test_start_up_mistakes_are_told() -> None:
    """Wrong password, none where one is needed, a database that is not there, TLS where there is none."""
    with RedisServer(port=_free_port(), requirepass="right", databases="2") as server:
        at = f"127.0.0.1:{server.port}"
        assert "refuses the user or the password" in told(f"redis://:secret@{at}/0")
        assert "refuses the user or the password" in told(f"redis://{at}/0")
        assert "no database of that number" in told(f"redis://:right@{at}/7")
        assert "that it speaks TLS, as rediss:// says" in told(f"rediss://:secret@{at}/0")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.mark.fault(60)
def test_old_redis_is_told(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis 6 has no scripts with flags, so it is refused by its version."""
    monkeypatch.setattr(connection, "OLDEST", (99, 0))
    with pytest.raises(RedisUnavailable, match=r"has version \d+\.\d+\.\d+, expected"):
        connection.check(client)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.exceptions.BusyLoadingError("Redis is loading"), "still loading"),
        (redis.exceptions.ReadOnlyError("READONLY"), "replica"),
        (redis.exceptions.ResponseError("MISCONF Redis is configured to save"), "cannot save to its disk"),
        (redis.exceptions.ResponseError("unknown command 'EVALSHA'"), "too old"),
        (redis.exceptions.ResponseError("Error compiling script (new function)"), "too old"),
        (redis.exceptions.OutOfMemoryError("command not allowed"), "is full"),
        (redis.exceptions.TimeoutError("Timeout reading from socket"), "does not answer (Timeout"),
    ],
)
def test_outage_is_told_with_what_to_do(client: redis.Redis, error: Exception, words: str) -> None:
    """Whatever keeps a client from its Redis becomes one line; the cause stays attached."""
    with pytest.raises(RedisUnavailable) as caught, connection.translated(client):
        raise error
    assert words in str(caught.value)
    assert caught.value.__cause__ is error


def test_other_errors_pass(client: redis.Redis) -> None:
    """An error of the call itself is not an outage."""
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"), connection.translated(client):
        raise redis.ResponseError("WRONGTYPE Operation against a key")


@pytest.mark.parametrize("make", [connection.sync_client, connection.async_client])
def test_url_that_cannot_be_read_is_refused_without_its_password(make: Any) -> None:
    """The error names the setting and shows what is expected."""
    with pytest.raises(SettingsError, match="redis_url is") as caught:
        make("http://ada:secret@host")
    assert "secret" not in str(caught.value)
    assert "unix://" in str(caught.value)


@pytest.mark.weather("H5")
def test_bytes_that_are_no_text_go_back_as_they_came(redis_url: str, nbjobs_settings: NbJobs) -> None:
    """Alone and in a pipeline; half a character that no byte stands for is refused before anything is sent."""
    client = connection.sync_client(redis_url, name="test")
    with contextlib.closing(client):
        client.set("odd", b"caf\xe9")
        found = client.get("odd")
        assert found == "caf\udce9"
        client.set("one", found)
        connection.execute(client, "SET", "two", found)
        pipe = client.pipeline(transaction=False)
        pipe.set("three", found)
        pipe.execute()
        for name in ("one", "two", "three"):
            assert client.execute_command("GET", name, NEVER_DECODE=True) == b"caf\xe9"
        with pytest.raises(UnicodeEncodeError):
            client.set("four", "\ud800")
        assert client.get("one") == found
        client.delete("odd", "one", "two", "three")
