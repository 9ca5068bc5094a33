"""A Redis that refuses what it is asked, for a while and in every way that it knows."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from nbjobs import connection, keys
from nbjobs.leases import process_of
from nbjobs.run import Run
from nbjobs.settings import configure, set_current

from .. import workjobs
from ..homes import Home
from ..support import ENDED, RedisServer, wait_until
from ..workers import Ledger as WorkLedger
from . import jobs
from .ledger import Ledger
from .processes import Worker
from .proxy import Proxy
from .stage import LEASE, PATIENCE, QUEUE, RENEW, SWEEP, USER

WEATHER = 20.0  # seconds
ITEMS = 150

SAID = {
    "LOADING": "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN": "CLUSTERDOWN The cluster is down",
    "NOAUTH": "NOAUTH Authentication required.",
    "max number of clients": "ERR max number of clients reached",
    "Script killed by user": "ERR Script killed by user with SCRIPT KILL.",
    "unknown": "EXPLODED and nobody knows why",
}
"""What a proxy answers to each command, since a Redis is not easily brought to say so for 20 seconds."""


class World:
    """A worker on a Redis of its own, with a run that is under way, and the weather over it.

    Args:
        word: of the table; ``unknown`` is in none.
        folder: for the ledger and the worker's log.
    """

    def __init__(self, word: str, folder: Path, stack: ExitStack) -> None:
        self.word = word
        self.server = RedisServer(appendonly="no", save="3600 1", busy_reply_threshold="100")
        stack.enter_context(self.server)
        self.plain = self.server.client()
        stack.callback(self.plain.close)
        self.proxy = stack.enter_context(Proxy(self.server.socket))
        self.ledger = Ledger(folder / f"ledger {word}")
        self.worker = Worker(
            self.proxy.url,
            folder / f"worker {word}",
            queue=QUEUE,
            lease=LEASE,
            renew=RENEW,
            sweep=SWEEP,
            children=1,
        )
        stack.callback(self.worker.close)
        self.run: Run

    def begin(self) -> None:
        """Enqueue a run, once the worker takes some."""
        signs = lambda: self.plain.zrange(keys.workers(QUEUE), 0, -1)  # noqa: E731
        wait_until(lambda: any(process_of(one) == self.worker.pid for one in signs()), PATIENCE, self.worker.said)
        configure(redis_url=self.server.url, user=USER, queue=QUEUE)
        self.run = jobs.count.enqueue(str(self.ledger.path), ITEMS, 0.03)
        wait_until(lambda: len(self.ledger.lines(self.run.id, "count")) > 10, PATIENCE, lambda: self.worker.said)

    @property
    def fields(self) -> dict[str, str]:
        return self.plain.hgetall(keys.Keys(USER).run(self.run.id))

    @contextmanager
    def weather(self) -> Iterator[None]:
        """Redis answers with the word: for a cause of its own, or because the proxy says so."""
        cause = CAUSES.get(self.word)
        if cause is not None:
            with cause(self.server, self.plain):
                yield
            return
        self.proxy.says = SAID[self.word]
        yield
        self.proxy.says = ""

    def check(self) -> None:
        """The run ended in its first attempt, by the worker that began it, which said once what was wrong."""
        wait_until(lambda: self.fields.get("state") in ENDED, PATIENCE, lambda: f"{self.fields} {self.worker.said}")
        wait_until(lambda: "Redis answers again, after " in self.worker.said, PATIENCE, lambda: self.worker.said)
        fields, said = self.fields, self.worker.said
        assert {name: fields[name] for name in EXPECTED} == EXPECTED, f"{self.word}: {fields} {said}"
        assert self.worker.process.poll() is None, f"{self.word}: {said}"
        assert len(self.ledger.repeats(self.run.id, "count", 1)) == 0
        assert "Traceback" not in said, f"{self.word}: {said}"
        told = [line for line in said.splitlines() if "Waiting for it." in line]
        assert len(told) == 1, f"{self.word}: {said}"
        assert said.count("Redis answers again, after ") == 1, f"{self.word}: {said}"
        assert len(said.splitlines()) < 8, f"{self.word}: {said}"


EXPECTED = {"state": "completed", "attempt": "1", "crashes": "0", "failures": "0"}


@contextmanager
def too_few_replicas(server: RedisServer, plain: redis.Redis) -> Iterator[None]:
    plain.config_set("min-replicas-to-write", 1)
    yield
    plain.config_set("min-replicas-to-write", 0)


@contextmanager
def full(server: RedisServer, plain: redis.Redis) -> Iterator[None]:
    plain.config_set("maxmemory", "1")
    yield
    plain.config_set("maxmemory", "0")


@contextmanager
def replica(server: RedisServer, plain: redis.Redis) -> Iterator[None]:
    plain.replicaof("127.0.0.1", "1")
    yield
    plain.replicaof("NO", "ONE")


@contextmanager
def unable_to_save(server: RedisServer, plain: redis.Redis) -> Iterator[None]:
    (server.folder / "dump.rdb" / "in the way").mkdir(parents=True)
    plain.bgsave()
    yield
    plain.config_set("save", "")


@contextmanager
def busy(server: RedisServer, plain: redis.Redis) -> Iterator[None]:
    def spin() -> None:
        with server.client(socket_timeout=60) as other, pytest.raises(redis.ResponseError, match="killed"):
            other.eval("while true do end", 0)

    thread = threading.Thread(target=spin)
    thread.start()
    yield
    plain.script_kill()
    thread.join()


@contextmanager
def without_rights(server: RedisServer, plain: redis.Redis) -> Iterator[None]:
    plain.execute_command("ACL", "SETUSER", "default", "-@write", "-evalsha", "-script")
    yield
    plain.execute_command("ACL", "SETUSER", "default", "+@all")


CAUSES: dict[str, Callable[[RedisServer, redis.Redis], object]] = {
    "NOREPLICAS": too_few_replicas,
    "OOM": full,
    "READONLY": replica,
    "MISCONF": unable_to_save,
    "BUSY": busy,
    "NOPERM": without_rights,
}


@pytest.mark.slow
@pytest.mark.weather("H2")
@pytest.mark.timeout(300)
def test_no_error_of_redis_ends_a_worker_or_an_attempt(tmp_path: Path) -> None:
    """Each word for 20 s in mid-run, side by side: pid unchanged, attempt 1, crashes 0, and one line in the log."""
    with ExitStack() as stack:
        stack.callback(set_current, None)
        stack.callback(connection.drop_client)
        worlds = [World(word, tmp_path, stack) for word in (*CAUSES, *SAID)]
        for world in worlds:
            world.begin()
            connection.client().close()
        with ExitStack() as weather:
            for world in worlds:
                weather.enter_context(world.weather())
            began = time.monotonic()
            wait_until(lambda: time.monotonic() > began + WEATHER, WEATHER + 5, "20 s pass", every=0.1)
        for world in worlds:
            world.check()


@pytest.mark.weather("H2")
def test_no_error_of_redis_ends_a_service_of_the_daemon(tmp_path: Path) -> None:
    """All is forbidden for some seconds: then a killed worker is replaced, the run goes on, and the daemon, which has
    said it in one line, leaves by itself when nobody needs it.
    """
    with Home(idle_exit=4) as home:
        set_current(home.settings)
        ledger = WorkLedger(tmp_path / "ledger")
        run = workjobs.items.enqueue(ledger.path, 3000)
        ledger.wait_for(20, PATIENCE)
        daemon, plain = home.daemon(), connection.client()
        plain.execute_command("ACL", "SETUSER", "default", "-@all", "+acl")
        wait_until(
            lambda: re.search(r"daemon\S* Redis at .* does not let this user", home.log()), 20, home.log, every=0.1
        )
        plain.execute_command("ACL", "SETUSER", "default", "+@all")
        wait_until(lambda: "Redis answers again" in home.log(), PATIENCE, home.log)
        os.kill(home.status()["workers"][0]["pid"], signal.SIGKILL)
        ledger.open_gate()
        assert run.result(timeout=PATIENCE) == 3000
        assert home.daemon() == daemon
        told = [line for line in home.log().splitlines() if "Waiting for it." in line]
        assert len(told) == len({re.search(r"\[(\d+)\]", line)[1] for line in told}) >= 2, "a line of each process"
        assert "Traceback" not in home.log()
        plain.close()
        connection.drop_client()
        set_current(None)
        wait_until(lambda: not daemon.is_running(), PATIENCE, lambda: f"it leaves: {home.log()}")
