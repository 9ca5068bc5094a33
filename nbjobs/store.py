"""The run store: a run changes only through one of eight fenced scripts, whole or not at all.

`Store` sends the calls that `nbjobs.calls` builds, `AsyncStore` does so for asyncio; their methods are the
same. Each call is safe to send again byte for byte, so both simply do that where an answer was lost.

Scripts are not kept over a restart of Redis. Who may load them does so when Redis says it has none: workers,
and any client of a Redis of one's own. Who may not gets `RedisNotPrepared`.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from .calls import (
    Call,
    Calls,
    ClaimReply,
    Clock,
    Commit,
    Reply,
    arq_deserialize,
    arq_serialize,
    entry_commands,
    step_fields,
)
from .connection import ELSEWHERE, AsyncClient, Client, NoPermissionError, NoScriptError, execute, translated
from .storebase import Ask, Base, not_prepared

__all__ = [
    "AsyncStore",
    "Call",
    "Calls",
    "ClaimReply",
    "Clock",
    "Commit",
    "Reply",
    "Store",
    "arq_deserialize",
    "arq_serialize",
    "entry_commands",
    "step_fields",
]

P = ParamSpec("P")
R = TypeVar("R", bound=Reply)
T = TypeVar("T")


def _sync(build: Callable[Concatenate[Calls, P], Call], kind: type[R]) -> Callable[Concatenate[Store, P], R]:
    @functools.wraps(build)
    def method(self: Store, /, *args: P.args, **options: P.kwargs) -> R:
        return cast(R, self.send(build(self.calls, *args, **options)))

    return method


def _async(
    build: Callable[Concatenate[Calls, P], Call], kind: type[R]
) -> Callable[Concatenate[AsyncStore, P], Awaitable[R]]:
    @functools.wraps(build)
    async def method(self: AsyncStore, /, *args: P.args, **options: P.kwargs) -> R:
        return cast(R, await self.send(build(self.calls, *args, **options)))

    return method


def _sync_ask(build: Callable[Concatenate[Base, P], Ask[T]]) -> Callable[Concatenate[Store, P], T]:
    @functools.wraps(build)
    def method(self: Store, /, *args: P.args, **options: P.kwargs) -> T:
        ask = build(self, *args, **options)
        with translated(self._client):
            return ask.read(self._asking(ask).execute())

    return method


def _async_ask(
    build: Callable[Concatenate[Base, P], Ask[T]],
) -> Callable[Concatenate[AsyncStore, P], Awaitable[T]]:
    @functools.wraps(build)
    async def method(self: AsyncStore, /, *args: P.args, **options: P.kwargs) -> T:
        ask = build(self, *args, **options)
        with translated(self._client):
            return ask.read(await self._asking(ask).execute())

    return method


class Store(Base):
    """The store for sync code; threads may share it."""

    _client: Client

    enqueue = _sync(Calls.enqueue, Reply)
    claim = _sync(Calls.claim, ClaimReply)
    commit = _sync(Calls.commit, Reply)
    renew = _sync(Calls.renew, Reply)
    finish = _sync(Calls.finish, Reply)
    lapse = _sync(Calls.lapse, Reply)
    control = _sync(Calls.control, Reply)
    reopen = _sync(Calls.reopen, Reply)

    queue = _sync_ask(Base._queue)
    read = _sync_ask(Base._read)
    read_all = _sync_ask(Base._read_all)
    read_map = _sync_ask(Base._read_map)
    since = _sync_ask(Base._since)
    forget = _sync_ask(Base._forget)
    put_code = _sync_ask(Base._put_code)
    get_code = _sync_ask(Base._get_code)

    def send(self, call: Call) -> Reply:
        """Send a call, loading the scripts where Redis has none; once more where another server may be meant."""
        with translated(self._client):
            try:
                answer = self._send(call)
            except NoScriptError as error:
                self._load(error)
                answer = self._send(call)
            except ELSEWHERE:
                answer = self._send(call)
        reply = self._heard(call, answer)
        if self._wants_entry(call, reply):
            self.queue(call.args[0], reply.attempt + 1, call.queue)
        return reply

    def load(self) -> None:
        """Load all scripts, as workers do on every connect."""
        with translated(self._client):
            self._load(NoScriptError())

    def _send(self, call: Call) -> Any:
        if not call.before and not call.after:
            return execute(self._client, *call.command())
        return self._picked(call, self._calling(call).execute(raise_on_error=False))

    def _load(self, error: NoScriptError) -> None:
        try:
            self._loading(error).execute()
        except NoPermissionError:
            raise not_prepared() from error


class AsyncStore(Base):
    """The store for asyncio."""

    _client: AsyncClient

    enqueue = _async(Calls.enqueue, Reply)
    claim = _async(Calls.claim, ClaimReply)
    commit = _async(Calls.commit, Reply)
    renew = _async(Calls.renew, Reply)
    finish = _async(Calls.finish, Reply)
    lapse = _async(Calls.lapse, Reply)
    control = _async(Calls.control, Reply)
    reopen = _async(Calls.reopen, Reply)

    queue = _async_ask(Base._queue)
    read = _async_ask(Base._read)
    read_all = _async_ask(Base._read_all)
    read_map = _async_ask(Base._read_map)
    since = _async_ask(Base._since)
    forget = _async_ask(Base._forget)
    put_code = _async_ask(Base._put_code)
    get_code = _async_ask(Base._get_code)

    async def send(self, call: Call) -> Reply:
        """Send a call, loading the scripts where Redis has none; once more where another server may be meant."""
        with translated(self._client):
            try:
                answer = await self._send(call)
            except NoScriptError as error:
                await self._load(error)
                answer = await self._send(call)
            except ELSEWHERE:
                answer = await self._send(call)
        reply = self._heard(call, answer)
        if self._wants_entry(call, reply):
            await self.queue(call.args[0], reply.attempt + 1, call.queue)
        return reply

    async def load(self) -> None:
        """Load all scripts, as workers do on every connect."""
        with translated(self._client):
            await self._load(NoScriptError())

    async def _send(self, call: Call) -> Any:
        if not call.before and not call.after:
            return await execute(self._client, *call.command())
        return self._picked(call, await self._calling(call).execute(raise_on_error=False))

    async def _load(self, error: NoScriptError) -> None:
        try:
            await self._loading(error).execute()
        except NoPermissionError:
            raise not_prepared() from error
