"""The run store: a run changes only through one of eight fenced scripts, whole or not at all.

`Store` sends the calls that `nbjobs.calls` builds, `AsyncStore` does so for asyncio; they have the same methods. Each is
safe to send again byte for byte, so both simply do that where an answer was lost.

Scripts are not kept over a restart of Redis. Who may load them does so when Redis says it has none (workers, and any
client of a Redis of one's own); who may not gets `RedisNotPrepared`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from .calls import (
    CODE_KEPT,
    CODE_LIMIT,
    Call,
    Calls,
    ClaimReply,
    Clock,
    Command,
    Commit,
    Reply,
    arq_deserialize,
    arq_serialize,
    entry_commands,
    step_fields,
)
from .connection import AsyncClient, Client, NoPermissionError, NoScriptError, translated
from .errors import RedisNotPrepared, TooLarge
from .keys import Keys
from .scripts import SCRIPTS

if TYPE_CHECKING:
    from .settings import NbJobs

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

_log = logging.getLogger("nbjobs.store")
_LOADS: list[Command] = [("SCRIPT LOAD", script.text) for script in SCRIPTS.values()]


def _sync(build: Callable[Concatenate[Calls, P], Call], kind: type[R]) -> Callable[Concatenate[Store, P], R]:
    @functools.wraps(build)
    def send(self: Store, /, *args: P.args, **options: P.kwargs) -> R:
        return cast(R, self.send(build(self.calls, *args, **options)))

    return send


def _async(
    build: Callable[Concatenate[Calls, P], Call], kind: type[R]
) -> Callable[Concatenate[AsyncStore, P], Awaitable[R]]:
    @functools.wraps(build)
    async def send(self: AsyncStore, /, *args: P.args, **options: P.kwargs) -> R:
        return cast(R, await self.send(build(self.calls, *args, **options)))

    return send


class _Base:
    """What both stores share.

    Args:
        client: of `nbjobs.connection`, its retries on.
        user: whose runs these are: a name, or `Keys.of` where only the encoded name is known.
        settings: limits and times that travel with the calls.
        may_load: whether to load the scripts into a Redis that has none.
        clock: Redis time, to be shared by stores of one Redis.
    """

    def __init__(
        self,
        client: Any,
        user: str | Keys,
        settings: NbJobs,
        *,
        may_load: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.calls = Calls(user, settings, clock)
        self.keys = self.calls.keys
        self._may_load = may_load
        self._client = client

    def _pipeline(self, call: Call) -> Any:
        pipe = self._client.pipeline(transaction=False)
        for command in (*call.before, call.command(), *call.after):
            pipe.execute_command(*command)
        return pipe

    def _loads(self, error: NoScriptError) -> Any:
        """Return the pipeline that loads all scripts."""
        if not self._may_load:
            raise _not_prepared() from error
        pipe = self._client.pipeline(transaction=False)
        for command in _LOADS:
            pipe.execute_command(*command)
        return pipe

    def _read(self, call: Call, answer: Any) -> Reply:
        reply = call.read(answer)
        self.calls.clock.heard(reply.now)
        return reply

    def _picked(self, call: Call, answers: list[Any]) -> Any:
        """Return the script's answer out of a pipeline's; what went with it are hints, whose loss is only told."""
        at = len(call.before)
        if isinstance(answers[at], Exception):
            raise answers[at]
        for other in answers:
            if isinstance(other, Exception):
                _log.warning(
                    "Redis refused a hint that went with %s, so the run may begin later: %s",
                    call.script,
                    other,
                )
        return answers[at]


def _not_prepared() -> RedisNotPrepared:
    return RedisNotPrepared(
        "No worker has prepared this Redis yet: it does not have this version's scripts, and this user may not load "
        "them. Start a worker (nbjobs worker) on it, then try again."
    )


def _code_checked(code: bytes) -> bytes:
    if len(code) > CODE_LIMIT:
        raise TooLarge(
            f"the job's code has {len(code):,} bytes, at most {CODE_LIMIT:,} can be stored: large objects that it "
            "refers to belong into a file or an argument, functions into a module",
            what="code",
            size=len(code),
            limit=CODE_LIMIT,
        )
    return code


class Store(_Base):
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

    def send(self, call: Call) -> Reply:
        """Send a call, loading the scripts where Redis has none."""
        with translated(self._client):
            try:
                return self._read(call, self._send(call))
            except NoScriptError as error:
                self._load(error)
                return self._read(call, self._send(call))

    def load(self) -> None:
        """Load all scripts, as workers do on every connect."""
        with translated(self._client):
            self._load(NoScriptError())

    def read(self, run: str, *fields: str) -> dict[str, str]:
        """Return fields of a run's hash, those that are missing left out."""
        with translated(self._client):
            found = cast("list[str | None]", self._client.hmget(self.keys.run(run), fields))
        return {field: text for field, text in zip(fields, found) if text is not None}

    def queue(self, run: str, attempt: int, queue: str) -> None:
        """Write arq's entry of an attempt and wake a worker."""
        with translated(self._client):
            pipe = self._client.pipeline(transaction=False)
            for command in entry_commands(self.keys, run, attempt, queue, self.calls.clock.now()):
                pipe.execute_command(*command)
            pipe.execute()

    def put_code(self, sha: str, code: bytes) -> None:
        """Store code by value once per hash, for 30 days from now."""
        key = self.keys.code(sha)
        with translated(self._client):
            if not self._client.pexpire(key, CODE_KEPT):
                self._client.set(key, _code_checked(code), px=CODE_KEPT)

    def get_code(self, sha: str) -> bytes | None:
        """Return stored code, kept for 30 days more; None where it is gone."""
        with translated(self._client):
            found = self._client.execute_command(
                "GETEX", self.keys.code(sha), "PX", CODE_KEPT, NEVER_DECODE=True
            )
        return cast("bytes | None", found)

    def _send(self, call: Call) -> Any:
        if not call.before and not call.after:
            return self._client.execute_command(*call.command())
        return self._picked(call, self._pipeline(call).execute(raise_on_error=False))

    def _load(self, error: NoScriptError) -> None:
        try:
            self._loads(error).execute()
        except NoPermissionError:
            raise _not_prepared() from error


