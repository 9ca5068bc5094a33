"""Deploys: workers that end in the middle of a run, and code that is another one afterwards."""

from __future__ import annotations

import importlib
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbjobs.jobs import Job
from nbjobs.run import Run

from ..support import wait_until
from . import jobs
from .checker import check, check_events
from .stage import PATIENCE, Stage
from .test_stops import check_not_counted

DEPLOYS = 4
GRACE = 0.5


@pytest.mark.fault(3)
def test_row_03_four_deploys_over_a_job_without_steps_are_no_reason_to_give_up(stage: Stage) -> None:
    """Its one item is longer than each grace: the worker ends it and releases the run itself; no crash is counted.

    The run waits longer after each of them, here by tenths of a second.
    """
    gate = stage.folder / "gate"
    run = stage.enqueue(jobs.gated, stage.path, str(gate))
    for attempt in range(1, DEPLOYS + 1):
        worker = stage.worker(grace=GRACE, release_wait="0,0.1,0.2")
        stage.await_attempt(run, attempt, "start")
        worker.send(signal.SIGTERM)
        assert worker.leave() == 0, worker.said
        warning = re.search(
            r"run (\S+): the item under way has taken \d+\.\d s .* within the grace of 0\.5 s", worker.said
        )
        assert warning is not None and warning[1] == run.id, worker.said
        assert "no crash is counted" in worker.said
    gate.touch()
    stage.worker()
    stage.await_end(run)
    assert run.result() == "through"
    check_events(stage, run)
    check_not_counted(stage, run.id, attempt=DEPLOYS + 1, resumptions=0)
    interrupts = stage.payloads(run, "job.interrupt")
    assert [one["reason"] for one in interrupts] == ["stopping"] * DEPLOYS
    assert stage.fields(run)["wait"] == "200"


@pytest.mark.fault(14)
def test_row_14_a_poison_that_makes_progress_is_never_dead(stage: Stage) -> None:
    """It dies at each tenth item, more often than four times: each progress sets the count of crashes back."""
    stage.worker(crash_wait="0,30,60")
    run = stage.enqueue(jobs.rugged, stage.path, 60)
    stage.await_end(run)
    check(stage, run, 60)
    fields = stage.fields(run)
    assert (fields["attempt"], fields["crashes"]) == ("7", "0")
    again = {line.item for line in stage.ledger.repeats(run.id, "count")}
    assert again == {9, 19, 29, 39, 49, 59}
    assert stage.names(run).count("job.interrupt") == 6
    assert "job.retry_scheduled" not in stage.names(run), "a crash after progress waits for nothing"


# -- code that changes ---------------------------------------------------------------------------

BEFORE = {
    "renamed": ["prepare", "load", "finish"],
    "removed": ["prepare", "load", "finish"],
    "reordered": ["prepare", "load", "finish"],
    "inserted_before": ["prepare", "load", "finish"],
    "inserted_after": ["prepare", "load", "finish"],
    "called_otherwise": ["prepare", "load", "finish"],
    "deleted": ["prepare", "load", "finish"],
}
AFTER = {
    "renamed": ["prepare", "load rows", "finish"],
    "removed": ["load", "finish"],
    "reordered": ["load", "prepare", "finish"],
    "inserted_before": ["fetch", "prepare", "load", "finish"],
    "inserted_after": ["prepare", "load", "check", "finish"],
    "called_otherwise": ["prepare", "load", "finish"],
}
REFUSED = {
    "renamed": "Step 'load rows' found, expected to resume from 'load'",
    "removed": "Step 'load' found, expected to see 'prepare'",
    "reordered": "Step 'load' found, expected to see 'prepare'",
    "inserted_before": "Step 'fetch' found, expected to resume from 'load'",
}


