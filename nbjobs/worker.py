"""The worker: arq's process, queue and fleet around attempts that arq itself knows nothing of.

arq carries the wake-up, the truth lives in the run. One entry of arq's queue stands for one *attempt*; its only
argument is the run's id. This worker reads the queue with arq's own loop, and from there on takes
the direct way: whether the run may be had is decided by `claim` in the run store, not by arq's locks, and how it ended
is written by the child. So arq's retries, time-outs, results and expiries have no say, a restart of Redis ends nothing,
and a second delivery of an entry is refused by `claim`.

What of arq is overridden, and why (a test guards each name):

- `main`: polls again at once when a wake-up or a free place says so, not only twice a second, and goes
  on when Redis was away.
- `start_jobs`: entries of attempts go to `Attempts`; all others (cron, your own functions) take arq's way.
- `run_job`: no error of Redis ends a worker.
- `handle_sig`: drains instead of cancelling: cancelled jobs burn tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Coroutine, Sequence
from signal import Signals
from typing import Any

import arq.worker
import msgspec
from arq.connections import ArqRedis

from . import connection, embedded, keys
from .attempts import Attempts, Candidate
from .backoff import Backoff
from .calls import arq_deserialize, arq_serialize
from .connection import FAILURES, async_client
from .entry import read_wake_up
from .errors import NbjobsError
from .guard import VARIABLE as GUARD
from .health import Server
from .intake import MESSAGE, text
from .leases import Leases, new_worker_id, steady_clock
from .lines import Line
from .logbook import Logbook
from .pool import Claim, Pool
from .redis_errors import concerns_call
from .settings import NbJobs
from .signs import Listener, Renewal
from .sweeper import Sweeper
from .tasks import end_all

logger = logging.getLogger("nbjobs.worker")

_TEN_YEARS = 10 * 365 * 86_400
_LAST_WORDS = 2.0
_GUARD_LOOK = 1.0
_DEEP = 500  # entries of a long queue that are looked through in a poll for a kind that has places


async def attempt(ctx: dict[str, Any], run: str) -> None:
    """Performs one attempt of a run: the function that arq's entries name."""
    attempts: Attempts = ctx["attempts"]
    for candidate in await attempts.look([ctx["job_id"]]):
        await attempts.perform(candidate)


