"""What happens to a run whose holder let it go: given back, swept up, and its next attempt queued.

The worker gives back what its child ended, or died over. The daemon does so for a worker whose exit it saw. The
sweeper does so for everybody whose lease is over. All three end in the same place: where the run is queued
again, an entry is written and a worker woken.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import events
from .answers import REFUSED
from .calls import Call, Command, Reply, entry_commands
from .clock import SteadyClock
from .connection import AsyncClient, NoScriptError, translated
from .intake import tags, text, whole
from .keys import USERS, Keys, arq_in_progress, arq_job, arq_queue, arq_retry
from .redis_errors import concerns_call, text_of
from .scripts import SCRIPTS
from .settings import NbJobs
from .store import AsyncStore

logger = logging.getLogger("nbjobs.leases")

FIELDS = ["state", "kind", "job", "queue", "user", "tags", "owner", "attempt", "v"]
SCHEMA = 1
_CHUNK = 200
_HOUR_MS = 3_600_000
_STORES = 1000
_NOT_HOST = re.compile(r"[^a-z0-9.]+")


def new_worker_id() -> str:
    """Returns an id that says host and process, so that whoever sees the process end knows what it held."""
    return f"{_host()}-{os.getpid()}-{secrets.token_hex(3)}"


def new_owner(worker: str) -> str:
    """Returns the name under which one attempt holds its run: the worker's id and something random."""
    return f"{worker}:{secrets.token_hex(8)}"


def process_of(owner: str) -> int | None:
    """Returns the process whose attempt this is; None where it is one of another host.

    >>> process_of(new_owner(new_worker_id())) == os.getpid()
    True
    >>> process_of("elsewhere-17-abc123:00")
    """
    parts = owner.partition(":")[0].rsplit("-", 2)
    return int(parts[1]) if len(parts) == 3 and parts[0] == _host() and parts[1].isdigit() else None


def _host() -> str:
    return _NOT_HOST.sub(".", socket.gethostname().lower()) or "localhost"


def steady_clock(settings: NbJobs) -> SteadyClock:
    """Returns a clock for these leases: two times `renew` are enough for a living holder to renew its own."""
    lease, renew = settings.lease, settings.renew
    return SteadyClock(patience=min(2 * renew, lease), tolerance=(lease - renew) / 4)


@dataclass(frozen=True)
class Held:
    """A run, who holds it, and what its events and its next entry need.

    Attributes:
        keys: of its user.
        queue: the queue that its attempts go to.
    """

    keys: Keys
    run: str
    owner: str = ""
    attempt: int = 0
    job: str = ""
    queue: str = ""
    user: str = ""
    tags: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: Keys, run: str, fields: Mapping[str, str | None]) -> Held:
        """Reads the run's hash."""
        return cls(
            keys,
            run,
            owner=fields.get("owner") or "",
            attempt=whole(fields.get("attempt")) or 0,
            job=text(fields.get("job")),
            queue=text(fields.get("queue")),
            user=fields.get("user") or keys.user,
            tags=tags(fields.get("tags")),
        )


