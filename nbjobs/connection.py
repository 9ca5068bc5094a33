"""Clients of Redis: how they connect, try again, and say what is wrong.

Everything that speaks to Redis gets its client here, so that four rules hold everywhere:

- Each wait has an end (``timeout``), and an answer that was lost is asked for again a few times, with growing
  random pauses. That is right for the store's scripts and for reading; for anything else make a client with
  ``retry=False``.
- A connection that still owes an answer is never used again. An interrupt between sending and reading (a
  notebook's stop button) would otherwise give that answer to the next caller.
- A fork shares no connection with its parent.
- An error says which Redis (without its password), what is wrong and what to do: `RedisUnavailable`.

Text goes in and comes out as ``str``; where Redis holds bytes that are no UTF-8, they come as lone surrogates.
"""

from __future__ import annotations

import os
import threading
from typing import Any, cast

import redis
import redis.asyncio
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import FullJitterBackoff
from redis.connection import ConnectionPool, parse_url
from redis.retry import Retry

from . import embedded
from .errors import RedisUnavailable, SettingsError
from .outages import (
    FAILURES,
    LOST,
    ConnectionError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TimeoutError,
    translated,
    where,
)
from .plain import masked_url
from .settings import NbJobs, current

try:
    from hiredis import pack_command
except ImportError:  # an extra of redis-py that arq asks for; without it all works, more slowly
    pack_command = None  # type: ignore[assignment]

__all__ = [
    "FAILURES",
    "AsyncClient",
    "Client",
    "ConnectionError",
    "NoPermissionError",
    "NoScriptError",
    "OutOfMemoryError",
    "PubSub",
    "RedisError",
    "ResponseError",
    "TimeoutError",
    "async_client",
    "check",
    "client",
    "client_name",
    "drop_client",
    "execute",
    "resolve_url",
    "sync_client",
    "translated",
]

Client = redis.Redis
AsyncClient = redis.asyncio.Redis
PubSub = redis.asyncio.client.PubSub

OLDEST = (7, 0)
"""The first Redis whose scripts can be refused whole when memory is full."""

TIMEOUT = 5.0
"""Seconds a command may take. A blocking read must ask for less."""

_RETRIES = 3


class _Owing:
    """Counts the answers that a connection still owes."""

    owed = 0

    def send_command(self, *args: Any, **options: Any) -> None:
        self.owed += 1
        super().send_command(*args, **options)  # type: ignore[misc]

    def pack_commands(self, commands: Any) -> Any:  # of a pipeline, which sends them right after
        commands = list(commands)
        self.owed += len(commands)
        return super().pack_commands(commands)  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            answer = super().read_response(*args, **options)  # type: ignore[misc]
        except ResponseError:
            self.owed -= 1
            raise
        self.owed -= 1
        return answer

    def disconnect(self, *args: Any) -> None:
        super().disconnect(*args)  # type: ignore[misc]
        self.owed = 0


class _Connection(_Owing, redis.Connection):
    pass


class _SSLConnection(_Owing, redis.SSLConnection):
    pass


class _UnixConnection(_Owing, redis.UnixDomainSocketConnection):
    pass


_CLASSES = {redis.SSLConnection: _SSLConnection, redis.UnixDomainSocketConnection: _UnixConnection}


_SMALL = 32 * 1024  # bytes; asyncio's buffer takes twice as many


_NOTHING = object()


class _Lean:
    """Saves what asyncio's connections spend on packing in Python and on timers: half of the cost of a command.

    Where redis-py's inner parts are not as expected (a test says so), its own way is taken.
    """

    is_connected: bool
    _parser: Any
    _reader: Any
    health_check_interval: float
    socket_timeout: float | None

    def pack_command(self, *args: Any) -> Any:
        try:
            return [pack_command((*args[0].encode().split(), *args[1:]))]
        except (AttributeError, TypeError, UnicodeEncodeError):  # what only redis-py itself knows how to pack
            return super().pack_command(*args)  # type: ignore[misc]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        # A timer for the sending costs a task. What fits into asyncio's buffer is sent without waiting, and the
        # wait for its answer has a timer of its own.
        small = isinstance(command, list) and sum(map(len, command)) <= _SMALL
        waits = not (small and self.is_connected) or self.health_check_interval
        timeout = self.socket_timeout
        self.socket_timeout = timeout if waits else None
        try:
            await super().send_packed_command(command, check_health)  # type: ignore[misc]
        except ValueError as error:  # of asyncio since Python 3.12, where the connection was lost a moment ago
            raise ConnectionError(f"The connection was lost: {error}") from error
        finally:
            self.socket_timeout = timeout

    async def read_response(self, disable_decoding: bool = False, *args: Any, **options: Any) -> Any:
        # Of a pipeline's answers only the first has to be waited for, and needs a timer.
        answer = self._arrived(disable_decoding)
        if answer is _NOTHING:
            return await super().read_response(disable_decoding, *args, **options)  # type: ignore[misc]
        error = answer[0] if isinstance(answer, list) and answer else answer
        if isinstance(error, ConnectionError):  # such as LOADING
            await cast(Any, self).disconnect(nowait=True)
            raise error
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    def _arrived(self, disable_decoding: bool) -> Any:
        """Return the next answer where all of it is here, else `_NOTHING`."""
        reader: Any = getattr(self._parser, "_reader", None)
        if not self.is_connected or not hasattr(reader, "gets"):
            return _NOTHING
        answer = reader.gets(False) if disable_decoding else reader.gets()
        return _NOTHING if answer is NOT_ENOUGH_DATA else answer

    async def can_read_destructive(self) -> bool:
        # Asked before each use. redis-py lets a timer of no time run out.
        stream = self._reader
        if stream is None or not hasattr(stream, "_buffer"):
            return bool(await super().can_read_destructive())  # type: ignore[misc]
        return bool(stream.exception() or stream.at_eof() or stream._buffer)


