"""What keeps a client from its Redis, in one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import SSLConnection
from redis.asyncio import SSLConnection as AsyncSSLConnection
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

from .errors import RedisUnavailable

__all__ = [
    "LOST",
    "RETRYABLE",
    "ConnectionError",
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

RETRYABLE = (RedisUnavailable, ConnectionError, TimeoutError, BusyLoadingError, OutOfMemoryError)
"""What may pass by itself: whoever holds a run waits and sends the same call again."""


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
    text = str(error)
    for kinds, starts, told in _PLAIN_WORDS:
        if isinstance(error, kinds) or (starts and text.startswith(starts)):
            return told
    if isinstance(error, (*LOST, OSError)):
        tls = " and that it speaks TLS, as rediss:// says" if _uses_tls(client) else ""
        return f"does not answer ({_reason(error)}): check that it runs{tls}, and that NBJOBS_REDIS_URL is right."
    return None


# By class, or by the error's first words where redis-py has no class for it.
_PLAIN_WORDS: list[tuple[tuple[type[Exception], ...], tuple[str, ...], str]] = [
    ((BusyLoadingError,), (), "is still loading its data: try again in a moment."),
    (
        (AuthenticationError, AuthorizationError),
        ("NOAUTH", "WRONGPASS"),
        "refuses the user or the password: check those in NBJOBS_REDIS_URL.",
    ),
    (
        (),
        ("DB index", "invalid DB index"),
        "has no database of that number: check the one at the end of NBJOBS_REDIS_URL.",
    ),
    (
        (OutOfMemoryError,),
        ("OOM",),
        "is full (maxmemory): free some memory or raise its limit. Runs wait, and go on then.",
    ),
    ((ReadOnlyError,), (), "is a replica and takes no writes: give the address of its primary."),
    (
        (),
        ("MISCONF",),
        "cannot save to its disk, so it refuses writes: look at its log and the disk's space.",
    ),
    (
        (),
        ("unknown command", "Error compiling script"),
        "is too old, or no Redis: expected Redis 7.0 or later, or Valkey.",
    ),
]


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error.__context__ or error
    found = cause.strerror if isinstance(cause, OSError) else ""
    return found or str(error) or type(error).__name__


def _uses_tls(client: Any) -> bool:
    return issubclass(client.connection_pool.connection_class, (SSLConnection, AsyncSSLConnection))


def where(client: Any) -> str:
    """Return a client's address, without a password."""
    found = client.connection_pool.connection_kwargs
    if "path" in found:
        return f"unix://{found['path']}"
    return f"{found.get('host', 'localhost')}:{found.get('port', 6379)}/{found.get('db') or 0}"
