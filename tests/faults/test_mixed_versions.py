"""Workers of two versions on one queue, as while a fleet is deployed: each goes on with what the other began."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from nbjobs.run import Run

from ..chaos.jobs import Plan, in_a_loop, keyed, several
from ..support import wait_until
from . import jobs, mapjobs, mixedjobs
from .checker import check, check_events, check_nothing_lost, check_repeats, check_shown, done_again
from .processes import ROOT, Worker
from .stage import PATIENCE, Stage

OLD = "15234d99e6500591e36301f14cfa2c05f1546891"  # a version whose runs this one goes on with, and the other way
LENT = ("tests/chaos/__init__.py", "tests/chaos/jobs.py", "tests/faults/mixedjobs.py")  # files which that one lacks
ITEMS, SECONDS = 90, 0.02


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The older version, taken from the history, with the jobs of this test."""
    try:
        git = subprocess.run(
            ["git", "archive", "--format=tar", OLD, "nbjobs", "tests"], cwd=ROOT, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"the history is not here, and commit {OLD[:7]} with it: use a full clone (git fetch --unshallow)")
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=io.BytesIO(git.stdout)) as tar:
        tar.extractall(folder, filter="data") if sys.version_info >= (3, 12) else tar.extractall(folder)
    for name in LENT:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def two(stage: Stage, old_tree: Path) -> dict[str, Path]:
    """The trees of both versions; the recorder knows the scripts of both."""
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json; from nbjobs.scripts import SCRIPTS as s; print(json.dumps({s[n].sha: n for n in s}))",
        ],
        cwd=old_tree,
        capture_output=True,
        check=True,
    )
    stage.recorder.know(json.loads(told.stdout))
    return {"old": old_tree, "new": ROOT}


def plans(path: str) -> list[Plan]:
    """Runs of each kind, of two seconds and more."""
    return [
        Plan("each", jobs.count, (path, ITEMS, SECONDS), {"prepare": 1, "count": ITEMS}),
        Plan("by key", keyed, (path, ITEMS, SECONDS), {"keyed": ITEMS}),
        Plan("map", mapjobs.mapped, (path, ITEMS, 4 * SECONDS, 4), {"prepare": 1, "map": ITEMS}, ("map",)),
        Plan(
            "steps",
            several,
            (path, ITEMS, SECONDS),
            {"fetch": 1, "load": ITEMS, "check": 1, "save": ITEMS, "finish": 1},
        ),
        Plan("async", in_a_loop, (path, ITEMS, SECONDS), {"prepare": 1, "acount": ITEMS}),
    ]


def started(stage: Stage, worker: Worker, root: Path) -> Worker:
    """Check that the worker runs the code of that tree."""
    assert Path(mixedjobs.where.enqueue().result(timeout=20)).is_relative_to(root), worker.said
    return worker


@pytest.mark.fault(62)
@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("old", "new"), ("new", "old")], ids=["upgrade", "downgrade"])
def test_row_62_a_worker_goes_on_with_what_another_version_began(
    stage: Stage, two: dict[str, Path], first: str, second: str
) -> None:
    """Runs of each kind, their worker killed in the middle: the other version goes on at the cursor."""
    began = started(stage, stage.worker(root=two[first], children=5), two[first])
    started_runs = [(plan, stage.enqueue(plan.job, *plan.args)) for plan in plans(stage.path)]
    for plan, run in started_runs:
        loop = max(plan.steps, key=lambda step: plan.steps[step])
        wait_until(lambda r=run, s=loop: len(stage.ledger.lines(r.id, s)) > 25, PATIENCE, lambda: stage.logs())
        stage.client.hset(stage.keys.run(run.id), "of_tomorrow", "kept")
    began.kill(everybody=True)
    began.check_orphans()
    started(stage, stage.worker(root=two[second], children=5), two[second])
    stage.recorder.catch_up(stage.client)
    stage.recorder.strangers.clear()
    for plan, run in started_runs:
        stage.await_end(run)
        fields = stage.fields(run)
        assert (fields["attempt"], fields["of_tomorrow"], fields["v"]) == ("2", "kept", "1")
        for step, items in plan.steps.items():
            check_nothing_lost(stage, run, items, step)
        loop = max(plan.steps, key=lambda step: plan.steps[step])
        check(stage, run, plan.steps[loop], step=loop)
        assert done_again(stage, run, list(plan.steps), parallel=plan.parallel) == ([], [])
        resumed = stage.ledger.lines(run.id, attempt=2)
        assert len(resumed) < len(stage.ledger.lines(run.id)) - 20, "it has begun anew"


@pytest.mark.fault(62)
@pytest.mark.slow
def test_row_62_a_fleet_is_deployed_anew_under_its_runs(stage: Stage, two: dict[str, Path]) -> None:
    """Old and new side by side, then the old one is ended: each took runs, none is repeated, no crash is counted."""
    old = started(stage, stage.worker(root=two["old"], children=2), two["old"])
    hurry = stage.folder / "hurry"
    runs = [stage.enqueue(jobs.count, stage.path, ITEMS, 0.1, hurry=str(hurry)) for _ in range(6)]
    stage.await_item(runs[0], 1)
    new = stage.worker(children=2)

    def holders() -> set[int]:
        owners = [stage.fields(run)["owner"] for run in runs]
        return {worker.pid for worker in (old, new) for owner in owners if f"-{worker.pid}-" in owner}

    wait_until(lambda: holders() == {old.pid, new.pid}, PATIENCE, "both work")
    old.send(signal.SIGTERM)
    assert old.leave() == 0, old.said
    hurry.touch()
    for run in runs:
        stage.await_end(run)
        check(stage, run, ITEMS)
        assert set(check_repeats(stage, run).values()) == {0}
        assert stage.fields(run)["crashes"] == "0"
    assert any(stage.fields(run)["attempt"] == "2" for run in runs), "none went from one to the other"


@pytest.mark.fault(62)
@pytest.mark.parametrize("version", ["old", "new"])
def test_row_62_a_run_of_a_newer_version_waits_for_a_worker_of_it(
    stage: Stage, two: dict[str, Path], version: str
) -> None:
    """Its schema number is higher than the worker's own: it stays queued, and others pass by."""
    newer: Run = stage.enqueue(jobs.count, stage.path, 3)
    stage.client.hset(stage.keys.run(newer.id), "v", "2")
    worker = stage.worker(root=two[version])
    other = stage.enqueue(jobs.count, stage.path, 3)
    stage.await_end(other)
    assert (stage.fields(newer)["state"], stage.fields(newer)["attempt"]) == ("queued", "0")
    stage.recorder.catch_up(stage.client)
    stage.recorder.strangers.clear()
    stage.client.hset(stage.keys.run(newer.id), "v", "1")
    stage.worker(root=two[version])  # one that knows the run's version; who passed it by need not look soon
    stage.await_end(newer)
    check_events(stage, newer)
    check_shown(stage, newer)
    assert worker.process.poll() is None
