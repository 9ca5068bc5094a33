"""Pickles that a stranger has put into Redis are never loaded, wherever they stand."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import redis

from nbjobs import Run, job, runs
from nbjobs.errors import NbjobsError
from nbjobs.history import LogLine
from nbjobs.keys import Keys
from nbjobs.settings import NbJobs
from nbjobs.widgets.display import bundle

from . import workjobs
from .support import wait_until
from .test_secrets import said
from .workers import Ledger, Worker

pytestmark = [pytest.mark.leaky, pytest.mark.fault(57)]

ADA = Keys("ada")
BODY = ("args", "cursor", "v:1", "s:1", "step", "steps", "total", "done")
"""What a body needs of its run: it cannot go on without, so the run has failed, for bad data."""


class Canary:
    """Makes a folder where it is loaded."""

    def __init__(self, nest: Path) -> None:
        self.nest = nest

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.nest),)


@pytest.fixture
def url(redis_url: str, nbjobs_settings: NbJobs) -> str:
    return redis_url


@pytest.fixture
def nest(tmp_path: Path) -> Path:
    return tmp_path / "nest"


@pytest.fixture
def canary(nest: Path) -> bytes:
    data = pickle.dumps(Canary(nest))
    pickle.loads(data)
    assert nest.exists(), "it sings where it is loaded"
    nest.rmdir()
    return data


def paused_run(url: str, ledger: Ledger) -> Run:
    """A run with a step that ended, and one under way with a cursor."""
    with Worker(url):
        return paused(workjobs.remembers.enqueue(ledger.path), ledger)


def paused(run: Run, ledger: Ledger) -> Run:
    """The run, stopped where its gate was closed."""
    ledger.wait_for(2)
    run.pause()
    ledger.open_gate()
    wait_until(lambda: run.state == "paused", 10, "the run is paused")
    return run


def copied(client: redis.Redis, run: Run, name: str) -> Run:
    """The same run once more."""
    copy = Run(name, user="ada")
    for key, new in ((ADA.run, ADA.run), (ADA.events, ADA.events), (ADA.log, ADA.log)):
        client.copy(key(run.id), new(name))
    client.zadd(ADA.runs, {name: 1})
    return copy


def test_row_57_a_pickle_in_any_field_of_a_run(
    url: str, redis_client: redis.Redis, tmp_path: Path, nest: Path, canary: bytes
) -> None:
    """What the body needs ends its run as failed, for bad data; the worker stays, and other runs go through."""
    run = paused_run(url, Ledger(tmp_path / "ledger"))
    fields = [*redis_client.hgetall(ADA.run(run.id)), "code", "error", "missing_since", "accept", "maps"]
    poisoned = {}
    for number, field in enumerate(dict.fromkeys(fields)):
        poisoned[field] = copied(redis_client, run, f"run{number}")
        poisoned[field].unpause()
        redis_client.hset(ADA.run(f"run{number}"), field, canary)  # type: ignore[arg-type]
    with Worker(url, accept_code=True) as worker:
        for field in BODY:
            with contextlib.suppress(TimeoutError):
                poisoned[field].wait(timeout=30)
            states = {name: one.state for name, one in poisoned.items()}
            assert states[field] == "failed", f"{field}: {states} {worker.log}"
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3
        for one in poisoned.values():
            read_all(one)
        assert worker.process.poll() is None
    for field in BODY:
        assert ended(poisoned[field])["reason"] == "bad data", field
    for words in (["runs", "--limit=100"], ["runs", "--json", "--limit=100"]):
        assert "run7" in said(url, *words)
    assert not nest.exists()


@pytest.mark.parametrize("field", ["control", "state", "attempt"])
def test_row_57_a_pickle_in_a_run_that_is_held(
    url: str, redis_client: redis.Redis, tmp_path: Path, nest: Path, canary: bytes, field: str
) -> None:
    """What comes back with a renewal or a commit asks for nothing, and ends no worker."""
    ledger = Ledger(tmp_path / "ledger")
    with Worker(url) as worker:
        run = workjobs.gated.enqueue(ledger.path)
        ledger.wait_for(2)
        redis_client.hset(ADA.run(run.id), field, canary)  # type: ignore[arg-type]
        key, lease = ADA.run(run.id), redis_client.hget(ADA.run(run.id), "lease_until")
        for _ in range(2):
            wait_until(lambda last=lease: redis_client.hget(key, "lease_until") != last, 10, worker.log)
            lease = redis_client.hget(key, "lease_until")
        ledger.open_gate()
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3
        assert worker.process.poll() is None, worker.log
    assert not nest.exists()


def test_row_57_a_pickle_in_any_stream(url: str, redis_client: redis.Redis, nest: Path, canary: bytes) -> None:
    """Readers pass it over, and writers write on behind it."""
    run = workjobs.say.enqueue("hello")
    entries: list[dict[str, Any]] = [dict.fromkeys(("e", "d", "n", "s", "id", "a", "at", "k", "t"), canary)]
    entries += [{**dict.fromkeys(("e", "d"), canary), "n": 2, "s": "running"}, {"e": "job.progress", "d": canary}]
    for key in (ADA.events(run.id), ADA.user_events, ADA.log(run.id)):
        for entry in entries:
            redis_client.xadd(key, entry)
    with Worker(url) as worker:
        assert run.wait(timeout=10).state == "completed", worker.log
        read_all(run)
        assert workjobs.add.enqueue(1, 2).result(timeout=10) == 3
        wait_until(lambda: "hello" in [line.text for line in run.logs() if isinstance(line, LogLine)], 10)
    for words in (["events", run.id], ["events", "--json", run.id], ["logs", "--json", run.id], ["watch", run.id]):
        assert "Traceback" not in said(url, *words)
    assert not nest.exists()


def test_row_57_a_pickle_among_the_results_of_a_map(
    url: str, redis_client: redis.Redis, tmp_path: Path, nest: Path, canary: bytes
) -> None:
    """The run has failed, for bad data."""
    ledger = Ledger(tmp_path / "ledger")
    with Worker(url):
        run = paused(workjobs.maps.enqueue(ledger.path), ledger)
        (key,) = redis_client.keys(f"{ADA.run(run.id)}:map:*")
        redis_client.hset(key, "0", canary)  # type: ignore[arg-type]
        run.unpause()
        assert run.wait(timeout=10).state == "failed"
    assert ended(run)["reason"] == "bad data"
    assert not nest.exists()


def test_row_57_a_pickle_in_the_place_of_code(url: str, redis_client: redis.Redis, nest: Path, canary: bytes) -> None:
    """Code is loaded from a worker's own envelope alone, and only where it is accepted."""

    @job
    def by_value() -> int:
        return 1

    found = [by_value.enqueue(), by_value.enqueue()]
    (key,) = redis_client.keys("nbjobs:{ada}:code:*")
    redis_client.set(key, canary)
    with Worker(url):
        wait_until(lambda: "job.interrupt" in [event.name for event in found[0].events()], 10, "it is refused")
        assert "takes no code" in found[0].view.description
    with Worker(url, accept_code=True):
        for run in found:
            wait_until(lambda run=run: run.state == "failed", 20, "what is no code fails its run")
            assert ended(run)["reason"] == "bad data"
    assert not nest.exists()


def ended(run: Run) -> dict[str, Any]:
    (end,) = [event for event in run.events() if event.name == "job.failed"]
    return dict(end.payload)


def read_all(run: Run) -> None:
    """All that a reader asks of a run; what cannot be told is an error of ours."""
    bundle(run.view)
    assert list(run.events())
    list(run.logs())
    runs()
    try:
        run.result(timeout=0.01)
    except (NbjobsError, TimeoutError) as error:
        assert str(error)
