"""Connections of Redis: what ours do beyond those of redis-py.

They never give one call's answer to another, they cost less where asyncio waits for them, and they are made anew where
an answer says that another server is meant by now.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import redis
import redis.asyncio
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.asyncio.sentinel import SentinelManagedConnection as AsyncSentinelManagedConnection
from redis.connection import ConnectionPool
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection

from .outages import ConnectionError, InvalidResponse, ResponseError
from .redis_errors import find

try:
    from hiredis import pack_command
except ImportError:  # an extra of redis-py that arq asks for; without it all works, more slowly
    pack_command = None  # type: ignore[assignment]

__all__ = ["Service", "async_pool", "is_old", "renew_all", "sync_pool"]

_age = 0  # how often it has turned out that another server is meant than those that are connected


def renew_all() -> None:
    """Have each connection of this process made anew before its next use: another server may be meant by now."""
    global _age
    _age += 1


def is_old(connection: Any) -> bool:
    """Return whether a connection was made before the last `renew_all`."""
    return bool(connection.age < _age)


class _Renewed:
    """Is made anew, with all others, where an answer says that another server may be meant."""

    age = 0

    def begin(self) -> None:
        self.age = _age

    def heed(self, error: BaseException) -> None:
        meaning = find(error)
        if meaning is not None and meaning.anew and not is_old(self):
            renew_all()


class _Owing(_Renewed):
    """Counts the answers that a connection still owes."""

    _sock: Any

    owed = 0

    def connect(self) -> None:
        if self._sock is not None and is_old(self):
            self.disconnect()
        if self._sock is None:
            self.begin()
        super().connect()  # type: ignore[misc]

    def send_command(self, *args: Any, **options: Any) -> None:
        self.owed += 1
        try:
            super().send_command(*args, **options)  # type: ignore[misc]
        except UnicodeEncodeError:  # nothing was sent yet
            super().send_command(*_escaped(args), **options)  # type: ignore[misc]

    def pack_commands(self, commands: Any) -> Any:  # of a pipeline, which sends them right after
        commands = list(commands)
        self.owed += len(commands)
        try:
            return super().pack_commands(commands)  # type: ignore[misc]
        except UnicodeEncodeError:
            return super().pack_commands(map(_escaped, commands))  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            answer = super().read_response(*args, **options)  # type: ignore[misc]
        except ResponseError as error:
            self.owed -= 1
            self.heed(error)
            raise
        self.owed -= 1
        return answer

    def disconnect(self, *args: Any) -> None:
        super().disconnect(*args)  # type: ignore[misc]
        self.owed = 0


def _escaped(args: Iterable[Any]) -> tuple[Any, ...]:
    """Return a command's words as bytes where they are text: hiredis takes none with lone surrogates."""
    return tuple(arg.encode("utf-8", "surrogateescape") if isinstance(arg, str) else arg for arg in args)


class _Connection(_Owing, redis.Connection):
    pass


class _SSLConnection(_Owing, redis.SSLConnection):
    pass


class _UnixConnection(_Owing, redis.UnixDomainSocketConnection):
    pass


class _SentinelConnection(SentinelManagedConnection, _Connection):
    def connect(self) -> None:
        if is_old(self):
            self.disconnect()
        cast(Any, super()).connect()


class _SentinelSSLConnection(SentinelManagedConnection, _SSLConnection):
    connect = _SentinelConnection.connect


_SMALL = 32 * 1024  # bytes; asyncio's buffer takes twice as many


_NOTHING = object()


class _Lean(_Renewed):
    """Saves what asyncio's connections spend on packing in Python and on timers: half of the cost of a command.

    Where redis-py's inner parts are not as expected (a test says so), its own way is taken.
    """

    is_connected: bool
    _parser: Any
    _reader: Any
    health_check_interval: float
    socket_timeout: float | None

    async def connect(self) -> None:
        if self.is_connected and is_old(self):
            await cast(Any, self).disconnect(nowait=True)
        if not self.is_connected:
            self.begin()
        try:
            await super().connect()  # type: ignore[misc]
        except BaseException:  # redis-py leaves one to a unix socket open, which has not chosen its database yet
            await cast(Any, self).disconnect(nowait=True)
            raise

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
        try:
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
        except InvalidResponse:  # nothing that follows it can be read
            await cast(Any, self).disconnect(nowait=True)
            raise
        except ResponseError as error:
            self.heed(error)
            raise

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
        if stream is None or pack_command is None or not hasattr(stream, "_buffer"):
            return bool(await super().can_read_destructive())  # type: ignore[misc]
        return bool(stream.exception() or stream.at_eof() or stream._buffer)


class _AsyncConnection(_Lean, redis.asyncio.Connection):
    pass


class _AsyncSSLConnection(_Lean, redis.asyncio.SSLConnection):
    pass


class _AsyncUnixConnection(_Lean, redis.asyncio.UnixDomainSocketConnection):
    pass


class _AsyncSentinelConnection(AsyncSentinelManagedConnection, _AsyncConnection):
    async def connect(self) -> None:
        if is_old(self):
            await self.disconnect(nowait=True)
        await cast(Any, super()).connect()


class _AsyncSentinelSSLConnection(AsyncSentinelManagedConnection, _AsyncSSLConnection):
    connect = _AsyncSentinelConnection.connect


# -- pools -----------------------------------------------------------------------------------------


class _Pool(ConnectionPool):
    """A pool that closes what comes back with an answer outstanding."""

    def release(self, connection: Any) -> None:
        if connection.owed > 0:
            connection.disconnect()
        super().release(connection)


class _SentinelPool(_Pool, SentinelConnectionPool):
    pass


class Service(NamedTuple):
    """A primary that sentinels know.

    Attributes:
        name: what they call it.
        sentinels: host and port of each.
        options: of the connections to them.
    """

    name: str
    sentinels: list[tuple[str, int]]
    options: dict[str, Any]


def sync_pool(kind: type[Any], service: Service | None, options: dict[str, Any]) -> ConnectionPool:
    """Return a pool of connections like redis-py's ``kind``; to a service: of those to its primary at the time."""
    if service is not None:
        made = _SentinelSSLConnection if kind is redis.SSLConnection else _SentinelConnection
        manager = cast(Any, Sentinel)(service.sentinels, sentinel_kwargs=service.options)
        pool: ConnectionPool = cast(Any, _SentinelPool)(service.name, manager, connection_class=made, **options)
        return pool
    ours = {redis.SSLConnection: _SSLConnection, redis.UnixDomainSocketConnection: _UnixConnection}
    return _Pool(connection_class=ours.get(kind, _Connection), **options)


def async_pool(kind: type[Any], service: Service | None, options: dict[str, Any]) -> Any:
    """Return a pool as `sync_pool` does, for asyncio; ``kind`` is the class for sync code."""
    if service is not None:
        made = _AsyncSentinelSSLConnection if kind is redis.SSLConnection else _AsyncSentinelConnection
        manager = cast(Any, AsyncSentinel)(service.sentinels, sentinel_kwargs=service.options)
        return cast(Any, AsyncSentinelConnectionPool)(service.name, manager, connection_class=made, **options)
    ours = {redis.SSLConnection: _AsyncSSLConnection, redis.UnixDomainSocketConnection: _AsyncUnixConnection}
    return redis.asyncio.ConnectionPool(connection_class=ours.get(kind, _AsyncConnection), **options)
