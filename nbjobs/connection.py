"""Clients of Redis: how they connect, try again, and say what is wrong.

Everything that speaks to Redis gets its client here, so that four rules hold everywhere:

- Each wait has an end (``timeout``), and an answer that was lost is asked for again a few times, with growing random
  pauses. That is right for the store's scripts and for reading; a client for anything else is made with ``retry=False``.
- A connection that still owes an answer is never used again. An interrupt between sending and reading (the stop
  button of a notebook) would otherwise give the answer to the next caller.
- A fork shares no connection with its parent.
- An error says which Redis (without its password), what is wrong and what to do: `RedisUnavailable`.

Text goes in and comes out as ``str``; bytes that are no UTF-8 survive as lone surrogates.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import FullJitterBackoff
from redis.connection import ConnectionPool, parse_url
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from .errors import RedisUnavailable, SettingsError
from .settings import NbJobs, current

__all__ = [
    "RETRYABLE",
    "AsyncClient",
    "Client",
    "ConnectionError",
    "NoPermissionError",
    "NoScriptError",
    "OutOfMemoryError",
    "RedisError",
    "ResponseError",
    "TimeoutError",
    "async_client",
    "check",
    "client",
    "drop_client",
    "masked",
    "resolve_url",
    "sync_client",
    "translated",
]

Client = redis.Redis
AsyncClient = redis.asyncio.Redis

OLDEST = (7, 0)
"""The first Redis whose scripts can be refused whole when memory is full."""

TIMEOUT = 5.0
"""Seconds a command may take. A blocking read must ask for less."""

_LOST = (ConnectionError, TimeoutError, BusyLoadingError)
RETRYABLE = (RedisUnavailable, ConnectionError, TimeoutError, BusyLoadingError, OutOfMemoryError)
"""What may pass by itself: whoever holds a run waits and sends the same call again."""

_RETRIES = 3


class _Owing:
    """Counts the answers that a connection still owes."""

    owed = 0

    def pack_command(self, *args: Any) -> Any:
        self.owed += 1
        return super().pack_command(*args)  # type: ignore[misc]

    def pack_commands(self, commands: Any) -> Any:
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
        retry: whether a command whose answer was lost is sent again. Not for ``XADD``, ``INCR`` and their like.
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
    pool = redis.asyncio.ConnectionPool.from_url(
        url, **{**_options(name, timeout, retry), "retry": backoff, **options}
    )
    return redis.asyncio.Redis.from_pool(pool)


def _options(name: str, timeout: float, retry: bool) -> dict[str, Any]:
    return {
        "client_name": name,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry_on_error": list(_LOST) if retry else [],
        "decode_responses": True,
        "encoding_errors": "surrogateescape",
    }


def _parse(url: str) -> dict[str, Any]:
    try:
        return dict(parse_url(url))
    except ValueError as error:
        raise SettingsError(
            f"redis_url is {masked(url)!r}: {error}. Expected for instance redis://user:password@host:6379/0, "
            "rediss:// for TLS, or unix:///path/to/redis.sock."
        ) from None


# -- the client of this process --------------------------------------------------------------------------------------

_lock = threading.Lock()
_shared: tuple[str, redis.Redis] | None = None


def resolve_url(settings: NbJobs | None = None) -> str:
    """Return the URL of the Redis that the settings name; without one, of the embedded Redis, started if need be."""
    from . import embedded

    settings = settings or current()
    return settings.redis_url or embedded.url(settings)


def client() -> redis.Redis:
    """Return the client that this process shares, for the current settings."""
    global _shared
    with _lock:
        wanted = current().redis_url
        if _shared is None or (wanted and _shared[0] != wanted):
            url = resolve_url()
            _shared = (url, sync_client(url))
        return _shared[1]


def drop_client() -> None:
    """Forget the shared client, so that the next one is made from the settings as they are then."""
    global _lock, _shared
    _lock, _shared = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=drop_client)


# -- what is wrong ---------------------------------------------------------------------------------------------------


def masked(url: str) -> str:
    """Return a URL without its password.

    >>> masked("redis://ada:secret@host:6379/0")
    'redis://ada:***@host:6379/0'
    """
    try:
        parts = urlsplit(url)
        secret = parts.password
    except ValueError:
        return "(unreadable)"
    query = "&".join(_masked_field(field) for field in parts.query.split("&"))
    place = parts.netloc if secret is None else parts.netloc.rpartition(":" + secret)[0] + ":***"
    if secret is not None:
        place += "@" + parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, parts.path, query, "")) if parts.scheme else "(unreadable)"


def _masked_field(field: str) -> str:
    name, equals, _ = field.partition("=")
    return f"{name}=***" if equals and name.lower() not in ("db", "protocol", "timeout") else field


@contextmanager
def translated(client: Any) -> Iterator[None]:
    """Raise `RedisUnavailable` for what keeps this client from its Redis; other errors pass."""
    try:
        yield
    except (RedisError, OSError) as error:
        told = _told(error)
        if told is None:
            raise
        raise RedisUnavailable(f"Redis at {_where(client)} {told}") from error


def _told(error: BaseException) -> str | None:
    text = str(error)
    if isinstance(error, BusyLoadingError):
        return "is still loading its data: try again in a moment."
    if isinstance(error, (AuthenticationError, AuthorizationError)) or text.startswith(
        ("NOAUTH", "WRONGPASS")
    ):
        return "refuses the user or the password: check those in NBJOBS_REDIS_URL."
    if "DB index" in text:
        return "has no database of that number: check the one at the end of NBJOBS_REDIS_URL."
    if isinstance(error, OutOfMemoryError):
        return "is full (maxmemory): free some memory or raise its limit. Runs wait, and go on then."
    if isinstance(error, ReadOnlyError):
        return "is a replica and takes no writes: give the address of its primary."
    if text.startswith("MISCONF"):
        return "cannot save to its disk and so refuses writes: look at its log and at the disk's space."
    if "unknown command" in text or "compiling script" in text:
        return "is too old or no Redis: expected Redis 7.0 or later, or Valkey."
    if isinstance(error, (TimeoutError, ConnectionError, OSError)):
        return f"does not answer ({_reason(error)}): check that it runs and that NBJOBS_REDIS_URL is right."
    return None


def _reason(error: BaseException) -> str:
    if "SSL" in str(error) or "CERTIFICATE" in str(error):
        return "TLS failed; redis:// is without, rediss:// with TLS"
    cause = error.__cause__ or error.__context__ or error
    return (cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)) or type(
        error
    ).__name__


def _where(client: Any) -> str:
    found = client.connection_pool.connection_kwargs
    if "path" in found:
        return f"unix://{found['path']}"
    return f"{found.get('host', 'localhost')}:{found.get('port', 6379)}/{found.get('db') or 0}"


def check(client: redis.Redis) -> tuple[int, ...]:
    """Return the version of Redis, or raise `RedisUnavailable` with the one line that says what is wrong."""
    with translated(client):
        answer = client.execute_command("HELLO")
        fields = dict(zip(answer[::2], answer[1::2])) if isinstance(answer, list) else dict(answer)
        version = tuple(int(part) for part in str(fields.get("version", "0")).split(".") if part.isdigit())
    if version < OLDEST:
        found = ".".join(map(str, version))
        raise RedisUnavailable(
            f"Redis at {_where(client)} has version {found}, expected 7.0 or later, or Valkey."
        )
    return version
