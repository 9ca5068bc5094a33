"""Clients of Redis: how they connect, try again, and say what is wrong.

Everything that speaks to Redis gets its client here, so that five rules hold everywhere:

- Each wait has an end (``timeout``), and an answer that was lost is asked for again a few times, with growing
  random pauses. That is right for the store's scripts and for reading; for anything else make a client with
  ``retry=False``.
- A connection that still owes an answer is never used again. An interrupt between sending and reading (a
  notebook's stop button) would otherwise give that answer to the next caller.
- A fork shares no connection with its parent.
- Where an answer says that another server is meant by now, each connection is made anew before its next use.
- An error says which Redis (without its password), what is wrong and what to do: `RedisUnavailable`.

Text goes in and comes out as ``str``; where Redis holds bytes that are no UTF-8, they come as lone surrogates, and go
back as what they were.
"""

from __future__ import annotations

import os
import threading
from typing import Any, cast
from urllib.parse import unquote

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import FullJitterBackoff
from redis.connection import parse_url
from redis.retry import Retry

from . import embedded
from .errors import RedisUnavailable, SettingsError
from .outages import (
    ELSEWHERE,
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
from .redis_connections import Service, async_pool, sync_pool
from .settings import NbJobs, current

__all__ = [
    "ELSEWHERE",
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
_PATIENCE = 1.0  # seconds for one sentinel: the next one may answer


def sync_client(
    url: str, *, name: str = "nbjobs", timeout: float = TIMEOUT, retry: bool = True, **options: Any
) -> redis.Redis:
    """Return a client; it connects when it is first used. Threads may share it.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, with user, password and db where needed; for a primary that
            sentinels know ``redis+sentinel://user:password@host:26379,host2:26379/service/0``, or ``rediss+sentinel://``.
        name: shown by ``CLIENT LIST``.
        timeout: seconds that connecting and each answer may take.
        retry: whether a command whose answer was lost is sent again. Not for ``XADD``, ``INCR`` and the like.
        options: of redis-py's connections.
    """
    kind, service, parsed = _parse(url)
    backoff = Retry(FullJitterBackoff(cap=0.5, base=0.02), _RETRIES if retry else 0)
    pool = sync_pool(kind, service, {**_options(name, timeout, retry), "retry": backoff, **parsed, **options})
    found: redis.Redis = redis.Redis(connection_pool=pool)
    found.auto_close_connection_pool = True
    return found


def async_client(
    url: str, *, name: str = "nbjobs", timeout: float = TIMEOUT, retry: bool = True, **options: Any
) -> redis.asyncio.Redis:
    """Return a client for asyncio, as `sync_client` does. Close it with ``await client.aclose()``."""
    kind, service, parsed = _parse(url)
    backoff = AsyncRetry(FullJitterBackoff(cap=0.5, base=0.02), _RETRIES if retry else 0)
    pool = async_pool(kind, service, {**_options(name, timeout, retry), "retry": backoff, **parsed, **options})
    return redis.asyncio.Redis.from_pool(pool)


def _options(name: str, timeout: float, retry: bool) -> dict[str, Any]:
    return {
        "client_name": name,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry_on_error": [*LOST, *ELSEWHERE] if retry else [],
        "decode_responses": True,
        "encoding_errors": "surrogateescape",
    }


def _parse(url: str) -> tuple[type[Any], Service | None, dict[str, Any]]:
    """Return the kind of connection that a URL asks for, the service of sentinels that it names, and its options."""
    scheme, plus, rest = url.partition("+sentinel://")
    try:
        if not plus:
            kind, options = _kind_and_options(url)
            return kind, None, options
        login, at, rest = rest.rpartition("@")
        place, question, query = rest.partition("?")
        hosts, _, path = place.partition("/")
        service, _, db = path.partition("/")
        if not hosts or not service:
            raise ValueError("it names no sentinel or no service")
        sentinels = [_kind_and_options(f"{scheme}://{host}")[1] for host in hosts.split(",")]
        first = hosts.partition(",")[0]
        kind, options = _kind_and_options(f"{scheme}://{login}{at}{first}/{db}{question}{query}")
        own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
        patience = {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE, "ssl": scheme == "rediss"}
        found = [(one["host"], one.get("port", 26379)) for one in sentinels]
        options = {name: value for name, value in options.items() if name not in ("host", "port")}
        return kind, Service(unquote(service), found, {**own, **patience}), options
    except (ValueError, KeyError) as error:
        raise SettingsError(
            f"redis_url is {masked_url(url)!r}: {error}. Expected for instance "
            "redis://user:password@host:6379/0, rediss:// for TLS, unix:///path/to/redis.sock, or "
            "redis+sentinel://user:password@host:26379,host2:26379/service/0."
        ) from None


def _kind_and_options(url: str) -> tuple[type[Any], dict[str, Any]]:
    options = dict(cast(Any, parse_url)(url))
    return options.pop("connection_class", redis.Connection), options


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
        known = "" if _shared is None else _shared[0]
        if _shared is None or (known != wanted if wanted else not embedded.is_as_met(known)):
            url = resolve_url()  # where the daemon has left since, it is started again, as a rule at the same place
            if _shared is None or url != known:
                _shared = (url, sync_client(url, name=client_name()))
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


def is_primary(client: redis.Redis) -> bool:
    """Return whether this is no replica, which would show what is old; what cannot be asked is taken for a primary."""
    try:
        return _hello(client).get("role") != "replica"
    except ResponseError:
        return True


def _hello(client: redis.Redis) -> dict[str, Any]:
    answer = execute(client, "HELLO")
    return dict(zip(answer[::2], answer[1::2], strict=True)) if isinstance(answer, list) else dict(answer)


def execute(client: Any, *command: Any, **options: Any) -> Any:
    """Send one command as it stands; with a client for asyncio, the answer is to be awaited."""
    return client.execute_command(*command, **options)


def check(client: redis.Redis) -> tuple[int, ...]:
    """Return the version of Redis, or raise `RedisUnavailable` with the one line that says what is wrong."""
    with translated(client):
        version = tuple(int(part) for part in str(_hello(client).get("version", "0")).split(".") if part.isdigit())
    if version < OLDEST:
        found = ".".join(map(str, version))
        raise RedisUnavailable(f"Redis at {where(client)} has version {found}, expected 7.0 or later, or Valkey.")
    return version
