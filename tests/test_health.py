"""What is found of a Redis that would forget runs, refuse them, or let others in."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from nbjobs import health
from nbjobs.connection import sync_client
from nbjobs.health import Finding, Server

from .support import RedisServer, wait_until


def found(server: RedisServer, url: str | None = None) -> dict[str, Finding]:
    """What the checks find, by their names."""
    client = sync_client(url or server.url)
    try:
        return {one.check: one for one in Server(client).checks()}
    finally:
        client.close()


def levels(server: RedisServer, **config: str) -> dict[str, str]:
    """How bad each finding is, with the server configured so; then as it was before."""
    client = server.client()
    before = {name: client.config_get(name)[name] for name in config}
    try:
        for name, value in config.items():
            client.config_set(name, value)
        return {name: one.level for name, one in found(server).items()}
    finally:
        for name, value in before.items():
            client.config_set(name, value)
        client.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(port=_free_port()) as running:
        yield running


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.fault(18)
def test_what_lets_a_redis_forget_is_found(server: RedisServer) -> None:
    """No append-only file, snapshots alone, and a file that is never synced; one that keeps all is fine."""
    assert levels(server)["persistence"] == "ok"
    assert levels(server, appendfsync="no")["persistence"] == "warning"
    assert levels(server, appendonly="no", save="3600 1")["persistence"] == "warning"
    assert levels(server, appendonly="no")["persistence"] == "error"


@pytest.mark.fault(25)
def test_a_redis_that_evicts_runs_is_found(server: RedisServer) -> None:
    """A policy that evicts matters as soon as there is a limit; a limit that is nearly reached is told."""
    policy = "maxmemory-policy"
    assert levels(server, **{policy: "allkeys-lru"})["eviction"] == "ok"
    assert levels(server, maxmemory="512mb", **{policy: "allkeys-lru"})["eviction"] == "error"
    assert levels(server, maxmemory="512mb")["eviction"] == "ok"
    assert levels(server, maxmemory="1100kb")["eviction"] == "warning"


def test_a_redis_that_takes_no_writes_is_found(server: RedisServer) -> None:
    """Too few replicas for min-replicas-to-write, and a replica."""
    assert "replication" not in levels(server)
    assert levels(server, **{"min-replicas-to-write": "1"})["replication"] == "error"
    client = server.client()
    with RedisServer(port=_free_port()) as replica:
        other = replica.client()
        other.replicaof("127.0.0.1", str(server.port))
        wait_until(lambda: client.info("replication")["connected_slaves"] == 1, 20, "the replica is connected")
        assert "is a replica of 127.0.0.1" in found(replica)["replication"].found
        assert found(server)["replication"].level == "warning"
        wait_until(lambda: client.wait(1, 100) == 1, 20, "the replica has all")
        assert levels(server, **{"min-replicas-to-write": "1"})["replication"] == "ok"
        other.close()
    client.close()


def test_who_may_come_in_is_told(server: RedisServer) -> None:
    """No password on this machine alone is a warning, with one it is fine, over a socket its permissions decide."""
    assert found(server)["access"].level == "warning"
    with RedisServer(port=_free_port(), requirepass="secret") as locked:
        assert found(locked, f"redis://:secret@127.0.0.1:{locked.port}")["access"].level == "ok"
    with RedisServer() as local:
        assert found(local)["access"].level == "ok"


def test_a_user_who_may_not_ask_is_told_so(server: RedisServer) -> None:
    """What a notebook's user may not see is unknown, not fine, and no error."""
    client = server.client()
    client.execute_command("ACL", "SETUSER", "ada", "on", ">pw", "~*", "-@all", "+ping", "+hello", "+time", "+client")
    try:
        seen = found(server, f"redis://ada:pw@127.0.0.1:{server.port}")
        assert {name: one.level for name, one in seen.items()} == {
            "latency": "ok", "info": "unknown", "clock": "ok", "access": "unknown",
        }  # fmt: skip
    finally:
        client.execute_command("ACL", "DELUSER", "ada")
        client.close()


def test_clocks_that_differ_are_told(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By how much, and which is ahead."""
    really = time.time
    monkeypatch.setattr(health.time, "time", lambda: really() + 600)
    clock = found(server)["clock"]
    assert clock.level == "warning"
    assert "the clock of Redis is 10 min behind this machine's" in clock.found


@pytest.mark.parametrize(
    ("name", "version", "patched"),
    [
        ("Redis", (7, 0, 15), False),
        ("Redis", (7, 2, 10), False),
        ("Redis", (7, 2, 11), True),
        ("Redis", (8, 2, 1), False),
        ("Redis", (8, 4, 0), True),
        ("Valkey", (8, 1, 3), False),
        ("Valkey", (8, 1, 4), True),
        ("Valkey", (9, 0, 0), True),
    ],
)
def test_releases_with_a_hole_are_known(name: str, version: tuple[int, ...], patched: bool) -> None:
    """CVE-2025-49844, by the advisories of both projects."""
    assert health._is_patched(name, version) is patched
