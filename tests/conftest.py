"""Fixtures of all tests. Who asks for `redis_url` gets an empty Redis, checked afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from nbjobs import connection
from nbjobs.settings import NbJobs, configure, set_current
from nbjobs.store import Store

from .support import RedisServer, leaks


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "leaky: writes what the check for leaked keys would not accept")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The Redis that tests share. Whoever wants to kill one makes a `RedisServer` instead."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A plain client of an empty Redis."""
    client = redis_server.client()
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def redis_url(redis_server: RedisServer, redis_client: redis.Redis) -> str:
    """URL of an empty Redis."""
    return redis_server.url


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test left in Redis ends by itself."""
    used = "redis_client" in request.fixturenames
    client = request.getfixturevalue("redis_client") if used else None
    yield
    if client is not None and request.node.get_closest_marker("leaky") is None:
        found = leaks(client)
        assert not found, "\n".join(found)


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    """The store of ada, on an empty Redis."""
    client = connection.sync_client(redis_url)
    yield Store(client, "ada", NbJobs())
    client.close()


@pytest.fixture
def nbjobs_settings(redis_url: str) -> Iterator[NbJobs]:
    """The process's settings, set to an empty Redis for one test."""
    yield configure(redis_url=redis_url, user="ada", queue="test")
    set_current(None)
    connection.drop_client()
