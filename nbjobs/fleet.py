"""The workers of a Redis, and the runs that have not ended: whether each of these has one that will take it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, cast

import msgspec

from . import keys, words
from .connection import Client, ResponseError
from .health import Finding
from .settings import NbJobs

_MOST = 10_000  # users, and runs of one user, that are looked at
_PATIENCE = 60_000  # ms besides a lease, after which somebody should have looked at a run that is due
_LONG = 1_000  # entries of a queue

_FIELDS = ["state", "queue", "owner", "code", "missing_since"]


class About(msgspec.Struct, frozen=True):
    """What a worker says of itself.

    Attributes:
        version: of nbjobs; empty where the worker does not say.
        python: its Python's, major and minor.
        since: Redis time of its start, in ms.
        accepts_code: whether it loads code from notebooks.
    """

    version: str = ""
    python: str = ""
    since: int = 0
    accepts_code: bool = False

    @classmethod
    def of(cls, settings: NbJobs, since: int) -> About:
        """Return what a worker with these settings says, which has begun at that time."""
        return cls(VERSION, PYTHON, since, settings.accept_code)


VERSION = importlib.metadata.version("nbjobs")
PYTHON = ".".join(platform.python_version_tuple()[:2])
"""Major and minor version: code by value is loaded by no other."""


class Queue(NamedTuple):
    """A queue: its living workers by their ids, and how many entries wait in it."""

    name: str
    workers: Mapping[str, About]
    depth: int


class Unfinished(NamedTuple):
    """What is looked at of a run that has not ended."""

    user: str
    run: str
    due: int
    state: str
    queue: str
    owner: str
    code: str
    missing_since: str

    @property
    def waits(self) -> bool:
        """Whether it waits for a worker."""
        return not self.owner and self.state == "queued"


class Fleet:
    """All that is known about workers and unfinished runs.

    Args:
        client: of Redis; what its user may not see is left out.
        settings: say how long a lease is, and which queue is meant where no other is known.
    """

    def __init__(self, client: Client, settings: NbJobs) -> None:
        self._client = client
        self._settings = settings
        seconds, micros = cast("tuple[int, int]", client.time())
        self._now = seconds * 1000 + micros // 1000
        self._runs = list(self._unfinished())
        self._queues = [self._queue(name) for name in self._names()]

    def checks(self) -> Iterator[Finding]:
        """Yield what is found."""
        for queue in self._queues:
            yield self._workers(queue)
            yield from self._queue_depth(queue)
            yield from self._versions(queue)
            yield from self._code(queue)
        yield self._leases()

    # -- what there is -------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        """Return the queues that are known: of workers, of runs, and of these settings."""
        found = {run.queue for run in self._runs if run.queue}
        if not self._settings.embedded:
            found.add(self._settings.queue_name)
        with suppress(ResponseError):  # a notebook's user may not list keys
            prefix = keys.workers("")
            found |= {key.removeprefix(prefix) for key in self._client.scan_iter(f"{prefix}*", count=1000)}
        return sorted(found)

    def _queue(self, name: str) -> Queue:
        since = self._now - round(self._settings.lease * 1000)
        alive = cast("list[str]", self._client.zrangebyscore(keys.workers(name), since, "+inf"))
        told = cast("list[str | None]", self._client.mget([keys.worker(id) for id in alive])) if alive else []
        workers = {
            id: msgspec.json.decode(text, type=About) if text else About() for id, text in zip(alive, told, strict=True)
        }
        return Queue(name, workers, cast(int, self._client.zcard(keys.arq_queue(name))))

    def _unfinished(self) -> Iterator[Unfinished]:
        for u in cast("list[str]", self._client.zrange(keys.USERS, 0, _MOST - 1)):
            user = keys.Keys.of(u)
            due = cast("Sequence[tuple[str, float]]", self._client.zrange(user.due, 0, _MOST - 1, withscores=True))
            pipe = self._client.pipeline(transaction=False)
            for run, _ in due:
                pipe.hmget(user.run(run), _FIELDS)
            for (run, score), fields in zip(due, pipe.execute(), strict=True):
                yield Unfinished(user.user or u, run, round(score), *(text or "" for text in fields))

    # -- what is found -------------------------------------------------------------------------------------------

    def _workers(self, queue: Queue) -> Finding:
        if queue.workers:
            oldest = min((one.since for one in queue.workers.values() if one.since), default=0)
            age = f", the oldest up for {words.lasted((self._now - oldest) / 1000)}" if oldest else ""
            return Finding("workers", "ok", f"{words.plural(len(queue.workers), 'worker')} on queue {queue.name}{age}")
        waiting = sum(run.queue == queue.name for run in self._runs)
        if not waiting:
            return Finding("workers", "ok", f"no worker on queue {queue.name}, and no run for one")
        return Finding(
            "workers",
            "error",
            f"no worker on queue {queue.name}, and {words.plural(waiting, 'unfinished run')}",
            "Open a notebook in its directory: the embedded daemon starts a worker for it."
            if self._settings.embedded
            else f"Start one: nbjobs worker --queue {queue.name}",
        )

    def _queue_depth(self, queue: Queue) -> Iterator[Finding]:
        if not queue.depth:
            return
        found = f"{words.plural(queue.depth, 'run')} in queue {queue.name}"
        if queue.depth > _LONG:
            yield Finding("queue", "warning", found, "Start more workers, or wait: they are taken in turn.")
        else:
            yield Finding("queue", "ok", found)

    def _versions(self, queue: Queue) -> Iterator[Finding]:
        other = Counter(one.version or "unknown" for one in queue.workers.values() if one.version != VERSION)
        if other:
            found = ", ".join(f"{count} of nbjobs {version}" for version, count in sorted(other.items()))
            yield Finding(
                "versions",
                "warning",
                f"workers on queue {queue.name}: {found}, and this is {VERSION}",
                "Restart them after an upgrade; what a newer version enqueues waits for a newer worker.",
            )

    def _code(self, queue: Queue) -> Iterator[Finding]:
        """Look whether code from notebooks finds a worker that loads it."""
        lost = [run for run in self._runs if run.queue == queue.name and run.missing_since]
        by_value = [run for run in self._runs if run.queue == queue.name and run.code and run.waits]
        if not queue.workers:
            return
        if by_value and not any(one.accepts_code for one in queue.workers.values()):
            yield Finding(
                "code",
                "error",
                f"{words.plural(len(by_value), 'run')} of jobs from notebooks on queue {queue.name}, and none of its "
                "workers takes code from notebooks",
                "Start one with NBJOBS_ACCEPT_CODE=true if all who can enqueue may run code there, or move the job to "
                "a module.",
            )
        elif lost:
            yield Finding(
                "code",
                "error",
                f"{words.plural(len(lost), 'run')} on queue {queue.name} whose job no worker can load, such as "
                f"{lost[0].run} of {lost[0].user}",
                "Its card says why. Install the module where the workers run, or start a worker that has it.",
            )
        elif not all(one.python == PYTHON for one in queue.workers.values() if one.python):
            others = sorted({one.python for one in queue.workers.values() if one.python} - {PYTHON})
            yield Finding(
                "code",
                "warning",
                f"workers on queue {queue.name} have Python {', '.join(others)}, this is {PYTHON}",
                "Code from notebooks is loaded by the same Python only; jobs of modules by any.",
            )

    def _leases(self) -> Finding:
        limit = self._now - round(self._settings.lease * 1000) - _PATIENCE
        late = [run for run in self._runs if run.due < limit]
        if not late:
            return Finding("leases", "ok", f"{words.plural(len(self._runs), 'unfinished run')}, none overdue")
        first = min(late, key=lambda run: run.due)
        return Finding(
            "leases",
            "error",
            f"{words.plural(len(late), 'run')} should have been looked at by now, such as {first.run} of {first.user}, "
            f"{words.lasted((self._now - first.due) / 1000)} ago",
            "No worker sweeps: start one, or look at the log of those that run.",
        )
