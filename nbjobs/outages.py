"""What keeps a client from its Redis, in one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import SSLConnection
from redis.asyncio import SSLConnection as AsyncSSLConnection
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    InvalidResponse,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from .errors import RedisNotPrepared, RedisUnavailable
from .redis_errors import find, text_of

__all__ = [
    "ELSEWHERE",
    "FAILURES",
    "LOST",
    "ConnectionError",
    "InvalidResponse",
    "NoPermissionError",
    "NoScriptError",
    "OutOfMemoryError",
    "RedisError",
    "ResponseError",
    "TimeoutError",
    "translated",
    "where",
]

LOST = (ConnectionError, TimeoutError, BusyLoadingError)
"""The answer did not come; whether the command was done is not known."""

ELSEWHERE = (ReadOnlyError,)
"""Nothing was done, for another server is the one that is meant: asked for anew, it may be known by now."""

FAILURES = (RedisUnavailable, RedisNotPrepared, RedisError, OSError)
"""Whatever a call can meet that is Redis' doing, not the caller's."""


@contextmanager
def translated(client: Any) -> Iterator[None]:
    """Raise `RedisUnavailable` for what keeps this client from its Redis; other errors pass."""
    try:
        yield
    except (RedisError, OSError) as error:
        told = _told(error, client)
        if told is None:
            raise
        raise RedisUnavailable(f"Redis at {where(client)} {told}") from error


def _told(error: BaseException, client: Any) -> str | None:
    """Return what is wrong and what to do, or None where the error says nothing about the connection."""
    if isinstance(error, InvalidResponse):
        return "does not speak as Redis does: is that another service's port? Check NBJOBS_REDIS_URL."
    meaning = find(error)
    if meaning is not None:
        return None if meaning.concerns == "call" else meaning.told.format(found=text_of(error))
    if isinstance(error, (*LOST, OSError)):
        tls = " and that it speaks TLS, as rediss:// says" if _uses_tls(client) else ""
        return f"does not answer ({_reason(error)}): check that it runs{tls}, and that NBJOBS_REDIS_URL is right."
    return None


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error.__context__ or error
    found = cause.strerror if isinstance(cause, OSError) else ""
    return found or str(error) or type(error).__name__


def _uses_tls(client: Any) -> bool:
    return issubclass(client.connection_pool.connection_class, (SSLConnection, AsyncSSLConnection))


def where(client: Any) -> str:
    """Return a client's address, without a password."""
    pool = client.connection_pool
    found = pool.connection_kwargs
    if hasattr(pool, "sentinel_manager"):
        known = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
        hosts = ",".join(f"{one['host']}:{one['port']}" for one in known)
        return f"{hosts}/{pool.service_name}/{found.get('db') or 0}"
    if "path" in found:
        return f"unix://{found['path']}"
    return f"{found.get('host', 'localhost')}:{found.get('port', 6379)}/{found.get('db') or 0}"
