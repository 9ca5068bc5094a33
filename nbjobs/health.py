"""What a Redis would do to runs: forget them, refuse them, or let others in.

A check looks at what Redis tells about itself and yields findings. A user of Redis who may not ask for something gets
a finding that says so, never an error. A worker logs what is wrong when it starts; ``nbjobs doctor`` shows all of it.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, cast

import msgspec

from . import words
from .connection import Client, ResponseError, check
from .outages import where

Level = Literal["ok", "unknown", "warning", "error"]

_PATCHED = {  # the first release of each line without CVE-2025-49844, with which a script takes over the server
    "Redis": {(7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
    "Valkey": {(7, 2): 11, (8, 0): 6, (8, 1): 4},
}
_NEARLY_FULL = 0.8  # of maxmemory
_SKEW = 5.0  # seconds between the clocks of Redis and this machine; times on cards are then visibly wrong
_SLOW = 0.02  # seconds for the answer to a PING: each commit waits for one


class Finding(msgspec.Struct, frozen=True):
    """What one check has found.

    Attributes:
        check: its name, one word.
        level: ``ok``; ``unknown`` where this user may not ask; ``warning`` for what costs something some day;
            ``error`` for what loses or holds up runs now.
        found: what is so, in a sentence.
        advice: what to do about it, or an empty text.
    """

    check: str
    level: Level
    found: str
    advice: str = ""


class Server:
    """What a Redis tells about itself, asked once.

    Args:
        client: a client of it.
        private: whether it is the embedded one, which only this OS user can reach.

    Raises:
        RedisUnavailable: it does not answer, does not let this user in, or is too old.
    """

    def __init__(self, client: Client, *, private: bool = False) -> None:
        self._client = client
        self._where = where(client)
        self._private = private
        check(client)
        self._info: Mapping[str, Any] | None = _allowed(client.info, "everything")
        self._config: Mapping[str, str] = _allowed(client.config_get, "*") or {}
        self._user: str = _allowed(client.acl_whoami) or ""
        self._default_user: Mapping[str, Any] | None = _allowed(client.acl_getuser, "default")

    def checks(self) -> Iterator[Finding]:
        """Yield all that is found."""
        yield self._latency()
        if self._info is not None:
            yield self._version()
        yield from self.durability()
        yield self._clock()
        yield from self._access()

    def durability(self) -> Iterator[Finding]:
        """Yield what it does to runs: whether it keeps them, and takes them."""
        if self._info is None:
            yield Finding("info", "unknown", f"the Redis user {self._user or 'of this URL'} may not use INFO")
        else:
            yield self._persistence()
            yield self._memory()
            yield from self._replication()

    def _latency(self) -> Finding:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            self._client.ping()
            times.append(time.perf_counter() - began)
        took = sorted(times)[len(times) // 2]
        found = f"Redis at {self._where} answers within {took * 1000:.1f} ms"
        if took > _SLOW:
            return Finding("latency", "warning", found, "Commits of fast loops become rarer: run Redis nearer.")
        return Finding("latency", "ok", found)

    def _version(self) -> Finding:
        assert self._info is not None
        name = "Valkey" if self._info.get("server_name") == "valkey" else "Redis"
        text = str(self._info.get("valkey_version") or self._info.get("redis_version") or "0")
        version = tuple(int(part) for part in text.split(".") if part.isdigit())
        if not self._private and not _is_patched(name, version):
            return Finding(
                "version",
                "warning",
                f"{name} {text} is older than the releases that mend CVE-2025-49844: whoever may run a script can "
                "take the server over",
                "Upgrade, unless your distribution has patched it.",
            )
        return Finding("version", "ok", f"{name} {text}")

    def _persistence(self) -> Finding:
        assert self._info is not None
        if not int(self._info.get("aof_enabled", 0)):
            snapshots = bool(self._config.get("save", ""))
            found = (
                "snapshots, and no append-only file: when Redis is killed, runs fall back to the last snapshot"
                if snapshots
                else "no append-only file: when Redis restarts, all runs are lost"
            )
            return Finding("persistence", "warning" if snapshots else "error", found, "Set `appendonly yes`.")
        for field in ("aof_last_write_status", "aof_last_bgrewrite_status"):
            if self._info.get(field, "ok") != "ok":
                return Finding(
                    "persistence",
                    "error",
                    f"the append-only file cannot be written ({field} is {self._info[field]})",
                    "Look at Redis' log and the space on its disk: it refuses writes, and runs wait.",
                )
        policy = self._config.get("appendfsync", "")
        if policy == "no":
            return Finding(
                "persistence",
                "warning",
                "append-only file that is never synced: a power loss costs what the system has not written",
                "Set `appendfsync everysec`.",
            )
        costs = {"always": "nothing", "everysec": "about a second"}.get(policy, "what was not synced")
        return Finding("persistence", "ok", f"append-only file; a power loss costs {costs}, a killed Redis nothing")

    def _memory(self) -> Finding:
        assert self._info is not None
        limit, used = int(self._info.get("maxmemory", 0)), int(self._info.get("used_memory", 0))
        policy = str(self._info.get("maxmemory_policy", "noeviction"))
        if limit and policy != "noeviction":
            return Finding(
                "eviction",
                "error",
                f"Redis drops what it likes when it is full (maxmemory-policy {policy}), runs too",
                "Set `maxmemory-policy noeviction`.",
            )
        if not limit:
            return Finding("eviction", "ok", f"nothing is evicted; {words.size(used)} used, no limit is set")
        found = f"nothing is evicted; {words.size(used)} of {words.size(limit)} used"
        if used > _NEARLY_FULL * limit:
            return Finding("eviction", "warning", found, "When it is full, runs wait: raise `maxmemory`.")
        return Finding("eviction", "ok", found)

    def _replication(self) -> Iterator[Finding]:
        assert self._info is not None
        if self._info.get("role") == "slave":
            yield Finding(
                "replication",
                "error",
                f"Redis at {self._where} is a replica of {self._info.get('master_host')} and takes no writes",
                "Give the address of its primary, or that of the sentinels (redis+sentinel://).",
            )
            return
        replicas, least = int(self._info.get("connected_slaves", 0)), int(self._config.get("min-replicas-to-write", 0))
        good = int(self._info.get("min_slaves_good_slaves", replicas))
        if good < least:
            yield Finding(
                "replication",
                "error",
                f"{words.plural(good, 'replica')} in time, and min-replicas-to-write is {least}: writes are refused",
                "Bring the replicas back, or lower `min-replicas-to-write`. Runs wait until then.",
            )
        elif replicas and not least:
            yield Finding(
                "replication",
                "warning",
                f"{words.plural(replicas, 'replica')}, and min-replicas-to-write is 0: a fail-over can cost what the "
                "old primary took alone",
                "Set `min-replicas-to-write 1`.",
            )
        elif replicas:
            yield Finding("replication", "ok", f"{words.plural(replicas, 'replica')}, {good} in time")

    def _clock(self) -> Finding:
        before = time.time()
        seconds, micros = cast("tuple[int, int]", self._client.time())
        skew = seconds + micros / 1e6 - (before + time.time()) / 2
        if abs(skew) < _SKEW:
            return Finding("clock", "ok", "Redis and this machine agree on the time")
        direction = "ahead of" if skew > 0 else "behind"
        return Finding(
            "clock",
            "warning",
            f"the clock of Redis is {words.lasted(abs(skew))} {direction} this machine's",
            "Runs go by the clock of Redis, cards by yours: synchronise both (NTP).",
        )

    def _access(self) -> Iterator[Finding]:
        if "path" in self._client.connection_pool.connection_kwargs:
            yield Finding("access", "ok", "a Unix socket, opened by whom its permissions let")
            return
        if self._default_user is None:
            yield Finding("access", "unknown", f"the Redis user {self._user or 'of this URL'} may not ask for users")
        else:
            flags = set(self._default_user.get("flags", ()))
            if {"on", "nopass"} <= flags:
                yield Finding(
                    "access",
                    "warning" if _is_local(self._client) else "error",
                    "the default user needs no password: whoever reaches Redis can read and run everything",
                    "Set `requirepass`, or give users of their own and `ACL SETUSER default off`.",
                )
            else:
                yield Finding("access", "ok", f"a password is needed; this URL's user is {self._user or 'default'}")
        if not _is_local(self._client) and not _is_encrypted(self._client):
            yield Finding(
                "encryption",
                "warning",
                "the connection is not encrypted, and Redis is on another machine",
                "Use TLS (rediss://) where others share the network.",
            )


def _allowed(ask: Callable[..., Any], *arguments: str) -> Any:
    """Return the answer to a command; None where this user may not use it."""
    try:
        return ask(*arguments)
    except ResponseError:
        return None


def _is_patched(name: str, version: tuple[int, ...]) -> bool:
    line, patch = version[:2], version[2] if len(version) > 2 else 0
    lines = _PATCHED[name]
    return patch >= lines[line] if line in lines else line > max(lines)


def _is_local(client: Client) -> bool:
    """Whether Redis is reached over the loopback interface."""
    host = str(client.connection_pool.connection_kwargs.get("host", "localhost"))
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _is_encrypted(client: Client) -> bool:
    return "SSL" in client.connection_pool.connection_class.__name__
