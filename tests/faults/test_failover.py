"""Another primary than the one that a run began on: behind one address, and as sentinels elect it."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import redis

from nbjobs import connection, keys
from nbjobs.keys import Keys
from nbjobs.leases import process_of
from nbjobs.run import Run
from nbjobs.settings import configure, current, set_current
from nbjobs.signs import Listener
from nbjobs.store import Store
from nbjobs.stream import Follower

from ..support import ENDED, RedisServer, await_until, wait_until
from . import jobs
from .ledger import Ledger
from .processes import Worker
from .proxy import Proxy
from .stage import LEASE, PATIENCE, QUEUE, RENEW, SLOW, SWEEP, USER

PROMISED = 5.0  # seconds until a run goes on after its address leads elsewhere
ITEMS = 400


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def two_servers() -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica, in step."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(RedisServer(port=free_port(), unixsocket="redis.sock", repl_diskless_sync_delay="0"))
            for _ in range(2)
        )
        replicate(second, first)
        yield first, second


def replicate(replica: RedisServer, primary: RedisServer) -> None:
    with replica.client() as plain:
        plain.replicaof("127.0.0.1", str(primary.port))
        wait_until(lambda: plain.info("replication")["master_link_status"] == "up", 20, "the replica is in step")


def hand_over(first: RedisServer, second: RedisServer) -> None:
    """Make the replica the primary, with nothing lost; connections to both live on."""
    with first.client() as plain:
        plain.execute_command("FAILOVER", "TO", "127.0.0.1", str(second.port))
        wait_until(lambda: plain.info("replication")["role"] == "slave", 20, "the replica has taken over")


class Kernel:
    """What a notebook has: settings, and a client that lives as long as the process."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(folder / "ledger")
        self.workers: list[Worker] = []
        configure(redis_url=url, user=USER, queue=QUEUE)

    def worker(self, plain: redis.Redis) -> Worker:
        """Start a worker on the kernel's Redis; return when it takes runs."""
        settings = {"queue": QUEUE, "lease": LEASE, "renew": RENEW, "sweep": SWEEP, "children": 1}
        url = connection.resolve_url()
        worker = Worker(url, self.folder / f"worker {len(self.workers)}", **settings)
        self.workers.append(worker)
        signs = lambda: plain.zrange(keys.workers(QUEUE), 0, -1)  # noqa: E731
        wait_until(lambda: any(process_of(one) == worker.pid for one in signs()), PATIENCE, lambda: worker.said)
        return worker

    def enqueue(self, items: int = ITEMS) -> Run:
        return jobs.count.enqueue(str(self.ledger.path), items, 0.03)

    def await_item(self, run: Run, count: int) -> None:
        wait_until(lambda: len(self.items(run)) > count, PATIENCE, lambda: self.workers[0].said)

    def items(self, run: Run) -> list[int]:
        return [line.item for line in self.ledger.lines(run.id, "count")]

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        connection.client().close()
        connection.drop_client()
        set_current(None)


@pytest.fixture
def kernels(tmp_path: Path) -> Iterator[list[Kernel]]:
    """Kernels and their workers that are closed at the end."""
    found: list[Kernel] = []
    yield found
    for one in found:
        one.close()


def fields_of(plain: redis.Redis, run: Run) -> dict[str, str]:
    return plain.hgetall(keys.Keys(USER).run(run.id))


def await_end(plain: redis.Redis, run: Run, worker: Worker) -> dict[str, str]:
    wait_until(lambda: fields_of(plain, run).get("state") in ENDED, PATIENCE, lambda: worker.said)
    return fields_of(plain, run)


@pytest.mark.weather("H3")
def test_a_run_goes_on_where_its_address_leads_to_another_primary(tmp_path: Path, kernels: list[Kernel]) -> None:
    """Old connections survive on what is a replica now: within 5 s all are made anew, in worker, body and kernel."""
    with two_servers() as (first, second), Proxy(first.socket) as front:
        kernel = Kernel(front.url, tmp_path)
        kernels.append(kernel)
        with first.client() as plain:
            worker = kernel.worker(plain)
        run = kernel.enqueue()
        kernel.await_item(run, 20)
        hand_over(first, second)
        front.lead_to(second.socket)
        began, done = time.monotonic(), len(kernel.items(run))
        kernel.await_item(run, done + 5)
        took = time.monotonic() - began
        print(f"went on after {took:.2f} s (promised {PROMISED:g} s)")
        assert took < PROMISED + SLOW
        later = kernel.enqueue(3)  # the first call on a connection that was idle since
        with second.client() as plain:
            fields = await_end(plain, run, worker)
            assert (fields["state"], fields["attempt"], fields["crashes"]) == ("completed", "1", "0")
            assert await_end(plain, later, worker)["state"] == "completed"
        assert kernel.items(run) == list(range(ITEMS))
        assert worker.process.poll() is None


@pytest.mark.weather("H3")
def test_who_only_reads_notices_that_a_replica_answers(tmp_path: Path, kernels: list[Kernel]) -> None:
    """A card's connection to what is a replica now, and perhaps an old one, is made anew though it answers reads."""
    with two_servers() as (first, second), Proxy(first.socket) as front:
        kernel = Kernel(front.url, tmp_path)
        kernels.append(kernel)
        run = kernel.enqueue()
        follower = Follower(USER)
        watch = follower.watch(run.id)
        wait_until(lambda: watch.view and watch.view.state == "queued", 30, "the card shows it")
        with first.client() as old, second.client() as new:
            wait_until(lambda: new.hget(Keys(USER).run(run.id), "n"), 30, "the replica has the run")
            new.replicaof("NO", "ONE")
            old.replicaof("127.0.0.1", "1")  # which makes it end reads under way; the next ones get what is old
            wait_until(lambda: follower.connected and names(old).count("nbjobs-follower") == 1, 30, "it reads there")
            front.lead_to(second.socket)
            with connection.sync_client(f"unix://{second.socket}") as client:
                assert Store(client, USER, current()).control(run.id, "cancel", 2).state == "cancelled"
            wait_until(lambda: watch.view.state == "cancelled", 30, "the card shows it")
            assert "nbjobs-follower" in names(new)
        watch.close()


