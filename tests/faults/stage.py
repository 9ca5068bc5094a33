"""Everything that a test of this package needs: a Redis, workers, a run, and the three witnesses."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbjobs import connection, history
from nbjobs.jobs import Job
from nbjobs.keys import Keys
from nbjobs.run import Run
from nbjobs.settings import configure, set_current

from ..support import ENDED, RedisServer, leaks, wait_until
from .failpoints import Point
from .ledger import Ledger, Line
from .processes import Worker
from .recorder import Recorder
from .transcript import Transcript

USER, QUEUE = "ada", "faults"
LEASE, RENEW, SWEEP, POLL = 2.5, 0.4, 0.5, 0.5
AFTER_WORKER = LEASE + SWEEP + POLL  # after which a run goes on whose worker was killed
AFTER_CHILD = 2.0  # after a child's death, and after SIGTERM
SLOW = 4.0  # seconds that a busy machine may take in addition
PATIENCE = float(os.environ.get("FAULT_PATIENCE", "60"))  # for what must come some time


class Stage:
    """One test's world.

    Args:
        folder: for the ledger and the workers' logs.
        options: of the Redis server.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        self.server = RedisServer(**{"appendonly": "no", **options}).start()
        self.settings = configure(redis_url=self.server.url, user=USER, queue=QUEUE)
        self.keys = Keys(USER)
        self.client = self.server.client()
        self.recorder = Recorder(self.server.socket, USER)
        self.ledger = Ledger(folder / "ledger")
        self.workers: list[Worker] = []
        self.transcripts: dict[str, Transcript] = {}

    @property
    def path(self) -> str:
        """Of the ledger, as an argument of jobs."""
        return str(self.ledger.path)

    # -- actors ----------------------------------------------------------------------------------------------

    def worker(
        self,
        *,
        url: str = "",
        points: list[Point] | None = None,
        path: Path | None = None,
        ready: bool = True,
        **settings: Any,
    ) -> Worker:
        """Start a worker; by default return when it takes runs."""
        log = self.folder / f"worker-{len(self.workers) + 1}.log"
        usual = {"queue": QUEUE, "lease": LEASE, "renew": RENEW, "sweep": SWEEP, "children": 1, "grace": 10}
        worker = Worker(url or self.server.url, log, points=points, path=path, **{**usual, **settings})
        self.workers.append(worker)
        if ready:
            self.wait_for(worker)
        return worker

    def wait_for(self, *workers: Worker) -> None:
        """Return when these workers take runs."""
        for worker in workers:
            wait_until(lambda w=worker: self._signed(w), PATIENCE, f"worker {worker.pid} takes runs: {worker.said}")
            worker.below()

    def _signed(self, worker: Worker) -> bool:
        if worker.process.poll() is not None:
            raise AssertionError(f"worker {worker.pid} has ended: {worker.said}")
        signs = self.client.zrange(f"nbjobs:workers:{QUEUE}", 0, -1)
        return any(f"-{worker.pid}-" in sign for sign in signs)

    def point(self, at: str, *, name: str = "", **options: Any) -> Point:
        """Return a fail point that fires once in this test, and then makes the file ``fired-<name>``."""
        return Point(at, str(self._marker(name or at)), **options)

    def await_stop(self, name: str, description: str) -> None:
        """Wait until the process that a fail point stops stands still: the file alone comes a moment before."""

        def stands() -> bool:
            marker = self._marker(name)
            pid = marker.read_text() if marker.exists() else ""
            return bool(pid) and psutil.Process(int(pid)).status() == psutil.STATUS_STOPPED

        wait_until(stands, PATIENCE, description)

    def _marker(self, name: str) -> Path:
        return self.folder / f"fired-{name}"

    def enqueue(self, job: Job[Any, Any], *args: Any, **kwargs: Any) -> Run:
        """Enqueue a job, and follow its run from the start."""
        run = job.enqueue(*args, **kwargs)
        self.transcripts[run.id] = Transcript(run.id, self.keys.user, self.settings)
        return run

    def restart_redis(self) -> None:
        """Start the server again after it was killed."""
        self.recorder.close()
        self.server.start()
        self.recorder.listen()

    # -- what can be asked -----------------------------------------------------------------------------------

    def fields(self, run: Run) -> dict[str, str]:
        """Return the run's hash."""
        return self.client.hgetall(self.keys.run(run.id))

    def standing(self, run: Run) -> str:
        """Return how the run stands, and what the workers say."""
        fields = self.fields(run)
        told = {name: fields.get(name) for name in ("state", "attempt", "crashes", "c", "step", "cursor", "owner")}
        return f"it stands at {told}: {self.logs()}"

    def holder(self, run: Run) -> Worker:
        """Return the worker that holds the run."""
        owner = self.fields(run).get("owner", "")
        (found,) = [worker for worker in self.workers if f"-{worker.pid}-" in owner.partition(":")[0]]
        return found

    def await_item(self, run: Run, item: int, step: str = "count") -> Line:
        """Return when an item of the run was done, with its first line."""
        return wait_until(
            lambda: next((line for line in self.ledger.lines(run.id, step) if line.item == item), None),
            PATIENCE,
            lambda: f"item {item} of {run.id} is done; {self.standing(run)}",
        )

    def await_attempt(self, run: Run, attempt: int, step: str = "count") -> Line:
        """Return when an attempt has done an item, with its first line."""
        return wait_until(
            lambda: next(iter(self.ledger.lines(run.id, step, attempt)), None),
            PATIENCE,
            lambda: f"attempt {attempt} of {run.id} works; {self.standing(run)}",
        )

    def await_end(self, run: Run, state: str = "completed", timeout: float = PATIENCE) -> None:
        """Return when the run has ended, in this state."""
        wait_until(
            lambda: self.fields(run).get("state") in ENDED,
            timeout,
            lambda: f"{run.id} ends; {self.standing(run)}",
            every=0.02,
        )
        assert self.fields(run)["state"] == state, self.logs()
        self.recorder.catch_up(self.client)

    def names(self, run: Run) -> list[str]:
        """Return the names of the run's numbered events, in order."""
        entries = self.client.xrange(self.keys.user_events)
        return [entry["e"] for _, entry in entries if entry["id"] == run.id]

    def payloads(self, run: Run, name: str) -> list[dict[str, Any]]:
        """Return the payloads of the run's events of a name."""
        events = history.events(connection.client(), self.keys, run.id)
        return [dict(event.payload) for event in events if event.name == name]

    def said_by(self, run: Run) -> str:
        """Return what the bodies of the run wrote to stdout and stderr, and what nbjobs logged beside them."""
        return "\n".join(entry["d"] for _, entry in self.client.xrange(self.keys.log(run.id)))

    def logs(self) -> str:
        """Return what all workers have logged, for the message of a failure."""
        return "\n".join(f"[{worker.log.name}]\n{worker.said[-3000:]}" for worker in self.workers)

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything, and look for what must not be left."""
        for transcript in self.transcripts.values():
            transcript.close()
        for worker in self.workers:
            worker.close()
        self.recorder.close()
        set_current(None)
        connection.client.__globals__["_shared"][1].close() if connection.client.__globals__["_shared"] else None
        connection.drop_client()
        try:
            found = leaks(self.client) if self.server.process is not None else []
        finally:
            self.client.close()
            self.server.close()
        assert not found, "\n".join(found)


@contextmanager
def staged(folder: Path, **options: str) -> Iterator[Stage]:
    """A stage with a Redis of these options."""
    stage = Stage(folder, **options)
    try:
        yield stage
    finally:
        stage.close()


def seconds_since(ns: int, line: Line) -> float:
    """Return how long after a moment an item was done."""
    return (line.ns - ns) / 1e9


def in_time(seconds: float, limit: float, what: str) -> None:
    """I6; the time is printed."""
    print(f"{what}: {seconds:.2f} s (promised {limit:g} s)")
    assert seconds <= limit + SLOW, f"{what} took {seconds:.2f} s, promised are {limit:g} s"


def wait_ns(ns: int) -> None:
    """Return when the monotonic clock says so: the fault's own time, not a guess."""
    time.sleep(max(0, ns - time.monotonic_ns()) / 1e9)


faulty = pytest.mark.fault