class _AsyncConnection(_Lean, redis.asyncio.Connection):
    pass


class _AsyncSSLConnection(_Lean, redis.asyncio.SSLConnection):
    pass


class _AsyncUnixConnection(_Lean, redis.asyncio.UnixDomainSocketConnection):
    pass


_ASYNC_CLASSES = {
    redis.asyncio.SSLConnection: _AsyncSSLConnection,
    redis.asyncio.UnixDomainSocketConnection: _AsyncUnixConnection,
}


class _Pool(ConnectionPool):
    """A pool that closes what comes back with an answer outstanding."""

    def release(self, connection: Any) -> None:
        if connection.owed > 0:
            connection.disconnect()
        super().release(connection)


def sync_client(
    url: str, *, name: str = "nbjobs", timeout: float = TIMEOUT, retry: bool = True, **options: Any
) -> redis.Redis:
    """Return a client; it connects when it is first used. Threads may share it.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, with user, password and db where needed.
        name: shown by ``CLIENT LIST``.
        timeout: seconds that connecting and each answer may take.
        retry: whether a command whose answer was lost is sent again. Not for ``XADD``, ``INCR`` and the like.
        options: of redis-py's connections.
    """
    parsed = _parse(url)
    kind = parsed.pop("connection_class", redis.Connection)
    backoff = Retry(FullJitterBackoff(cap=0.5, base=0.02), _RETRIES if retry else 0)
    pool = _Pool(
        connection_class=_CLASSES.get(kind, _Connection),
        **_options(name, timeout, retry),
        retry=backoff,
        **{**parsed, **options},
    )
    found: redis.Redis = redis.Redis(connection_pool=pool)
    found.auto_close_connection_pool = True
    return found


def async_client(
    url: str, *, name: str = "nbjobs", timeout: float = TIMEOUT, retry: bool = True, **options: Any
) -> redis.asyncio.Redis:
    """Return a client for asyncio, as `sync_client` does. Close it with ``await client.aclose()``."""
    _parse(url)
    backoff = AsyncRetry(FullJitterBackoff(cap=0.5, base=0.02), _RETRIES if retry else 0)
    pool = redis.asyncio.ConnectionPool.from_url(url, **{**_options(name, timeout, retry), "retry": backoff, **options})
    if pack_command is not None:
        pool.connection_class = _ASYNC_CLASSES.get(pool.connection_class, _AsyncConnection)
    return redis.asyncio.Redis.from_pool(pool)


def _options(name: str, timeout: float, retry: bool) -> dict[str, Any]:
    return {
        "client_name": name,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry_on_error": list(LOST) if retry else [],
        "decode_responses": True,
        "encoding_errors": "surrogateescape",
    }


def _parse(url: str) -> dict[str, Any]:
    try:
        return dict(cast(Any, parse_url)(url))
    except ValueError as error:
        raise SettingsError(
            f"redis_url is {masked_url(url)!r}: {error}. Expected for instance "
            "redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path/to/redis.sock."
        ) from None


_lock = threading.Lock()
_shared: tuple[str, redis.Redis] | None = None


def resolve_url(settings: NbJobs | None = None) -> str:
    """Return the URL of the Redis that the settings name; without one, of the embedded Redis, started."""
    settings = settings or current()
    return settings.redis_url or embedded.url(settings)


def client() -> redis.Redis:
    """Return the client that this process shares, for the current settings."""
    global _shared
    with _lock:
        wanted = current().redis_url
        if _shared is None or (wanted and _shared[0] != wanted):
            url = resolve_url()
            _shared = (url, sync_client(url, name=client_name()))
        elif wanted is None and not embedded.is_as_met(_shared[0]):
            resolve_url()  # the daemon has left since: it is started again, at the same place
        return _shared[1]


def client_name() -> str:
    """Return the name of connections: the embedded daemon stays for clients, and a child of its worker is none."""
    return "nbjobs-child" if "NBJOBS_CHILD" in os.environ else "nbjobs-client"


def drop_client() -> None:
    """Forget the shared client, so that the next one is made from the settings as they are then."""
    global _lock, _shared
    _lock, _shared = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=drop_client)


def execute(client: Any, *command: Any, **options: Any) -> Any:
    """Send one command as it stands; with a client for asyncio, the answer is to be awaited."""
    return client.execute_command(*command, **options)


def check(client: redis.Redis) -> tuple[int, ...]:
    """Return the version of Redis, or raise `RedisUnavailable` with the one line that says what is wrong."""
    with translated(client):
        answer = execute(client, "HELLO")
        fields = dict(zip(answer[::2], answer[1::2], strict=True)) if isinstance(answer, list) else dict(answer)
        version = tuple(int(part) for part in str(fields.get("version", "0")).split(".") if part.isdigit())
    if version < OLDEST:
        found = ".".join(map(str, version))
        raise RedisUnavailable(f"Redis at {where(client)} has version {found}, expected 7.0 or later, or Valkey.")
    return version