def names(plain: redis.Redis) -> list[str]:
    return [str(one["name"]) for one in plain.client_list()]


@pytest.mark.weather("H3")
async def test_a_dead_connection_for_wake_ups_is_noticed() -> None:
    """A partition drops all packets and closes nothing: a silent connection is asked, given up, and made anew."""
    with RedisServer(appendonly="no") as server, Proxy(server.socket) as front:
        heard: list[str] = []
        client = connection.async_client(front.url, name="wake")
        listening = asyncio.ensure_future(Listener(client, QUEUE, heard.append).run())
        await await_until(lambda: heard == [""], 5, "it listens")
        front.delay = 3600  # what comes now never arrives
        with server.client() as plain:
            plain.publish(keys.wake(QUEUE), "lost")
            await await_until(lambda: front.swallowed, 5, "the message is on its way for ever")
            front.delay = 0
            began = time.monotonic()
            await await_until(lambda: heard == ["", ""], 15, "it listens again")
            took = time.monotonic() - began
            plain.publish(keys.wake(QUEUE), "again")
        await await_until(lambda: len(heard) == 3, 5, "wake-ups arrive")
        assert took < 4 + SLOW, f"it took {took:.1f} s"
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        await client.aclose()


@pytest.mark.fault(27)
def test_row_27_a_replica_that_lacks_the_tail_costs_just_that(tmp_path: Path, kernels: list[Kernel]) -> None:
    """The run goes on from the older point that the new primary knows: what is done again is the tail that was lost,
    no crash is counted, and the fence still rises.
    """
    with two_servers() as (first, second), Proxy(first.socket) as front:
        kernel = Kernel(front.url, tmp_path)
        kernels.append(kernel)
        with first.client() as plain:
            worker = kernel.worker(plain)
        run = kernel.enqueue()
        kernel.await_item(run, 20)
        with second.client() as plain:
            plain.replicaof("NO", "ONE")  # from here on it hears of nothing
            known = int(fields_of(plain, run)["done"])
            kernel.await_item(run, known + 40)
            first.kill()
            front.lead_to(second.socket)
            fields = await_end(plain, run, worker)
            events = plain.xrange(keys.Keys(USER).user_events)
        assert (fields["state"], fields["crashes"], fields["failures"]) == ("completed", "0", "0"), worker.said
        before, after = (kernel.ledger.lines(run.id, "count", attempt) for attempt in (1, 2))
        print(f"the new primary knew {known} items, {len(before)} were done: {len(before) - known} are done again")
        assert [line.item for line in before] == list(range(len(before)))
        assert [line.item for line in after] == list(range(known, ITEMS))
        assert len(before) >= known + 40
        assert max(line.fence for line in before) < min(line.fence for line in after)
        numbers = [int(entry["n"]) for _, entry in events if entry["id"] == run.id]
        assert numbers == list(range(1, len(numbers) + 1)) and numbers[-1] == int(fields["n"])
        assert worker.process.poll() is None


class SentinelProcess:
    """A sentinel that watches a primary, and alone decides that it is gone."""

    def __init__(self, primary: RedisServer, folder: Path) -> None:
        self.port = free_port()
        path = folder / "sentinel.conf"
        path.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 6000\n"
        )
        with (folder / "sentinel.log").open("wb") as log:
            self.process = subprocess.Popen(
                [primary.program, str(path), "--sentinel"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def __enter__(self) -> SentinelProcess:
        with redis.Redis(port=self.port, decode_responses=True) as plain:
            wait_until(lambda: self._knows(plain), 30, "the sentinel has found the replica")
        return self

    def _knows(self, plain: redis.Redis) -> bool:
        with suppress(redis.ConnectionError):
            return any(int(one["slave-repl-offset"]) > 0 for one in plain.sentinel_slaves("main"))
        return False

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.mark.slow
@pytest.mark.weather("Sentinel")
def test_a_run_goes_on_where_sentinels_elect_another_primary(tmp_path: Path, kernels: list[Kernel]) -> None:
    """The primary is killed in mid-run: worker, body and kernel ask the sentinels, of which one is dead, and go on."""
    with two_servers() as (first, second), SentinelProcess(first, tmp_path) as sentinel:
        kernel = Kernel(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main/0", tmp_path)
        kernels.append(kernel)
        with first.client() as plain:
            worker = kernel.worker(plain)
            run = kernel.enqueue()
            kernel.await_item(run, 20)
            worker.send(signal.SIGSTOP, everybody=True)
            wait_until(lambda: plain.set("step", 1, px=1000) and plain.wait(1, 1000), 20, "the replica has all")
        first.kill()
        worker.send(signal.SIGCONT, everybody=True)
        began, done = time.monotonic(), len(kernel.items(run))
        kernel.await_item(run, done + 5)
        print(f"went on {time.monotonic() - began:.2f} s after the primary was killed")
        later = kernel.enqueue(3)
        with second.client() as plain:
            fields = await_end(plain, run, worker)
            assert (fields["state"], fields["attempt"], fields["crashes"]) == ("completed", "1", "0"), worker.said
            assert await_end(plain, later, worker)["state"] == "completed"
        assert kernel.items(run) == list(range(ITEMS))
        assert worker.process.poll() is None
        assert "Traceback" not in worker.said
