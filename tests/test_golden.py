"""Golden histories: runs that older releases left half done are gone on with by this one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbjobs
from nbjobs import connection, reading
from nbjobs.errors import RunFailed
from nbjobs.run import Run

from .faults.stage import PATIENCE, Stage, staged
from .golden.jobs import JOBS, LEDGER
from .golden.record import FOLDER, load
from .support import ENDED, wait_until

RELEASES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir() and not path.name.startswith("_"))
HISTORIES = sorted(path.relative_to(FOLDER).with_suffix("") for path in FOLDER.glob("*/*.json"))


@pytest.fixture(scope="module", params=RELEASES)
def replay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Stage]]:
    """A release, and a stage on which a worker goes on with its histories."""
    histories = {path.stem: _read(path) for path in (FOLDER / request.param).glob("*.json")}
    with staged(tmp_path_factory.mktemp("golden")) as stage:
        os.environ[LEDGER] = stage.path
        load(stage.client, histories)
        stage.worker(children=4)
        yield request.param, stage
        del os.environ[LEDGER]


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_this_release_has_its_histories() -> None:
    """Each job has one: `python -m tests.golden.record` records them."""
    assert {path.stem for path in (FOLDER / nbjobs.__version__).glob("*.json")} == set(JOBS)


@pytest.mark.fault(39)
@pytest.mark.parametrize("name", sorted(JOBS))
def test_row_39_a_half_done_run_of_a_release_is_gone_on_with(replay: tuple[str, Stage], name: str) -> None:
    """What the older release did is not done again, what it left is; the view, the events and the end are whole."""
    release, stage = replay
    path = FOLDER / release / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{release} had no such history")
    history = _read(path)
    run = nbjobs.attach(name)
    before = int(history["redis"]["keys"][stage.keys.run(name)]["n"])
    _bring_on(stage, run, history)
    wait_until(lambda: stage.fields(run)["state"] == "completed", PATIENCE, lambda: stage.standing(run))
    assert run.result(10) == history["result"]
    done: dict[str, list[int]] = {}
    for line in stage.ledger.lines(name):
        done.setdefault(line.step, []).append(line.item)
    assert done == history["left"]
    _check_whole(stage, run, before)


def _bring_on(stage: Stage, run: Run, history: dict[str, Any]) -> None:
    """Do what its owner does with a run that does not go on by itself; until then it stands as it was told."""
    if not history["then"]:
        return
    state = history["state"].replace("pausing", "paused")
    wait_until(lambda: stage.fields(run)["state"] == state, PATIENCE, lambda: stage.standing(run))
    assert run.state == state
    if state == "failed":
        with pytest.raises(RunFailed, match="row 4 has no name"):
            run.result()
    getattr(run, history["then"])()


def _check_whole(stage: Stage, run: Run, before: int) -> None:
    """Its events are numbered without a hole over both releases; view and list agree with its fields."""
    n = int(stage.fields(run)["n"])
    numbered = [e for _, e in stage.client.xrange(stage.keys.user_events) if e["id"] == run.id]
    assert [int(entry["n"]) for entry in numbered] == list(range(1, n + 1)) and n >= before
    assert [entry["s"] in ENDED for entry in numbered][-1]
    loaded = reading.load(connection.client(), stage.keys, run.id)
    assert loaded is not None
    assert (loaded.view.state, loaded.view.n, loaded.view.run) == ("completed", n, run.id)
    names = [event.name for event in run.events() if hasattr(event, "name")]
    assert names[0].startswith("job.enqueued") and names[-1] == "job.completed"
    assert run.id in [one.id for one in nbjobs.runs(limit=100)]
