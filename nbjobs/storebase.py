"""What both stores share: plain commands beside the scripts, and pipelines; nothing is sent here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .calls import CODE_KEPT, CODE_LIMIT, Call, Calls, Clock, Command, Reply, entry_commands
from .connection import NoScriptError
from .errors import RedisNotPrepared, TooLarge
from .keys import Keys
from .scripts import SCRIPTS

if TYPE_CHECKING:
    from .settings import NbJobs

T = TypeVar("T")

_log = logging.getLogger("nbjobs.store")


@dataclass(frozen=True)
class Ask(Generic[T]):
    """Plain commands, idempotent as the scripts are, and how to read their answers."""

    commands: Iterable[Command]
    read: Callable[[list[Any]], T]
    raw: bool = False


class Base:
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

    # -- plain commands ----------------------------------------------------------------------------

    def _queue(self, run: str, attempt: int, queue: str) -> Ask[None]:
        """Write arq's entry of an attempt and wake a worker."""
        commands = entry_commands(self.keys, run, attempt, queue, self.calls.clock.now())
        return Ask(commands, lambda answers: None)

    def _read(self, run: str, *fields: str) -> Ask[list[str | None]]:
        """Return fields of a run's hash, None for what is missing."""
        return Ask([("HMGET", self.keys.run(run), *fields)], lambda answers: answers[0])

    def _read_all(self, run: str) -> Ask[dict[str, str]]:
        """Return a run's hash, empty where there is none."""
        return Ask([("HGETALL", self.keys.run(run))], lambda answers: answers[0])

    def _read_map(self, run: str, k: int) -> Ask[dict[str, str]]:
        """Return what the run's k-th step keeps while it maps: index → text, beside its ``name`` and ``bytes``."""
        return Ask([("HGETALL", self.keys.map(run, k))], lambda answers: answers[0])

    def _since(self, run: str, field: str) -> Ask[float]:
        """Return for how many seconds a run has had this field, which is set to Redis time if it has not."""
        key = self.keys.run(run)
        return Ask([("HSETNX", key, field, self.calls.clock.now()), ("HGET", key, field), ("TIME",)], _seconds)

    def _forget(self, run: str, field: str) -> Ask[None]:
        """Remove a field that `since` has set."""
        return Ask([("HDEL", self.keys.run(run), field)], lambda answers: None)

    def _put_code(self, sha: str, code: bytes) -> Ask[None]:
        """Store code by value once per hash, for 30 days from now."""
        key = self.keys.code(sha)
        commands = [("SET", key, _code_checked(code), "PX", CODE_KEPT, "NX"), ("PEXPIRE", key, CODE_KEPT)]
        return Ask(commands, lambda answers: None)

    def _get_code(self, sha: str) -> Ask[bytes | None]:
        """Return stored code, kept for 30 days more; None where it is gone."""
        command = ("GETEX", self.keys.code(sha), "PX", CODE_KEPT)
        return Ask([command], lambda answers: answers[0], raw=True)

    # -- sending -----------------------------------------------------------------------------------

    def _pipe(self, commands: Iterable[Command], **options: Any) -> Any:
        pipe = self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command, **options)
        return pipe

    def _asking(self, ask: Ask[Any]) -> Any:
        return self._pipe(ask.commands, **({"NEVER_DECODE": True} if ask.raw else {}))

    def _loading(self, error: NoScriptError) -> Any:
        if not self._may_load:
            raise not_prepared() from error
        return self._pipe(("SCRIPT LOAD", script.text) for script in SCRIPTS.values())

    def _calling(self, call: Call) -> Any:
        return self._pipe([*call.before, call.command(), *call.after])

    def _picked(self, call: Call, answers: Sequence[Any]) -> Any:
        """Return the script's answer; what went with it are hints, whose loss is only told."""
        at = len(call.before)
        if isinstance(answers[at], Exception):
            raise answers[at]
        for other in answers:
            if isinstance(other, Exception):
                _log.warning("a hint sent with %s was refused, so a run may begin late: %s", call.script, other)
        return answers[at]

    def _heard(self, call: Call, answer: Any) -> Reply:
        reply = call.read(answer)
        self.calls.clock.heard(reply.now)
        return reply

    def _wants_entry(self, call: Call, reply: Reply) -> bool:
        return bool(call.queue) and reply.ok and reply.state == "queued" and reply.at <= reply.now


def not_prepared() -> RedisNotPrepared:
    """Return the error of a client that may not load the scripts."""
    return RedisNotPrepared(
        "No worker has prepared this Redis yet: it lacks the scripts of this version, and this user may not "
        "load them. Start a worker (nbjobs worker) on it, then try again."
    )


def _seconds(answers: list[Any]) -> float:
    _, since, (seconds, micros) = answers
    return max(0.0, float(seconds) + float(micros) / 1e6 - float(since) / 1000)


def _code_checked(code: bytes) -> bytes:
    if len(code) > CODE_LIMIT:
        raise TooLarge(
            f"the job's code has {len(code):,} bytes, at most {CODE_LIMIT:,} can be stored: large "
            "objects that it refers to belong into a file, functions into a module",
            what="code",
            size=len(code),
            limit=CODE_LIMIT,
        )
    return code
