"""The embedded daemon: a private Redis, and one worker for each environment that asked for one.

One daemon per OS user, guarded by file locks. A client says `hello` on its socket and names its
environment: interpreter, working directory and ``sys.path``; the daemon starts a worker for it, starts
another where that one dies, and gives back at once what a dead worker held, since it saw the exit. It leaves
by itself some time after the last client and the last unfinished run. Redis and the workers hang on the
guard, so not even SIGKILL of the daemon orphans them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import redis_server
from .backoff import Backoff
from .connection import FAILURES, RedisError
from .directories import forget, identity, sheltered
from .errors import EmbeddedError, NbjobsError
from .keeper import Keeper, Wanted
from .lock import Lock
from .programs import Program, Programs
from .settings import NbJobs
from .steward import OWN_CLIENTS, Steward
from .tasks import end_all

logger = logging.getLogger("nbjobs.daemon")

HURRY = 0.8  # seconds that `nbjobs down` leaves a body to reach its next checkpoint
RESTARTS = 5  # deaths of Redis within a minute that end the daemon
REQUEST_MAX = 16 << 20  # bytes: an environment of 2 MB, Linux' own limit, has up to six times as many as JSON
_READY = 30.0
_LOOK = 5.0
_WATCH = 1.0


class Daemon:
    """Runs until it is told to end or nobody needs it any more.

    Args:
        settings: `idle_exit`, `grace` and what the workers do not set themselves.
        lock: which it holds, on the directories of its sockets and files.
        ready: called once, when Redis answers and clients can come.
    """

    def __init__(self, settings: NbJobs, lock: Lock, *, ready: Callable[[Daemon], None] | None = None) -> None:
        self.settings = settings
        self.places = found = lock.places
        self.programs = Programs()
        self.steward = Steward(settings, found.redis_url)
        self.keepers: dict[str, Keeper] = {}
        self.since = time.time()
        self._ready = ready or (lambda daemon: None)
        self._redis: Program
        self._server: asyncio.Server | None = None
        self._lock = lock
        self._known: dict[Path, tuple[int, int] | None] = {}
        self._ending = asyncio.Event()
        self._hurry = asyncio.Event()
        self._error: EmbeddedError | None = None
        self._visited = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serves clients until the end, then leaves nothing running.

        Raises:
            EmbeddedError: Redis cannot be started, or kept alive.
        """
        self._listen_to_signals()
        forget(self.places.daemon_socket)
        await self.programs.open()
        try:
            if await self._begun():
                await self._ending.wait()
            await self._end()
        finally:
            await self.steward.close()
            await self.programs.close()
            forget(self.places.daemon_socket)
        if self._error is not None:
            raise self._error

    async def _begun(self) -> bool:
        """Begin; return False where the daemon was told to end before that was done."""
        begin = asyncio.create_task(self._begin())
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({begin, ending}, return_when=asyncio.FIRST_COMPLETED)
            if begin.done():
                begin.result()
            return begin.done()
        finally:
            await end_all([begin, ending])

    async def _begin(self) -> None:
        await redis_server.end_left_over(self._lock.before or self.places.runtime)
        await self._start_redis()
        await self.steward.prepare()
        await self.steward.give_back_left_over()
        await self._listen()
        self.spawn(self._keep_redis())
        self.spawn(self._keep_reachable())
        self.spawn(self._leave_when_idle())
        self.spawn(self._serve_the_waiting())
        self._ready(self)

    def end(self, *, hurry: bool = False) -> None:
        """Begins to drain; asked a second time, or in a hurry, the bodies get no more time."""
        if hurry or self._ending.is_set():
            self._hurry.set()
        self._ending.set()

    async def _start_redis(self) -> None:
        self._redis = await redis_server.start(self.programs, self.places)
        self._note(self.places.redis_socket, self.places.redis_data)

    async def _listen(self) -> None:
        """Take requests, on a new socket where the one before has gone."""
        if self._server is not None:
            self._server.close()
        sheltered(self.places.runtime)
        forget(self.places.daemon_socket)
        self._server = await asyncio.start_unix_server(self._serve, str(self.places.daemon_socket), limit=REQUEST_MAX)
        self._note(self.places.daemon_socket)

    def _note(self, *paths: Path) -> None:
        self._known.update((path, identity(path)) for path in paths)

    def _gone(self, path: Path) -> bool:
        return path in self._known and identity(path) != self._known[path]

    async def want(self, wanted: Wanted, *, wait: bool = False) -> None:
        """Makes sure that the workers for this environment run.

        Raises:
            EmbeddedError: it cannot be started; with `wait` also: it did not get ready.
        """
        for number in range(self.settings.workers):
            key = f"{wanted.key} {number}"
            keeper = self.keepers.get(key)
            if keeper is None or keeper.gone:
                keeper = self.keepers[key] = Keeper(wanted, self.programs, self.steward, self.places)
                self.spawn(keeper.keep())
                await keeper.started()
                await self.steward.remember(wanted.queue, wanted.remembered())
            await keeper.started()
            if wait:
                await keeper.ready(_READY)

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.end)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs something beside everything else, until the daemon ends."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s", error, exc_info=None if isinstance(error, NbjobsError) else error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request."""
        self._visited = time.monotonic()
        try:
            request: dict[str, Any] = {}
            try:
                request = json.loads(await asyncio.wait_for(_line(reader), 5))
                answer = await self._answer(request)
            except (NbjobsError, RedisError) as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            if request.get("op") == "down":
                self.end(hurry=True)
        except (OSError, EOFError, ValueError, LookupError, AttributeError, TypeError, asyncio.TimeoutError) as error:
            logger.debug("no request of a client: %r", error)  # whatever a client does harms only itself
        finally:
            writer.close()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        op = request.get("op")
        if self._ending.is_set() and op != "down":
            return {"ending": True}
        if op == "hello" and "worker" in request:
            await self.want(Wanted.of(request["worker"]), wait=bool(request.get("wait")))
        if op in ("hello", "down", "status"):
            status = await self._status() if op == "status" else {}
            return {"redis": self.places.redis_url, "pid": os.getpid(), **status}
        raise EmbeddedError(f"{op!r} is no request of this version of nbjobs, expected hello, status or down")

    async def _status(self) -> dict[str, Any]:
        return {
            "since": self.since,
            "workers": [keeper.describe() for keeper in self.keepers.values() if not keeper.gone],
            "runs": await self.steward.unfinished(),
        }

    async def _keep_redis(self) -> None:
        """Starts Redis again where it dies; workers and clients wait for it."""
        deaths: list[float] = []
        while True:
            code = await self._redis.ended
            self._known.pop(self.places.redis_socket, None)
            if self._ending.is_set():
                return
            now = time.monotonic()
            deaths = [*(then for then in deaths if now - then < 60), now]
            logger.warning("Redis ended with code %s and is started again", code)
            try:
                if len(deaths) > RESTARTS:
                    raise EmbeddedError(f"Redis died {len(deaths)} times in a minute, see {self.places.log}")
                await self._start_redis()
                with suppress(*FAILURES):  # a worker does so as well, with its next sign
                    await self.steward.prepare()
            except NbjobsError as error:
                self._error = EmbeddedError(str(error))
                return self.end(hurry=True)

    async def _keep_reachable(self) -> None:
        """Make anew what was taken away from under the daemon, as by a cleaner of directories.

        Redis cannot make another socket, so it is ended in order and started again; runs wait for it meanwhile.
        Where something cannot be made anew, the workers drain over the connections that they have, and the daemon ends.
        """
        found = self.places
        while True:
            await asyncio.sleep(_WATCH)
            try:
                if self._gone(found.redis_data):
                    raise EmbeddedError(f"the data in {found.redis_data} was removed")
                self._lock.keep()
                if self._gone(found.daemon_socket):
                    logger.warning("the socket %s was removed and is made anew", found.daemon_socket)
                    await self._listen()
                if self._gone(found.redis_socket):
                    logger.warning("the socket %s was removed: Redis is started again", found.redis_socket)
                    self._known.pop(found.redis_socket)  # until there is the next one
                    self._redis.send_signal(signal.SIGTERM)
            except (EmbeddedError, OSError) as error:
                self._error = EmbeddedError(f"the daemon of {found.data} cannot go on: {error}")
                return self.end()

    async def _serve_the_waiting(self) -> None:
        """Starts workers for runs of environments that an earlier daemon knew; no client of theirs need come."""
        backoff = Backoff(logger, longest=_LOOK)
        while True:
            # An interpreter or a folder that is gone: its runs wait, and their cards say so.
            with suppress(NbjobsError), backoff:
                for queue, environment in (await self.steward.waiting()).items():
                    if not any(one.wanted.queue == queue and not one.gone for one in self.keepers.values()):
                        await self.want(Wanted.of({**environment, "variables": dict(os.environ)}))
            await asyncio.sleep(backoff.pause or _LOOK)

    async def _leave_when_idle(self) -> None:
        """Ends the daemon `idle_exit` seconds after the last client and the last unfinished run."""
        limit = self.settings.idle_exit
        backoff = Backoff(logger)
        while True:
            await asyncio.sleep(backoff.pause or min(1.0, limit / 5))
            busy = True
            with backoff:
                busy = await self.steward.busy(OWN_CLIENTS)
            if busy:
                self._visited = time.monotonic()
            elif time.monotonic() - self._visited >= limit:
                logger.info("nobody has needed nbjobs for %g s: it ends", limit)
                return self.end()

    async def _end(self) -> None:
        """Lets the workers drain, then ends them; what one of them could not release is given back here."""
        for keeper in self.keepers.values():
            keeper.stop()
        drained = asyncio.ensure_future(asyncio.gather(*(keeper.drained() for keeper in self.keepers.values())))
        hurry = asyncio.ensure_future(self._hurry.wait())
        first: list[asyncio.Future[Any]] = [drained, hurry]
        await asyncio.wait(first, timeout=self.settings.grace + 5, return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            await asyncio.wait({drained}, timeout=HURRY)
            for keeper in self.keepers.values():
                await keeper.end()
        await end_all([*self._tasks, drained, hurry])
        if self._server is not None:
            self._server.close()


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Read a request.

    Raises:
        EmbeddedError: it is too long; all of it is read, so that the client hears why.
    """
    try:
        return await reader.readuntil()
    except asyncio.LimitOverrunError:
        while (part := await reader.read(1 << 20)) and not part.endswith(b"\n"):
            pass
        raise EmbeddedError(
            f"the request has more than {REQUEST_MAX >> 20} MiB, expected less: this process's environment variables "
            "(os.environ), which it carries, are too large"
        ) from None
