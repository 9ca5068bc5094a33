"""``nbjobs doctor``, as a process: what it finds of workers and runs, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest
import redis

from nbjobs import keys
from nbjobs.fleet import PYTHON, VERSION, About
from nbjobs.settings import NbJobs

from . import workjobs
from .homes import Home
from .workers import ROOT, Worker, bare_environment

pytestmark = pytest.mark.leaky  # workers leave their sign and their queue's entries

KEYS = keys.Keys("ada")
DAY = 86_400_000


def doctor(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nbjobs", "doctor", *arguments],
        cwd=ROOT,
        env=bare_environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def found(url: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """What it finds, by check; of several findings of a check the worst."""
    done = doctor("--json", redis_url=url, queue="test", user="ada")
    assert (done.returncode, done.stderr) == (code, ""), done.stdout + done.stderr
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    order = ["ok", "unknown", "warning", "error"]
    return {one["check"]: one for one in sorted(findings, key=lambda one: order.index(one["level"]))}


def signed(client: redis.Redis, **about: Any) -> None:
    """Have a worker that says this of itself alive on the queue."""
    now = client.time()[0] * 1000
    client.zadd(keys.workers("test"), {"elsewhere-1-abc": now})
    usual = {"version": VERSION, "python": PYTHON, "since": now - 60_000, "accepts_code": True}
    client.set(keys.worker("elsewhere-1-abc"), msgspec.json.encode(About(**{**usual, **about})), px=60_000)


def test_a_worker_says_what_it_is(redis_url: str) -> None:
    """A healthy Redis with a worker: nothing to do, how many there are and since when."""
    with Worker(redis_url, accept_code=True):
        workers = found(redis_url)["workers"]
    assert workers["level"] == "ok"
    assert workers["found"].startswith("1 worker on queue test, the oldest up for")


def test_runs_without_a_worker_are_an_error(redis_url: str, nbjobs_settings: NbJobs) -> None:
    """What to type stands beside it, and the exit code is 1."""
    assert found(redis_url)["workers"]["level"] == "ok"
    workjobs.add.enqueue(1, 2)
    workers = found(redis_url, code=1)["workers"]
    assert "no worker on queue test, and 1 unfinished run" in workers["found"]
    assert workers["advice"] == "Start one: nbjobs worker --queue test"


def test_code_that_no_worker_takes_is_an_error(
    redis_url: str, nbjobs_settings: NbJobs, redis_client: redis.Redis
) -> None:
    """A run of a job from a notebook, and no worker that accepts its code; one that has another Python is told."""
    run = workjobs.add.enqueue(1, 2)
    redis_client.hset(KEYS.run(run.id), "code", "abc")
    signed(redis_client, accepts_code=False)
    code = found(redis_url, code=1)["code"]
    assert "1 run of jobs from notebooks on queue test" in code["found"]
    assert "NBJOBS_ACCEPT_CODE=true" in code["advice"]
    signed(redis_client, python="3.9")
    assert "have Python 3.9, this is" in found(redis_url)["code"]["found"]
    redis_client.hset(KEYS.run(run.id), "missing_since", "1")
    assert f"such as {run.id} of ada" in found(redis_url, code=1)["code"]["found"]


def test_a_run_that_nobody_looks_after_is_an_error(
    redis_url: str, nbjobs_settings: NbJobs, redis_client: redis.Redis
) -> None:
    """Its lease, or its time, has been over for longer than any sweep takes."""
    run = workjobs.add.enqueue(1, 2)
    signed(redis_client)
    assert found(redis_url)["leases"]["level"] == "ok"
    redis_client.zincrby(KEYS.due, -3_600_000, run.id)
    assert f"such as {run.id} of ada, 59 min" in found(redis_url, code=1)["leases"]["found"]


def test_a_worker_of_another_version_is_told(redis_url: str, redis_client: redis.Redis) -> None:
    """And one that does not say, which is older."""
    signed(redis_client, version="0.0.9")
    assert "1 of nbjobs 0.0.9, and this is" in found(redis_url)["versions"]["found"]


def test_a_long_queue_is_told(redis_url: str, redis_client: redis.Redis) -> None:
    """Its depth is a fact, and from a thousand on a warning."""
    signed(redis_client)
    redis_client.zadd(keys.arq_queue("test"), {str(number): 1 for number in range(7)})
    assert found(redis_url)["queue"]["found"] == "7 runs in queue test"
    redis_client.zadd(keys.arq_queue("test"), {str(number): 1 for number in range(1001)})
    assert found(redis_url)["queue"]["level"] == "warning"


def test_what_it_says_can_be_read(redis_url: str, nbjobs_settings: NbJobs) -> None:
    """A line for each check, what to do under it, the sum last."""
    workjobs.add.enqueue(1, 2)
    done = doctor(redis_url=redis_url, queue="test", user="ada")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert any(line.startswith("✕ workers") for line in lines)
    assert any(line.strip() == "Start one: nbjobs worker --queue test" for line in lines)
    assert lines[-1].startswith("1 error")


def test_a_redis_that_is_not_there_is_an_error() -> None:
    """In one finding, without the password."""
    done = doctor("--json", redis_url="redis://ada:hunter2@127.0.0.1:1/0")
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["check"], last["level"]) == ("redis", "error")
    assert "127.0.0.1:1/0 does not answer" in last["found"]
    assert "hunter2" not in done.stdout + done.stderr


def test_it_starts_no_embedded_redis() -> None:
    """It looks at what one would need; where one is up, at that."""
    with Home() as home:
        done = home.run("doctor", "--json")
        checks = [json.loads(line)["check"] for line in done.stdout.splitlines()]
        assert checks == ["versions", "directories", "program", "daemon"]
        home.run("up", "--detach")
        checks = [json.loads(line)["check"] for line in home.run("doctor", "--json").stdout.splitlines()]
        assert {"persistence", "access", "workers", "leases"} <= set(checks)
        home.run("down")


def test_it_takes_no_arguments() -> None:
    """A slip is told."""
    done = doctor("redis")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "takes no arguments, found 'redis'" in done.stderr
