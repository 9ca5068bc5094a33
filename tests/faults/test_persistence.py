"""What Redis keeps: a file that is written at once, one that ends anywhere, and a disk that is full."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import redis

from nbjobs.errors import NbjobsError

from ..support import RedisServer, wait_until
from . import jobs, mapjobs
from .checker import check, check_repeats
from .proxy import Proxy
from .stage import LEASE, PATIENCE, SWEEP, Stage, staged

CUTS = 12


@pytest.mark.fault(17)
def test_row_17_what_is_stored_may_be_one_ahead_and_is_not_stored_twice(tmp_path: Path) -> None:
    """`appendfsync always`, Redis killed before its answer came: the commit is there, and no second one when resent."""
    with staged(tmp_path, appendonly="yes", appendfsync="always") as stage, Proxy(stage.server.socket) as proxy:
        stage.worker(url=proxy.url, lease=20)
        run = stage.enqueue(jobs.count, stage.path, 40, 0.01, 1)
        for item in (10, 20, 30):
            stage.await_item(run, item)
            known = len(proxy.lost)
            proxy.shut = True
            proxy.lose("commit")
            wait_until(lambda n=known: len(proxy.lost) > n, PATIENCE, "the answer to a commit is lost")
            stage.recorder.catch_up(stage.client)
            written = stage.recorder.of(run.id, "commit")[-1]
            stage.server.kill()
            stage.restart_redis()
            fields = stage.fields(run)
            last = stage.ledger.lines(run.id, "count")[-1].item
            assert (fields["c"], fields["done"]) == (written.c, str(last + 1)), (
                "one commit ahead of what the body knows"
            )
            proxy.shut = False
            wait_until(
                lambda c=written.c, life=stage.recorder.life: any(
                    call.life == life and call.c == c and not call.wrote for call in stage.recorder.of(run.id, "commit")
                ),
                PATIENCE,
                "the commit is sent again, and writes nothing",
            )
        stage.await_end(run)
        check(stage, run, 40, lives=4)
        assert check_repeats(stage, run) == {1: 0}
        assert (stage.fields(run)["attempt"], stage.fields(run)["crashes"]) == ("1", "0")


@pytest.mark.fault(17)
def test_row_17_what_was_acknowledged_is_never_forgotten(tmp_path: Path) -> None:
    """`appendfsync always`, Redis killed at any moment: each item that a body knew to be committed is there."""
    with staged(tmp_path, appendonly="yes", appendfsync="always") as stage:
        worker = stage.worker(lease=20)
        run = stage.enqueue(jobs.count, stage.path, 60, 0.01, 1)
        for item in (10, 25, 40):
            stage.await_item(run, item)
            stage.server.kill()
            last = stage.ledger.lines(run.id, "count")[-1].item
            stage.restart_redis()
            # With `every=1` an item begins when the commit of the one before it was acknowledged.
            assert int(stage.fields(run)["done"]) >= last
        stage.await_end(run)
        check(stage, run, 60, lives=4)
        assert check_repeats(stage, run) == {1: 0}
        assert worker.process.poll() is None


@pytest.mark.fault(19)
def test_row_19_an_append_only_file_that_ends_anywhere_holds_whole_runs(tmp_path: Path) -> None:
    """Cut at a random byte, twelve times: Redis loads it, and each run's hash is as new as its last event."""
    with staged(tmp_path, appendonly="yes") as stage:
        stage.worker(children=3)
        runs = [
            stage.enqueue(jobs.count, stage.path, 60, 0.01, 1),
            stage.enqueue(jobs.count, stage.path, 200, 0.002),
            stage.enqueue(mapjobs.mapped, stage.path, 150, 0.005),
        ]
        for run in runs:
            stage.await_end(run)
        stage.server.stop()
        (file,) = (stage.server.folder / "appendonlydir").glob("*.incr.aof")
        whole = file.read_bytes()
        stage.server.start()
        dice, found = Random(19), []
        for _ in range(CUTS):
            size = dice.randrange(len(whole))
            with _cut(stage.server.folder / "appendonlydir", file.name, size) as client:
                found.append([_compare(stage, client, run.id, f"{size} of {len(whole)} bytes") for run in runs])
        print(found)
        assert len({tuple(moments) for moments in found}) > CUTS // 2, "the cuts do not differ: this has shown little"


@contextmanager
def _cut(kept: Path, name: str, size: int) -> Iterator[redis.Redis]:
    """A Redis that has loaded the file up to there."""
    server = RedisServer(appendonly="yes")
    shutil.copytree(kept, server.folder / kept.name)
    os.truncate(server.folder / kept.name / name, size)
    with server, server.client() as client:
        yield client


