"""Who sweeps, how much that costs, and that what is due begins in time all the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import redis

from nbjobs import keys
from nbjobs.connection import AsyncClient, async_client
from nbjobs.keys import Keys
from nbjobs.leases import Leases
from nbjobs.settings import NbJobs
from nbjobs.store import Store
from nbjobs.sweeper import Sweeper
from nbjobs.tasks import end_all

from .support import await_until

pytestmark = pytest.mark.leaky  # entries of arq's queue and the sweeper's lock stay

ADA = Keys("ada")
SETTINGS = NbJobs(lease=1, renew=0.1, sweep=0.3)
SLOWER = NbJobs(lease=3, renew=0.1, sweep=1)  # on a busy machine no lock ends while its holder works
IDLE = 5000

Sweepers = Callable[[int], AsyncIterator[list[Sweeper]]]


@pytest.fixture
def ada(redis_client: redis.Redis) -> Store:
    return Store(redis_client, "ada", SETTINGS)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[AsyncClient]:
    found = async_client(redis_url)
    yield found
    await found.aclose()


@asynccontextmanager
async def sweepers(url: str, count: int, settings: NbJobs = SETTINGS) -> AsyncIterator[list[Sweeper]]:
    """That many, each as a worker has it; the first one has the lock, and none of their clocks has just begun."""
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            client = async_client(url)
            stack.push_async_callback(client.aclose)
            leases = Leases(client, settings)
            await leases.tell_time()
            await await_until(lambda one=leases: one.clock.settled, 5)
            found.append(Sweeper(leases, settings, name=f"w{number}"))
        await found[0].look()
        tasks = [asyncio.ensure_future(one.run()) for one in found]
        stack.push_async_callback(end_all, tasks)
        yield found


def enqueue(store: Store, run: str = "r1", **options: int) -> None:
    fields = {"job": "m.f", "args": "[[],{}]", "kind": "sync", "queue": "test", "user": "ada"}
    assert store.enqueue(run, fields, **options).code == "OK"


def have_idle_users(client: redis.Redis) -> None:
    """Have many users who have just left nothing to do."""
    now = int(client.time()[0]) * 1000
    client.zadd(keys.USERS, {f"u{number}": now for number in range(IDLE)})


async def cost(url: str, client: redis.Redis, count: int) -> float:
    """Return the commands of one sweep of so many workers' sweepers."""
    async with sweepers(url, count, SLOWER) as found:
        first = found[0]

        async def sweeps(number: int) -> float:
            for _ in range(number):
                last = first._swept
                await await_until(lambda before=last: first._swept != before, 10, "there is another sweep")
            return float(client.info("stats")["total_commands_processed"])

        await sweeps(2)
        await await_until(lambda: not first._agenda._wanted, 30, "everybody is known, and was asked about a first sign")
        before = await sweeps(1)
        return (await sweeps(5) - before) / 5


@pytest.mark.weather("M5")
async def test_a_fleet_sweeps_once(redis_url: str, redis_client: redis.Redis) -> None:
    """Four workers cost as many commands as one; at 5,000 idle users and the usual times fewer than 300 a second."""
    have_idle_users(redis_client)
    alone, four = [await cost(redis_url, redis_client, count) for count in (1, 4)]
    turns = IDLE * SLOWER.sweep / 60  # users in a sweep; all else that it costs does not grow with them
    usual = NbJobs().sweep
    rates = [(found - turns + IDLE * usual / 60) / usual for found in (alone, four)]
    print(f"{rates[0]:.0f} commands a second alone, {rates[1]:.0f} in a fleet of four")
    assert max(rates) <= 300
    assert rates[1] <= 1.2 * rates[0]


@pytest.mark.weather("M5")
async def test_a_dead_workers_lock_does_not_outlast_its_leases(
    client: AsyncClient, redis_url: str, redis_client: redis.Redis
) -> None:
    """The next worker sweeps before a lease and a sweep are over; who leaves lets it do so at once."""
    async with sweepers(redis_url, 1):
        assert redis_client.get(keys.SWEEPER) == "w0"
    began = time.monotonic()  # its task has ended without a word, as a killed process does
    async with sweepers(redis_url, 1) as (heir,):
        heir._name = "heir"
        await await_until(lambda: redis_client.get(keys.SWEEPER) == "heir", 5, "another one sweeps")
        assert time.monotonic() - began < SETTINGS.lease + SETTINGS.sweep
    await Sweeper(Leases(client, SETTINGS), SETTINGS, name="heir").leave()
    assert redis_client.get(keys.SWEEPER) is None