class Worker(arq.worker.Worker):
    """Takes the runs of one queue; make it inside a running event loop.

    Args:
        settings: times, places, the queue, and where Redis is.

    Attributes:
        id: names this worker: host, process and something random.
    """

    def __init__(self, settings: NbJobs) -> None:
        self._guard = os.environ.pop(GUARD, "")  # not for the processes that this one starts
        if settings.adapter != "arq":  # of the environment: it is meant for who enqueues, not for who performs
            settings = NbJobs(**{**settings.to_wire(), "adapter": "arq"})
        url = settings.redis_url or ""
        self.id = new_worker_id()
        self.settings = settings
        self.queue = settings.queue_name
        self._ready: dict[str, deque[Candidate]] = {"sync": deque(), "async": deque()}
        self._known: set[str] = set()
        self._look: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._look.set_result(None)
        self._deep_again = 0.0
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._backlog = False
        self._failed: BaseException | None = None
        self._services: list[asyncio.Task[None]] = []
        self._clients = _clients(url)
        clock = steady_clock(settings)
        leases = Leases(self._clients[0], settings, clock)
        self.children = Pool(settings, self._on_output, on_over=lambda: self._on_free("sync"))
        self.attempts = Attempts(
            leases,
            self.children,
            worker=self.id,
            queue=self.queue,
            on_free=self._on_free,
            grace=settings.grace,
        )
        self._renewal = Renewal(Leases(self._clients[1], settings, clock), self.attempts, settings, queue=self.queue)
        self._listener = Listener(self._clients[2], self.queue, self._on_wake)
        self._logbook = Logbook(self._clients[3], settings)
        self._sweeper = Sweeper(leases, settings, name=self.id, holds=self.attempts.held.__contains__)
        super().__init__(
            [arq.worker.func(attempt, name="attempt", timeout=_TEN_YEARS, keep_result=0, max_tries=1)],
            queue_name=keys.arq_queue(self.queue),
            redis_pool=_arq_client(url, self.queue),
            max_jobs=settings.children + settings.async_runs,
            queue_read_limit=max(32, 4 * settings.children),
            keep_result=0,
            job_serializer=arq_serialize,
            job_deserializer=arq_deserialize,
            log_results=False,
            ctx={"attempts": self.attempts},
        )
        self.in_progress_timeout_s = 60
        self._depth = self.queue_read_limit

    async def serve(self) -> None:
        """Works until it is asked to stop, then drains.

        Raises:
            NbjobsError: no process for bodies can be started here.
        """
        try:
            await self.children.start()
            await self.async_run()
        finally:
            await self._leave()
        if self._failed is not None:
            raise self._failed

    async def main(self) -> None:
        """Does what arq's does, and more often: polls on each wake-up, and when a place becomes free."""
        self.ctx["redis"] = self.pool
        for service in (self._renewal.run(), self._sweeper.run(), self._listener.run(), self._logbook.run()):
            self._services.append(self._watched(service))
        if self._guard:
            self._services.append(self._watched(self._leave_without_guard()))
        logger.info("worker %s takes runs of queue %s, %d at a time", self.id, self.queue, self.settings.children)
        backoff = Backoff(logger)
        while not self._stopping.is_set():
            self._woken.clear()  # before the poll, so that nothing is missed
            with backoff, connection.translated(self.pool):
                await self._poll_iteration()
            await asyncio.sleep(backoff.pause)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self.poll_delay_s)

    async def _leave_without_guard(self) -> None:
        """Drain where the embedded daemon and its guard were killed at once: nobody would end this worker."""
        while self._guard == str(os.getppid()):  # noqa: ASYNC110 - no event tells of a parent's end
            await asyncio.sleep(_GUARD_LOOK)
        self.handle_sig(Signals.SIGHUP)

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Starts the attempts for which there is a place; what is no attempt takes arq's way."""
        self._backlog = len(job_ids) >= self.queue_read_limit
        foreign = await self._take_in(job_ids)
        if self._backlog and self._starving() and self.loop.time() > self._deep_again:
            # All that was read waits for a place of a kind that is full: others may stand behind it.
            self._deep_again = self.loop.time() + self.poll_delay_s
            await self._look_deeper()
        self._start_ready()
        if foreign:
            await super().start_jobs(foreign)

    async def _look_deeper(self) -> None:
        """Looks at the next part of a long queue; one a poll, for all before it may stay where it is for long."""
        page = await self.pool.zrange(self.queue_name, self._depth, self._depth + _DEEP - 1)
        await self._take_in(page)
        self._depth = self._depth + _DEEP if len(page) == _DEEP else self.queue_read_limit

    async def run_job(self, job_id: str, score: int) -> None:
        """Does what arq's does; an entry that cannot be read is removed, and no error of Redis ends the worker."""
        try:
            _check_entry(await self.pool.get(keys.arq_job(job_id)))
            await super().run_job(job_id, score)
        except Exception as error:
            if isinstance(error, FAILURES) and not concerns_call(error):
                logger.warning("arq job %s: %s", text(job_id), error)
            else:
                await self._remove(job_id, error)

    async def _remove(self, entry: str | bytes, error: Exception) -> None:
        """Removes an entry of the queue that nobody can do anything with."""
        told = text(entry if isinstance(entry, str) else ascii(entry))
        logger.warning("the queue's entry %s is removed: %s", told, text(str(error), MESSAGE))
        with contextlib.suppress(*FAILURES):
            await self.pool.zrem(self.queue_name, entry)
            if isinstance(entry, str):
                await self.pool.delete(*(of(entry) for of in (keys.arq_job, keys.arq_in_progress, keys.arq_retry)))

    def handle_sig(self, signum: Signals) -> None:
        """Begins to drain; the second signal ends what has not ended yet."""
        if self._stopping.is_set():
            logger.info("%s: bodies are ended now", Signals(signum).name)
            self._hurry.set()
        else:
            logger.info(
                "%s: no more runs are taken, %d bodies may end their item within %g s",
                Signals(signum).name,
                len(self.attempts.held),
                self.settings.grace,
            )
        self._take_no_more()

    async def _take_in(self, job_ids: list[bytes]) -> list[bytes]:
        """Looks at the entries that are new, for when there is a place; returns what is none of ours."""
        new, foreign = [], []
        for raw in job_ids:
            try:
                id = raw.decode()
                if id in self.tasks or id in self._known:
                    continue
                keys.parse_arq_id(id)
            except UnicodeDecodeError as error:
                await self._remove(raw, error)
            except ValueError:
                foreign.append(raw)
            else:
                new.append(id)
        if new:
            for candidate in await self.attempts.look(new):
                self._put(candidate)
        return foreign

    def _put(self, candidate: Candidate) -> None:
        if candidate.id not in self._known:
            self._known.add(candidate.id)
            self._ready[candidate.kind].append(candidate)

    def _starving(self) -> bool:
        """Whether a place is free for which nothing is ready."""
        return any(self.attempts.free(kind) and not waiting for kind, waiting in self._ready.items())

    def _start_ready(self) -> None:
        """Fills the free places. Whether a run is still to be had is for `claim` to say."""
        for kind, waiting in self._ready.items():
            while waiting and self.attempts.free(kind):
                candidate = waiting.popleft()
                self._known.discard(candidate.id)
                if candidate.id not in self.tasks and not self.attempts.puts_off(candidate):  # else: at a later poll
                    self.job_counter += 1
                    work = self._perform(candidate, self.attempts.perform(candidate))
                    self.tasks[candidate.id] = self.loop.create_task(work)

    async def _perform(self, candidate: Candidate, work: Coroutine[Any, Any, None]) -> None:
        """Performs an attempt to its end; then the place is another's."""
        held = candidate.held
        try:
            await work
            self._logbook.end(held.keys, held.run, held.attempt)
        except Exception:  # reported; one attempt must not end the worker, its run is swept up
            logger.exception("attempt %s has failed in the worker", candidate.id)
        finally:
            self.job_counter -= 1
            self.tasks.pop(candidate.id, None)

    def _on_free(self, kind: str) -> None:
        """A place is free: the next run begins while the last one is still being given back."""
        self._start_ready()
        if self._backlog and len(self._ready[kind]) < self.settings.children:
            self._woken.set()

    def _on_wake(self, message: str) -> None:
        """Begins the attempt that a wake-up names, without a look at the queue; one that is held is asked something."""
        id, fields = read_wake_up(message)
        if id in self.tasks:
            self.attempts.wake(id)
            return
        if self._stopping.is_set() or id in self._known:
            return
        starving = bool(id) and self._starving()
        told = self.attempts.told(id, fields) if starving else None
        if told is not None and self.attempts.free(told.kind) and not self._ready[told.kind]:
            self._put(told)
            self._start_ready()
        elif starving and self._look.done():
            self._look = self.loop.create_task(self._begin_named(id))
        elif not id or self.attempts.free("sync"):
            self._woken.set()
        else:
            self._backlog = True

    async def _begin_named(self, id: str) -> None:
        try:
            await self._take_in([id.encode()])
            self._start_ready()
        except FAILURES:
            self._woken.set()

    def _on_output(self, claim: Claim | None, lines: list[Line]) -> None:
        if claim is not None:
            self._logbook.note(keys.Keys(claim.user), claim.run, lines)
        else:
            for line in lines:
                logger.info("async bodies: %s", line.text)

    def _take_no_more(self) -> None:
        self.allow_pick_jobs = False
        self.attempts.draining = True
        self._stopping.set()
        self._woken.set()

    def _watched(self, service: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts what runs as long as the worker; a failure of it is the worker's."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                self._failed = task.exception()
                self._take_no_more()

        task = self.loop.create_task(service)
        task.add_done_callback(ended)
        return task

    async def _leave(self) -> None:
        """Drains, and closes all that was opened."""
        self._take_no_more()
        await self.attempts.drain(self.settings.grace, self._hurry)
        if self.tasks:
            await asyncio.wait(list(self.tasks.values()), timeout=_LAST_WORDS + 3)
        await self.children.close()
        await self._logbook.flush(_LAST_WORDS)
        with contextlib.suppress(*FAILURES):
            await self._renewal.sign_off()
        await end_all([*self._services, *self.tasks.values()])
        with contextlib.suppress(*FAILURES):
            await self._sweeper.leave()
        for client in [*self._clients, self.pool]:
            await client.aclose()


def run(settings: NbJobs, *, modules: Sequence[str] = ()) -> None:
    """Runs a worker until SIGTERM or Ctrl-C.

    Args:
        settings: say which Redis and which queue.
        modules: are imported in another process first, to see that they can be.

    Raises:
        NbjobsError: it cannot start; the message is one line that says why and what to do.
    """
    if sys.platform == "win32":
        raise NbjobsError(
            "a worker needs Linux or macOS: run it inside WSL. On Windows itself nbjobs is a client only."
        )
    check_modules(modules)
    settings = _with_redis(settings)
    client = connection.sync_client(settings.redis_url or "", name="nbjobs-worker-check", retry=False)
    with contextlib.closing(client):
        for finding in Server(client, private=False).durability():
            if finding.advice:
                logger.warning("%s: %s. %s", finding.check, finding.found, finding.advice)

    async def serve() -> None:
        await Worker(settings).serve()

    asyncio.run(serve())


def _check_entry(data: bytes | None) -> None:
    """Sees that an entry of arq's can be read, which would raise deep inside of it.

    Raises:
        ValueError: it is gone, or none that was written as JSON.
    """
    if data is None:
        raise ValueError("its job is gone")
    try:
        msgspec.json.decode(data, type=_Entry)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f"it is no job of arq in JSON, as nbjobs' workers expect ({error})") from None