def _compare(stage: Stage, client: redis.Redis, run: str, told: str) -> tuple[int, int]:
    """Check that all which Redis has of a run is of the same moment; return its n and c."""
    fields = client.hgetall(stage.keys.run(run))
    entries = [entry for _, entry in client.xrange(stage.keys.user_events) if entry["id"] == run]
    own = client.xrange(stage.keys.events(run))
    n = int(fields.get("n", 0))
    assert [int(entry["n"]) for entry in entries] == list(range(1, n + 1)), told
    assert [entry["n"] for _, entry in own if "n" in entry] == [str(k) for k in range(1, n + 1)], told
    assert (own[-1][0] if own else None) == fields.get("last_id"), told
    assert bool(fields) == (client.zscore(stage.keys.runs, run) is not None), told
    for k in filter(None, fields.get("maps", "").split(",")):
        results = client.hgetall(stage.keys.map(run, int(k)))
        step_ended = int(fields["steps"]) >= int(k)
        assert step_ended or len(results) - 2 == int(fields["done"] or 0), told
    return n, int(fields.get("c", 0))


@contextmanager
def _small_disk(folder: Path) -> Iterator[tuple[dict[str, str], Callable[[Stage], None], Callable[[Stage], None]]]:
    """A disk of 6 MB: the options of a Redis on it, how it gets full, and how it gets free."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    filler = disk / "filler"

    def fill(_: Stage) -> None:
        with filler.open("wb", buffering=0) as out:
            while True:
                try:
                    out.write(bytes(4096))
                except OSError:
                    return

    try:
        yield {"dir": str(disk)}, fill, lambda _: filler.unlink()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@contextmanager
def _small_files(folder: Path) -> Iterator[tuple[dict[str, str], Callable[[Stage], None], Callable[[Stage], None]]]:
    """A limit of the size of files, for machines on which nobody may mount a disk."""
    if sys.platform != "linux":
        pytest.skip("the limits of another process can be changed on Linux only")

    def limit(stage: Stage, size: int) -> None:
        _, hard = resource.prlimit(stage.server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(stage.server.pid, resource.RLIMIT_FSIZE, (size, hard))

    def fill(stage: Stage) -> None:
        (file,) = (stage.server.folder / "appendonlydir").glob("*.incr.aof")
        limit(stage, file.stat().st_size)

    yield {}, fill, lambda stage: limit(stage, resource.RLIM_INFINITY)


@pytest.mark.fault(26)
@pytest.mark.slow
@pytest.mark.parametrize("small", [_small_disk, _small_files], ids=["disk", "files"])
def test_row_26_a_full_disk_holds_all_and_breaks_nothing(small: Callable[..., object], tmp_path: Path) -> None:
    """MISCONF: whatever writes is refused, for longer than the lease; then the run goes on, and no item is lost."""
    with small(tmp_path) as (options, fill, free), staged(tmp_path, appendonly="yes", **options) as stage:  # type: ignore[attr-defined]
        workers = [stage.worker(ready=False), stage.worker(ready=False)]
        stage.wait_for(*workers)
        run = stage.enqueue(jobs.count, stage.path, 200, 0.01)
        stage.await_item(run, 50)
        fill(stage)
        wait_until(lambda: _refused(stage) >= 3, PATIENCE, "writes are refused")
        full = time.monotonic()
        before = stage.fields(run)
        with pytest.raises(redis.RedisError, match="MISCONF"):
            stage.client.ping()
        with pytest.raises(NbjobsError):
            jobs.count.enqueue(stage.path, 1)
        wait_until(lambda: time.monotonic() > full + LEASE + 2 * SWEEP, PATIENCE, "the lease is over")
        assert stage.fields(run) == before, "something was written"
        held = (time.monotonic_ns() - stage.ledger.lines(run.id, "count")[-1].ns) / 1e9
        assert held > 1, f"the body went on while nothing could be stored: last item {held:.2f} s ago"
        free(stage)
        freed = time.monotonic_ns()
        stage.await_end(run)
        after = next(line.ns for line in stage.ledger.lines(run.id, "count") if line.ns > freed)
        print(f"the next item was done {(after - freed) / 1e9:.2f} s after the disk was free")
        check(stage, run, 200)
        repeats = stage.ledger.repeats(run.id, "count")
        print(f"{len(repeats)} items repeated, attempt {stage.fields(run)['attempt']}, {_refused(stage)} refused")
        # A commit that is not answered for a second holds the loop; who takes over does that second's items again.
        assert len({line.item for line in repeats}) <= 100 + 10, "more than a second's items were not stored"
        assert all(worker.process.poll() is None for worker in workers)


def _refused(stage: Stage) -> int:
    return int(stage.client.info("errorstats").get("errorstat_MISCONF", {}).get("count", 0))