class Leases:
    """Gives runs back, for whoever has seen their holder go.

    Args:
        client: of the run store.
        settings: limits and waits.
        clock: Redis time, to be shared by all that a process knows of one Redis.
    """

    def __init__(self, client: AsyncClient, settings: NbJobs, clock: SteadyClock | None = None) -> None:
        self.client = client
        self.clock = clock or steady_clock(settings)
        self._settings = settings
        self._stores: dict[str, AsyncStore] = {}

    def store(self, keys: Keys) -> AsyncStore:
        """Returns the store of one user."""
        found = self._stores.get(keys.u)
        if found is None:
            if len(self._stores) >= _STORES:
                self._stores.clear()
            found = self._stores[keys.u] = AsyncStore(self.client, keys, self._settings, clock=self.clock)
        return found

    async def tell_time(self) -> int:
        """Asks Redis what time it is, and returns that in ms."""
        with translated(self.client):
            seconds, micros = await self.client.time()
        now = int(seconds) * 1000 + int(micros) // 1000
        self.clock.heard(now)
        return now

    async def prepare(self) -> None:
        """Loads the scripts where Redis has none, as after its restart: a client may not be allowed to."""
        with translated(self.client):
            found = await self.client.script_exists(*(script.sha for script in SCRIPTS.values()))
        if not all(found):
            await self.store(Keys.of("nobody")).load()

    async def lapse(
        self, held: Held, reason: str, description: str = "", *, queue: bool = True, **payload: Any
    ) -> Reply:
        """Tells the run that its holder is gone, and queues the next attempt where there is to be one.

        Harmless where the holder has already said how it ended.

        Args:
            held: the run; its owner is who is gone.
            reason: ``lease_lost``, ``child_died`` or ``worker_died``.
            description: a sentence for the card.
            queue: whether a next attempt may begin at once.
            payload: more about it: ``signal``, ``last_lines``.
        """
        d = self.describe(held, reason=reason, description=description, **payload)
        reply = await self.store(held.keys).lapse(held.run, held.owner, d)
        if queue:
            await self.queue_next(held, reply)
        return reply

    async def release(self, held: Held, reason: str, description: str = "") -> Reply:
        """Lets the run go on behalf of a child that was ended; no crash is counted, nothing queued."""
        d = self.describe(held, reason=reason, description=description)
        return await self.store(held.keys).finish(held.run, held.owner, "released", d=d)

    async def queue_next(self, held: Held, reply: Reply) -> None:
        """Writes the entry of the run's next attempt, where the run waits for nothing but a worker."""
        if reply.code in ("OK", "AGAIN") and reply.state == "queued" and reply.at <= reply.now:
            await self.store(held.keys).queue(held.run, reply.attempt + 1, held.queue)

    def describe(self, held: Held, **payload: Any) -> str:
        """Returns the JSON of an event that this process writes about a run."""
        head = {"job": held.job, "job_id": held.run, "attempt": held.attempt}
        event = events.Event(
            name="",
            payload={**head, **{name: value for name, value in payload.items() if value not in ("", None, [])}},
            tags=dict(held.tags),
            context={"user_id": held.user, "job_id": held.run},
            timestamp=self.clock.now() * 1_000_000,
            source_location=None,
        )
        return events.encode(event)

    async def read(self, found: Sequence[tuple[Keys, str]]) -> list[dict[str, str | None]]:
        """Returns the fields `FIELDS` of several runs, in one round trip."""
        return await self.read_fields(found, FIELDS)

    async def read_fields(
        self, found: Sequence[tuple[Keys, str]], fields: Sequence[str], before: Sequence[Command] = ()
    ) -> list[dict[str, str | None]]:
        """Returns fields of several runs, as they are after the commands `before`.

        Where a run should be and something else is, it has none of them.
        """
        commands = [*before, *(("HMGET", keys.run(run), *fields) for keys, run in found)]
        answers = (await self._pipelined(commands))[len(before) :]
        return [dict(zip(fields, values or [None] * len(fields), strict=True)) for values in answers]

    async def users(self) -> list[Keys]:
        """Returns all users that have enqueued or been served lately."""
        with translated(self.client):
            return [Keys.of(u) for u in await self.client.zrange(USERS, 0, -1)]

    async def unfinished(self) -> list[Held]:
        """Returns every run that somebody still has to look at: not the ended and not the paused ones."""
        found: list[tuple[Keys, str]] = []
        for keys in await self.users():
            (due,) = await self._pipelined([("ZRANGE", keys.due, 0, -1)])
            found += [(keys, run) for run in due or ()]
        held = []
        for part in chunks(found):
            held += [
                Held.of(keys, run, fields) for (keys, run), fields in zip(part, await self.read(part), strict=True)
            ]
        return held

    async def lapse_held_by(self, gone: Callable[[str], bool], description: str) -> int:
        """Gives back each run whose owner is gone; returns how many."""
        count = 0
        for held in await self.unfinished():
            if held.owner and gone(held.owner):
                reply = await self.lapse(held, "worker_died", description)
                count += reply.code == "OK"
        return count

    async def look(
        self, found: Sequence[tuple[Keys, str]], holds: Callable[[str], bool] = lambda owner: False
    ) -> list[tuple[Held, Reply]]:
        """Looks at runs whose time has come: leases that ended, waits that are over, entries that are missing.

        Args:
            found: the runs.
            holds: whether an owner is an attempt of this process: its lease is renewed, however late that is.
        """
        fields = await self.read(found)
        runs = [Held.of(keys, run, values) for (keys, run), values in zip(found, fields, strict=True)]
        bounds = self.clock.bounds()
        calls = [self._renewal(held) if holds(held.owner) else self._look(held, bounds) for held in runs]
        seen = list(zip(runs, await self.send_all(calls), strict=True))
        await self._put_off([(held, reply) for held, reply in seen if reply.code in REFUSED])
        # A run whose wait is over still says `scheduled` or `retrying`; QUEUE says that it may begin.
        waits = [one for one in seen if one[1].code == "QUEUE" or (one[1].code == "OK" and one[1].state == "queued")]
        await self._queue_missing(waits)
        return seen

    def _renewal(self, held: Held) -> Call:
        return self.store(held.keys).calls.renew(held.run, held.owner)

    def _look(self, held: Held, bounds: tuple[int, int]) -> Call:
        patience = f"its worker gave no sign for {self._settings.lease:g} s"
        d = self.describe(held, reason="lease_lost", description=patience) if held.owner else ""
        return self.store(held.keys).calls.lapse(held.run, "", d, bounds=bounds)

    async def send_all(self, calls: Sequence[Call]) -> list[Reply]:
        """Sends several calls in one round trip, loading the scripts where Redis has none.

        A call over whose keys Redis stumbles answers BADTYPE.
        """
        commands = [call.command() for call in calls]
        try:
            answers = await self._pipelined(commands)
        except NoScriptError:
            await self.store(Keys.of("nobody")).load()
            answers = await self._pipelined(commands)
        replies = [
            call.read(answer) if answer is not None else Reply("BADTYPE", detail=call.keys[0])
            for call, answer in zip(calls, answers, strict=True)
        ]
        for reply in replies:
            self.clock.heard(reply.now)
        return replies

    async def _pipelined(self, commands: Sequence[Command]) -> list[Any]:
        """Sends commands in one round trip; one that fails for its own keys answers None, all others are done."""
        pipe = self.client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        with translated(self.client):
            answers: list[Any] = await pipe.execute(raise_on_error=False) if commands else []
        for at, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                raise answer
            if isinstance(answer, Exception):
                with translated(self.client):
                    if not concerns_call(answer):
                        raise answer
                logger.debug("%s: %s", commands[at][:2], text_of(answer))
                answers[at] = None
        return answers

    async def _put_off(self, refused: Sequence[tuple[Held, Reply]]) -> None:
        """Leaves runs for an hour of which something else than nbjobs has written keys or fields."""
        at = self.clock.now() + _HOUR_MS
        for u, (held, reply) in {held.keys.u: (held, reply) for held, reply in refused}.items():
            count = sum(other.keys.u == u for other, _ in refused)
            told = (text(u), count, text(held.run), reply.code, text(reply.detail))
            logger.warning("user %s: %d runs are left alone for an hour; to a look at %s Redis answers %s %s", *told)
        await self._pipelined([("ZADD", held.keys.due, "XX", at, held.run) for held, _ in refused])

    async def _queue_missing(self, waiting: Sequence[tuple[Held, Reply]]) -> None:
        """Writes the entries that are not in the queue; a long queue is not announced anew each minute."""
        named = [
            ("ZSCORE", arq_queue(held.queue), arq_id_of(held.keys, held.run, reply.attempt + 1))
            for held, reply in waiting
        ]
        await self._pipelined(
            [
                command
                for (held, reply), score in zip(waiting, await self._pipelined(named), strict=True)
                if score is None and reply.at <= reply.now
                for command in entry_commands(held.keys, held.run, reply.attempt + 1, held.queue, self.clock.now())
            ]
        )


def arq_id_of(keys: Keys, run: str, attempt: int) -> str:
    """Returns arq's id of one attempt of a user of whom perhaps only the encoded name is known."""
    return f"{{{keys.u}}}:{run}:{attempt}"


def forget_entry(queue: str, id: str) -> list[tuple[Any, ...]]:
    """Returns the commands that remove an attempt from arq's queue."""
    return [
        ("ZREM", arq_queue(queue), id),
        ("DEL", arq_job(id), arq_in_progress(id), arq_retry(id)),
    ]


def chunks(found: Sequence[tuple[Keys, str]]) -> Iterable[Sequence[tuple[Keys, str]]]:
    """Yields a long list in parts that one round trip can carry."""
    for start in range(0, len(found), _CHUNK):
        yield found[start : start + _CHUNK]
