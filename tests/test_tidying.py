"""What is left in Redis of users whose runs have expired."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis

from nbjobs import keys, tidying
from nbjobs.connection import async_client
from nbjobs.keys import Keys
from nbjobs.leases import Leases
from nbjobs.settings import NbJobs
from nbjobs.store import Store
from nbjobs.sweeper import Sweeper

from .support import await_until

pytestmark = pytest.mark.leaky  # the sweeper's lock stays

ADA = Keys("ada")
KEEP, DAY = 0.3, 0.4
SETTINGS = NbJobs(lease=1, renew=0.3, sweep=0.05, keep=KEEP)


@pytest.fixture
async def sweeper(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sweeper]:
    """One whose days and hours are short."""
    monkeypatch.setattr(tidying, "_DAY", round(DAY * 1000))
    monkeypatch.setattr(tidying, "_HOUR", 0.01)
    client = async_client(redis_url)
    yield Sweeper(Leases(client, SETTINGS), SETTINGS)
    await client.aclose()


@pytest.fixture
def ada(redis_client: redis.Redis) -> Store:
    return Store(redis_client, "ada", SETTINGS)


def enqueue(store: Store, run: str) -> None:
    fields = {"job": "m.f", "args": "[[],{}]", "kind": "sync", "queue": "test", "user": store.keys.user}
    assert store.enqueue(run, fields).code == "OK"


@pytest.mark.weather("M4")
async def test_nothing_is_left_of_a_user_whose_runs_have_expired(
    ada: Store, sweeper: Sweeper, redis_client: redis.Redis
) -> None:
    """A day after the last of 3,000 runs has expired there is no key of the user, and no worker knows of the user."""
    for number in range(3000):
        enqueue(ada, f"r{number}")
        ada.control(f"r{number}", "cancel", 1)
    assert redis_client.zcard(ADA.runs) == 3000

    async def none_left() -> bool:
        await sweeper.look()
        return not redis_client.keys("nbjobs:{ada}:*")

    await await_until(none_left, 15, "all keys of the user are gone", every=0.02)
    assert redis_client.zrange(keys.USERS, 0, -1) == []


@pytest.mark.weather("M4")
async def test_runs_are_forgotten_behind_many_that_are_kept(
    ada: Store, sweeper: Sweeper, redis_client: redis.Redis
) -> None:
    """Paused runs are kept for ever: those that expire leave the list all the same, and the user's events stay."""
    for number in range(450):
        enqueue(ada, f"p{number}")
        ada.control(f"p{number}", "pause", 1)
    for number in range(250):
        enqueue(ada, f"r{number}")
        ada.control(f"r{number}", "cancel", 1)

    async def paused_left() -> bool:
        await sweeper.look()
        return redis_client.zcard(ADA.runs) == 450

    await await_until(paused_left, 15, "expired runs are forgotten", every=0.02)
    await sweeper.look()
    assert redis_client.pttl(ADA.runs) == redis_client.pttl(ADA.user_events) == -1
    assert redis_client.zrange(keys.USERS, 0, -1) == ["ada"]


@pytest.mark.weather("M4")
async def test_a_user_who_comes_back_is_kept(ada: Store, sweeper: Sweeper, redis_client: redis.Redis) -> None:
    """What was to end a day after the last run stays as soon as there is a new one."""
    enqueue(ada, "old")
    ada.control("old", "cancel", 1)

    async def let_go() -> bool:
        await sweeper.look()
        return redis_client.pttl(ADA.user_events) > 0

    await await_until(let_go, 15, "the user is let go", every=0.02)
    enqueue(ada, "new")
    assert redis_client.pttl(ADA.runs) == redis_client.pttl(ADA.user_events) == -1
    assert redis_client.zrange(keys.USERS, 0, -1) == ["ada"]


async def test_the_first_look_of_a_worker_tidies(ada: Store, sweeper: Sweeper, redis_client: redis.Redis) -> None:
    """Runs whose hash is gone leave the list, users of whom nothing is left leave theirs; no hour goes by before."""
    enqueue(ada, "r1")
    redis_client.zadd(ADA.runs, {"old": 1, "r1": 1})
    redis_client.zadd(keys.USERS, {"bob": 1})
    await sweeper.look()
    assert redis_client.zrange(ADA.runs, 0, -1) == ["r1"]
    assert redis_client.zrange(keys.USERS, 0, -1) == ["ada"]


async def test_a_list_that_cannot_be_read_stops_no_other(
    ada: Store, sweeper: Sweeper, redis_client: redis.Redis
) -> None:
    """A user has put something else there: the next one has a turn."""
    enqueue(ada, "r1")
    redis_client.zadd(ADA.runs, {"old": 1, "r1": 1})
    redis_client.set(Keys("aaa").runs, "no list")
    redis_client.zadd(keys.USERS, {"aaa": 1})
    await sweeper.look()
    assert redis_client.zrange(ADA.runs, 0, -1) == ["r1"]
