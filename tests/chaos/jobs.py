"""The kinds of jobs that chaos runs, and what each of them must have done in the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

from nbjobs import context
from nbjobs.jobs import Job, job
from nbjobs.retries import Retry
from nbjobs.stepping import step

from ..faults.jobs import count, write
from ..faults.ledger import Ledger
from ..faults.mapjobs import mapped


class Plan(NamedTuple):
    """A run to start.

    Attributes:
        steps: how many items each of its steps has, in the order of the steps.
        parallel: steps whose items end in any order.
        silent: it has no steps, so nothing says how far it is.
    """

    kind: str
    job: Job[Any, Any]
    args: tuple[Any, ...]
    steps: Mapping[str, int]
    parallel: tuple[str, ...] = ()
    silent: bool = False


@job
def keyed(path: str, total: int, seconds: float) -> int:
    """A loop that goes on behind the key of the last item done."""
    for item in step.each("keyed", [{"id": f"row-{n}", "n": n} for n in range(total)], key=lambda row: row["id"]):
        time.sleep(seconds)
        write(path, "keyed", item["n"])
    return total


@job
def skipping(path: str, total: int, seconds: float) -> int:
    """A loop over an iterator, of which the items done are skipped; in lists of three."""
    for some in step.each("skipping", (n for n in range(total)), batch=3, total=total):
        time.sleep(seconds)
        for item in some:
            write(path, "skipping", item)
    return total


@job
def several(path: str, total: int, seconds: float) -> str:
    """Steps that run once, between loops."""
    step("fetch", write, path, "fetch", 0)
    for item in step.each("load", range(total)):
        time.sleep(seconds)
        write(path, "load", item)
    step("check", write, path, "check", 0)
    for item in step.each("save", range(total), every=1):
        write(path, "save", item)
    step("finish", write, path, "finish", 0)
    return "done"


@job
async def in_a_loop(path: str, total: int, seconds: float) -> int:
    """An async body."""
    await step("prepare", write, path, "prepare", 0)
    async for item in step.each("acount", range(total)):
        await asyncio.sleep(seconds)
        write(path, "acount", item)
    return total


@job
def stepless(path: str, seconds: float) -> str:
    """No step at all: each attempt begins anew."""
    write(path, "start", 0)
    time.sleep(seconds)
    write(path, "end", 0)
    return "through"


@job(retry_on=[Retry(OSError, wait=0.3, jitter=0)])
def stumbling(path: str, total: int, seconds: float) -> int:
    """Fails in its middle for the first time that it comes there."""
    for item in step.each("stumble", range(total)):
        time.sleep(seconds)
        if item == total // 2 and not Ledger(path).lines(context.carrier()._claim.run, "failed"):
            write(path, "failed", 0)
            raise OSError("the disk was busy")
        write(path, "stumble", item)
    return total


def plan(dice: Random, path: str) -> Plan:
    """Return a run of any kind, of one to six seconds."""
    total, seconds = dice.randrange(60, 300), dice.choice([0.005, 0.01, 0.02])
    few = dice.randrange(20, 80)
    kinds = [
        Plan("each", count, (path, total, seconds), {"prepare": 1, "count": total}),
        Plan("every item", count, (path, few, 0.06, 1), {"prepare": 1, "count": few}),
        Plan("by key", keyed, (path, total, seconds), {"keyed": total}),
        Plan("by skipping", skipping, (path, total, seconds), {"skipping": total}),
        Plan("map", mapped, (path, total, 2 * seconds), {"prepare": 1, "map": total}, ("map",)),
        Plan("steps", several, (path, few, seconds), {"fetch": 1, "load": few, "check": 1, "save": few, "finish": 1}),
        Plan("async", in_a_loop, (path, total, seconds), {"prepare": 1, "acount": total}),
        Plan("no steps", stepless, (path, dice.uniform(0.2, 1.5)), {"start": 1, "end": 1}, silent=True),
        Plan("retried", stumbling, (path, few, seconds), {"stumble": few}),
    ]
    return dice.choice(kinds)
