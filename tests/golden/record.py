"""Record the golden histories of the release at hand: ``python -m tests.golden.record``."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

import nbjobs
from nbjobs.keys import Keys
from nbjobs.leases import _host
from nbjobs.run import Run

from ..faults.processes import ROOT
from ..faults.stage import USER, Stage, staged
from ..support import wait_until
from .jobs import JOBS, LEDGER, RECORDING, STOP, TOTAL, VALUES

FOLDER = Path(__file__).parent
LEFT = range(STOP, TOTAL)

# What each history has left to do, and what brings it on; those that are not named go on by themselves.
ITEMS: dict[str, dict[str, list[int]]] = {
    "between_steps": {"second": [2]},
    "by_hand": {"scan": list(LEFT)},
    "mapped": {"triple": [STOP]},
    "with_values": {"scan": [0]},
    "plain": {"start": [0], "end": [0]},
    "completed": {},
    "queued": {"start": [1]},
    "scheduled": {"start": [1]},
}
RESULTS: dict[str, Any] = {
    "between_steps": 3,
    "by_hand": "scanned",
    "mapped": [3 * n for n in range(TOTAL)],
    "with_values": True,
    "plain": "through",
    "completed": {"rows": 3, "label": "ok"},
    "queued": 1,
    "scheduled": 1,
}
THEN = {"paused": "unpause", "pausing": "unpause", "cancelled": "retry", "failed": "retry", "dead": "retry"}
STATES = {name: name for name in ("paused", "pausing", "cancelled", "failed", "dead", "retrying", "completed")}


def record(folder: Path) -> list[Path]:
    """Have all jobs stop where they are to; write a file for each, and return these."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, staged(Path(temporary)) as stage:
        os.environ |= {LEDGER: stage.path, RECORDING: "1"}
        worker = stage.worker(children=len(JOBS), crash_wait="[0,0,0]")
        runs = {name: _start(stage, name) for name in JOBS if name not in ("queued", "scheduled")}
        for name in ("paused", "cancelled"):
            wait_until(lambda r=runs[name]: stage.fields(r)["done"] == str(STOP - 1), 60, name)
            getattr(runs[name], {"paused": "pause", "cancelled": "cancel"}[name])()
        wait_until(lambda: _stands(stage, runs["pausing"], "pausing", control=False), 60, "it stands")
        runs["pausing"].pause()
        for name, run in runs.items():
            wait_until(lambda r=run, n=name: _stands(stage, r, n), 60, lambda r=run: stage.standing(r))
        worker.kill(everybody=True)
        runs |= {name: _start(stage, name) for name in ("queued", "scheduled")}
        del os.environ[LEDGER], os.environ[RECORDING]
        return [_write(stage, folder, name, run) for name, run in runs.items()]


def _start(stage: Stage, name: str) -> Run:
    arguments: dict[str, Any] = {
        "with_values": ((VALUES,), {"also": VALUES}),
        "completed": ((3,), {"label": "ok"}),
    }.get(name, ((), {}))
    delay = 30.0 if name == "scheduled" else None
    job = JOBS[name].options(id=name, tags={"golden": nbjobs.__version__}, delay=delay)
    return job.enqueue(*arguments[0], **arguments[1])


def _stands(stage: Stage, run: Run, name: str, *, control: bool = True) -> bool:
    """Whether a run has come to the place where it is to be recorded."""
    fields = stage.fields(run)
    if control and name in STATES:
        return fields["state"] == STATES[name]
    if name == "mapped":
        return fields["done"] == str(TOTAL - 1)
    if name == "plain":
        return bool(stage.ledger.lines(run.id))
    if name in ("between_steps", "with_values"):
        return fields["steps"] == "1" and fields["step"] != "" and (name == "between_steps" or fields["cursor"] != "")
    if name == "by_hand":
        return fields["cursor"] == f'{{"v":{STOP}}}'
    return fields["step"] == "load" and fields["done"] == str(STOP)


def _write(stage: Stage, folder: Path, name: str, run: Run) -> Path:
    done = {line.item for line in stage.ledger.lines(run.id, "load")}
    told = {
        "release": nbjobs.__version__,
        "python": platform.python_version(),
        "state": stage.fields(run)["state"],
        "then": THEN.get(name, ""),
        "left": ITEMS.get(name, {"load": [item for item in range(TOTAL) if item not in done]}),
        "result": RESULTS.get(name, TOTAL),
        "redis": dump(stage.client, stage.keys, run.id),
    }
    text = json.dumps(told, indent=1, ensure_ascii=False).replace(str(ROOT), "/src/nbjobs")
    for host in (_host(), socket.gethostname()):
        text = text.replace(host, "host")
    path = folder / f"{name}.json"
    path.write_text(text + "\n")
    return path


def dump(client: redis.Redis, keys: Keys, run: str) -> dict[str, Any]:
    """Return what Redis has of a run."""
    read: dict[str, Callable[[str], Any]] = {"hash": client.hgetall, "stream": client.xrange}
    found = sorted(key for key in client.scan_iter(f"{keys.run(run)}*", count=1000) if _is_of(key, keys.run(run)))
    return {
        "user": keys.user,
        "keys": {key: read[client.type(key)](key) for key in found},
        "events": [entry for entry in client.xrange(keys.user_events) if entry[1]["id"] == run],
        "runs": client.zscore(keys.runs, run),
        "due": client.zscore(keys.due, run),
    }


def _is_of(key: str, run: str) -> bool:
    return key == run or key.startswith(f"{run}:")


def load(client: redis.Redis, histories: dict[str, dict[str, Any]]) -> None:
    """Put histories into an empty Redis."""
    events = []
    for run, history in histories.items():
        kept = history["redis"]
        keys = Keys(kept["user"])
        for key, value in kept["keys"].items():
            if isinstance(value, dict):
                client.hset(key, mapping=value)
            for id, entry in value if isinstance(value, list) else ():
                client.xadd(key, entry, id=id)
            if kept["due"] is None:
                client.expire(key, 7 * 86_400)
        client.zadd(keys.runs, {run: kept["runs"]})
        if kept["due"] is not None:
            client.zadd(keys.due, {run: kept["due"]})
        client.zadd("nbjobs:users", {keys.u: kept["runs"]})
        events += [(_order(id), keys.user_events, id, entry) for id, entry in kept["events"]]
    for _, key, id, entry in sorted(events, key=lambda event: event[0]):
        client.xadd(key, entry, id=id)


def _order(id: str) -> tuple[int, int]:
    ms, _, number = id.partition("-")
    return int(ms), int(number)


if __name__ == "__main__":
    assert Keys(USER).user == USER
    written = record(FOLDER / nbjobs.__version__)
    print(f"recorded {len(written)} histories of nbjobs {nbjobs.__version__} in {FOLDER / nbjobs.__version__}")
    sys.exit(0)