class AsyncStore(_Base):
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

    async def send(self, call: Call) -> Reply:
        """Send a call, loading the scripts where Redis has none."""
        with translated(self._client):
            try:
                return self._read(call, await self._send(call))
            except NoScriptError as error:
                await self._load(error)
                return self._read(call, await self._send(call))

    async def load(self) -> None:
        """Load all scripts, as workers do on every connect."""
        with translated(self._client):
            await self._load(NoScriptError())

    async def read(self, run: str, *fields: str) -> dict[str, str]:
        """Return fields of a run's hash, those that are missing left out."""
        with translated(self._client):
            found = await cast("Awaitable[list[str | None]]", self._client.hmget(self.keys.run(run), fields))
        return {field: text for field, text in zip(fields, found) if text is not None}

    async def queue(self, run: str, attempt: int, queue: str) -> None:
        """Write arq's entry of an attempt and wake a worker."""
        with translated(self._client):
            pipe = self._client.pipeline(transaction=False)
            for command in entry_commands(self.keys, run, attempt, queue, self.calls.clock.now()):
                pipe.execute_command(*command)
            await pipe.execute()

    async def put_code(self, sha: str, code: bytes) -> None:
        """Store code by value once per hash, for 30 days from now."""
        key = self.keys.code(sha)
        with translated(self._client):
            if not await self._client.pexpire(key, CODE_KEPT):
                await self._client.set(key, _code_checked(code), px=CODE_KEPT)

    async def get_code(self, sha: str) -> bytes | None:
        """Return stored code, kept for 30 days more; None where it is gone."""
        with translated(self._client):
            found = await self._client.execute_command(
                "GETEX", self.keys.code(sha), "PX", CODE_KEPT, NEVER_DECODE=True
            )
        return cast("bytes | None", found)

    async def _send(self, call: Call) -> Any:
        if not call.before and not call.after:
            return await self._client.execute_command(*call.command())
        return self._picked(call, await self._pipeline(call).execute(raise_on_error=False))

    async def _load(self, error: NoScriptError) -> None:
        try:
            await self._loads(error).execute()
        except NoPermissionError:
            raise _not_prepared() from error