class _Entry(msgspec.Struct):
    f: str
    a: list[Any]
    k: dict[str, Any]
    t: int | None
    et: int


def check_modules(modules: Sequence[str]) -> None:
    """Imports modules in a process of its own.

    Raises:
        NbjobsError: one of them cannot be imported.
    """
    for module in modules:
        code = (
            "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[2]); importlib.import_module(sys.argv[1])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, module, arq_serialize(sys.path).decode()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
            raise NbjobsError(f"the module {module} cannot be imported by {sys.executable}: {last}")


def _with_redis(settings: NbJobs) -> NbJobs:
    """Returns settings that name their Redis; the embedded one is started where none is named."""
    if settings.redis_url is not None:
        return settings
    found = {
        "redis_url": embedded.url(settings, worker=False),
        "queue": settings.queue_name,
        "accept_code": settings.accept_code,
    }
    return NbJobs(**{**settings.to_wire(), **found})


def _clients(url: str) -> list[connection.AsyncClient]:
    """Returns clients for runs, renewals, wake-ups and logs: a slow command of one holds up no other."""
    options: dict[str, dict[str, Any]] = {"runs": {}, "renew": {"timeout": 3.0}, "wake": {}, "log": {"retry": False}}
    return [async_client(url, name=f"nbjobs-worker-{role}", **given) for role, given in options.items()]


def _arq_client(url: str, queue: str) -> ArqRedis:
    pool = async_client(url, name="nbjobs-worker-queue", decode_responses=False).connection_pool
    return ArqRedis(
        pool,
        job_serializer=arq_serialize,
        job_deserializer=arq_deserialize,
        default_queue_name=keys.arq_queue(queue),
    )