class Deployed:
    """A module of jobs on disk, in one version after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, steps: dict[str, list[str]], **parameters: str) -> None:
        """Deploy jobs of these names and steps; ``parameters`` are those of jobs that have others than usual."""
        lines = ["from nbjobs import job", "from tests.faults.jobs import walk", ""]
        for name, names in steps.items():
            lines += ["@job", f"def {name}({parameters.get(name, 'path, hurry')}):"]
            lines += [f"    return walk(path, {names!r}, hurry)", ""]
        (self.folder / "deployed_jobs.py").write_text("\n".join(lines))

    def jobs(self) -> dict[str, Job[..., Any]]:
        """The jobs as this process knows them."""
        module = importlib.import_module("deployed_jobs")
        return {name: job for name, job in vars(module).items() if isinstance(job, Job)}


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield Deployed(tmp_path / "code")
    sys.modules.pop("deployed_jobs", None)


@pytest.mark.fault(38)
def test_row_38_code_that_no_longer_fits_pauses_the_run_and_what_fits_goes_on(stage: Stage, deployed: Deployed) -> None:
    """A deploy in the middle of `load`: both lists are shown, nothing was executed, and the owner decides."""
    hurry = stage.folder / "hurry"
    deployed.write(BEFORE)
    first = stage.worker(path=deployed.folder, children=len(BEFORE))
    runs = {name: stage.enqueue(job, stage.path, str(hurry)) for name, job in deployed.jobs().items()}
    for run in runs.values():
        stage.await_item(run, 2, "load")
    first.send(signal.SIGTERM)
    assert first.leave() == 0, first.said
    hurry.touch()
    deployed.write(AFTER, called_otherwise="path, hurry, *, must")
    stage.worker(path=deployed.folder, children=len(BEFORE))

    for name, message in REFUSED.items():
        paused = paused_for(stage, runs[name])
        assert paused["description"].startswith(message), paused
        assert paused["stored"] == ["prepare", "load"][: len(paused["stored"])]
        assert paused["found"] == AFTER[name][: len(paused["found"])]
    paused = paused_for(stage, runs["called_otherwise"])
    assert "do not fit the job as it is now: called_otherwise() missing" in paused["description"]
    assert (paused["stored"], paused["found"]) == (
        ["2 arguments"],
        ["deployed_jobs.called_otherwise(path, hurry, *, must)"],
    )
    stage.await_end(runs["inserted_after"])
    assert [line.step for line in stage.ledger.lines(runs["inserted_after"].id, attempt=2)][-2:] == ["check", "finish"]
    check(stage, runs["inserted_after"], 1000, step="load")

    lost_job(stage, runs["deleted"])
    decide(stage, runs["renamed"], Run.restart, ["prepare", "load rows", "finish"])
    decide(stage, runs["reordered"], Run.accept, ["load", "finish"])
    for run in runs.values():
        assert stage.fields(run)["crashes"] == stage.fields(run)["failures"] == "0"


def paused_for(stage: Stage, run: Run) -> dict[str, Any]:
    """The run is paused for changed code, with its progress, and its body did nothing: returns what is said of it."""
    wait_until(lambda: run.state == "paused", PATIENCE, f"the run pauses: {stage.logs()}")
    assert "changed" in run.view.marks
    assert stage.ledger.lines(run.id, attempt=2) == []
    assert (stage.fields(run)["step"], stage.fields(run)["steps"]) == ("load", "1")
    return stage.payloads(run, "job.interrupt")[-1]


def lost_job(stage: Stage, run: Run) -> None:
    """A job that no worker finds stays queued; after ten minutes its run is paused, with its progress."""
    wait_until(lambda: "not_found" in [one["reason"] for one in stage.payloads(run, "job.interrupt")], PATIENCE, "told")
    assert run.state in ("queued", "running")
    stage.client.hincrby(stage.keys.run(run.id), "missing_since", -11 * 60_000)
    wait_until(lambda: run.state == "paused", PATIENCE, f"ten minutes are over: {stage.logs()}", every=0.1)
    assert (stage.fields(run)["step"], stage.fields(run)["steps"]) == ("load", "1")
    told = stage.payloads(run, "job.interrupt")[-1]
    assert told["reason"] == "not_found" and "deleted" in told["description"]


def decide(stage: Stage, run: Run, decision: Callable[[Run], Any], done: list[str]) -> None:
    """The owner has the run begin again, or go on all the same."""
    decision(run)
    stage.await_end(run)
    attempt = int(stage.fields(run)["attempt"])
    assert list(dict.fromkeys(line.step for line in stage.ledger.lines(run.id, attempt=attempt))) == done