@pytest.mark.weather("M3")
@pytest.mark.parametrize("ms", [3_600_000, None])
async def test_a_lock_that_would_last_for_hours_is_put_right(
    redis_url: str, redis_client: redis.Redis, ms: int | None
) -> None:
    """The clock of Redis was set back after its holder died, or a stranger wrote it without an end."""
    redis_client.set(keys.SWEEPER, "gone", px=ms)
    async with sweepers(redis_url, 1):
        await await_until(lambda: redis_client.get(keys.SWEEPER) == "w0", 5, "another one sweeps")


@pytest.mark.weather("M5")
async def test_a_delayed_run_begins_on_time_among_idle_users(
    ada: Store, redis_url: str, redis_client: redis.Redis
) -> None:
    """A sweep finds what was enqueued since the last one, and the sweeper then wakes to the millisecond."""
    have_idle_users(redis_client)
    async with sweepers(redis_url, 2, NbJobs(lease=6, renew=0.1, sweep=2)):
        enqueue(ada, delay_ms=3200)
        at = int(ada.read("r1", "at")[0] or 0)
        await await_until(lambda: redis_client.zcard(keys.arq_queue("test")), 10, "its entry is written", every=0.001)
        seconds, micros = redis_client.time()
        late = int(seconds) * 1000 + int(micros) // 1000 - at
        print(f"{late} ms late")
        assert 0 <= late < 1000


@pytest.mark.weather("M5")
async def test_a_run_that_is_unpaused_is_found(ada: Store, redis_url: str, redis_client: redis.Redis) -> None:
    """Its user had nothing due: that it is queued again is told to the sweeper, whose entry may be the only one."""
    enqueue(ada)
    ada.control("r1", "pause", 1)
    async with sweepers(redis_url, 1) as (one,):
        assert one._agenda.first() == float("inf")
        ada.control("r1", "unpause", 2)
        await await_until(lambda: one._agenda.first() < float("inf"), 2, "the sweeper knows that something is due")


async def test_a_user_whose_key_is_broken_stops_no_other(ada: Store, redis_url: str, redis_client: redis.Redis) -> None:
    """It is left for an hour; what is due of others begins."""
    redis_client.set(Keys("aaa").due, "nothing of the kind")
    redis_client.zadd(keys.USERS, {"aaa": 1})
    async with sweepers(redis_url, 1):
        enqueue(ada, delay_ms=100)
        await await_until(lambda: redis_client.zcard(keys.arq_queue("test")), 5, "its entry is written")


async def test_what_a_worker_holds_itself_is_renewed(
    ada: Store, client: AsyncClient, redis_client: redis.Redis
) -> None:
    """However late its renewals are: the process lives, since it sweeps."""
    enqueue(ada)
    ada.claim("r1", "me:1", 1)
    redis_client.hset(ADA.run("r1"), "lease_until", "1")
    redis_client.zadd(ADA.due, {"r1": 1})
    leases = Leases(client, SETTINGS)
    await leases.tell_time()
    await await_until(lambda: leases.clock.settled, 5)
    await Sweeper(leases, SETTINGS, holds=lambda owner: owner == "me:1").look()
    assert ada.read("r1", "state", "owner", "crashes") == ["running", "me:1", "0"]
    assert int(ada.read("r1", "lease_until")[0] or 0) == redis_client.zscore(ADA.due, "r1") > 1


async def test_many_runs_of_one_user_keep_nobody_waiting(ada: Store, redis_url: str, redis_client: redis.Redis) -> None:
    """Each look takes a share of them, so that another user's run is not behind them all."""
    for number in range(1000):
        enqueue(ada, f"r{number}")
    redis_client.zadd(ADA.due, {f"r{number}": number + 1 for number in range(1000)})
    bob = Store(redis_client, "bob", SETTINGS)
    async with sweepers(redis_url, 1):
        enqueue(bob, "soon", delay_ms=100)
        await await_until(
            lambda: redis_client.zscore(keys.arq_queue("test"), "{bob}:soon:1") is not None, 5, "bob's entry is written"
        )
        left = redis_client.zcount(ADA.due, 0, 1000)
        await await_until(lambda: not redis_client.zcount(ADA.due, 0, 1000), 10, "all of ada's are looked at")
    print(f"{left} of ada's were left")
