"""The jobs of the golden histories. They stay as they are: runs of older releases go on with them.

While a history is recorded each of them stops at the one place that its name says, and is ended there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from nbjobs import context, job, notify, step
from nbjobs.jobs import Job
from nbjobs.retries import Retry

from ..faults.ledger import Ledger, Line, now_ns

LEDGER, RECORDING = "GOLDEN_LEDGER", "GOLDEN_RECORDING"
TOTAL, STOP = 10, 4


def recording() -> bool:
    """Whether this is the attempt that is to become a history."""
    return RECORDING in os.environ


def do(name: str, item: int = 0) -> int:
    """Do an item: write it down."""
    carrier: Any = context.carrier()
    claim = carrier._claim
    Ledger(os.environ[LEDGER]).append(Line(claim.run, name, item, claim.attempt, os.getpid(), now_ns()))
    return item


def stand() -> None:
    """Wait for the end of the process."""
    while recording():
        time.sleep(0.05)


@job
def between_steps() -> int:
    """Its first step has ended, the second has begun."""
    one = step("first", do, "first", 1)
    two = step("second", _second)
    return one + two


def _second() -> int:
    stand()
    return do("second", 2)


@job
def by_index() -> int:
    """A loop over a sequence."""
    for item in step.each("load", range(TOTAL), every=1):
        if item == STOP:
            stand()
        do("load", item)
    return TOTAL


@job
def by_key() -> int:
    """A loop that finds its place by a key."""
    rows = [{"id": f"row {n}", "n": n} for n in range(TOTAL)]
    for row in step.each("load", rows, every=1, key=lambda row: row["id"]):
        if row["n"] == STOP:
            stand()
        do("load", row["n"])
    return TOTAL


@job
def by_skipping() -> int:
    """A loop over a generator, whose first items are skipped."""
    for item in step.each("load", (n for n in range(TOTAL)), every=1, total=TOTAL):
        if item == STOP:
            stand()
        do("load", item)
    return TOTAL


class Pages:
    """A source with cursors of its own."""

    def iter_from(self, cursor: Any) -> Iterator[tuple[Any, int]]:
        """Yield the numbers behind a cursor."""
        for number in range(0 if cursor is None else cursor["page"], TOTAL):
            yield {"page": number + 1}, number


@job
def by_its_own_cursor() -> int:
    """A loop over a source that is asked for what is left."""
    for item in step.each("load", Pages(), every=1):
        if item == STOP:
            stand()
        do("load", item)
    return TOTAL


@job
def in_batches() -> int:
    """A loop over lists of items."""
    for some in step.each("load", range(TOTAL), batch=2, every=1):
        if STOP in some:
            stand()
        for item in some:
            do("load", item)
    return TOTAL


@job
def by_hand() -> str:
    """A step that sets its cursor itself."""
    return step("scan", _scan)


def _scan() -> str:
    for item in range(step.current.cursor or 0, TOTAL):
        if item == STOP:
            stand()
        do("scan", item)
        step.current.set(item + 1)
        step.current.checkpoint()
    return "scanned"


@job
def mapped() -> list[int]:
    """A map of which one item is not done, those behind it are."""

    def triple(item: int) -> int:
        if item == STOP:
            stand()
        return 3 * do("triple", item)

    return step.map("triple", triple, range(TOTAL), workers=2)


@job
async def in_a_loop() -> int:
    """An async body."""
    await step("prepare", do, "prepare")
    async for item in step.each("load", range(TOTAL), every=1):
        while item == STOP and recording():
            await asyncio.sleep(0.05)
        do("load", item)
    return TOTAL


@dataclass(frozen=True)
class Point:
    """Data of a class of one's own."""

    x: int
    y: float


VALUES = {
    "text": "snow ☃ and \x00",
    "large": 2**70,
    "float": 0.1,
    "infinite": float("inf"),
    "bytes": b"\x00\xff",
    "tuple": (1, (2, "three")),
    "keys": {1: "one", "two": 2},
    "decimal": Decimal("1.10"),
    "date": date(2026, 2, 28),
    "time": datetime(2026, 2, 28, 12, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "uuid": UUID(int=7),
    "point": Point(3, 0.5),
    "nothing": None,
}


@job
def with_values(start: Any, *, also: Any) -> bool:
    """Arguments, the value of a step and a cursor of many types."""
    made = step("make", _make)
    step("scan", _wait)
    return bool(made == start == also == VALUES)


def _make() -> Any:
    do("make")
    return VALUES


def _wait() -> None:
    step.current.set(("a", 1, date(2026, 2, 28)))
    step.current.checkpoint()
    stand()
    assert step.current.cursor == ("a", 1, date(2026, 2, 28))
    do("scan")


@job
def plain() -> str:
    """No step at all."""
    do("start")
    stand()
    do("end")
    return "through"


def _slowly() -> int:
    for item in step.each("load", range(TOTAL), every=1):
        time.sleep(0.1 if recording() else 0)
        do("load", item)
    return TOTAL


@job
def paused() -> int:
    """Somebody pauses it."""
    return _slowly()


@job
def cancelled() -> int:
    """Somebody cancels it."""
    return _slowly()


@job
def pausing() -> int:
    """Somebody pauses it while its item takes long."""
    return int(by_index())


def _breaks(error: Exception) -> int:
    for item in step.each("load", range(TOTAL), every=1):
        if item == STOP and recording():
            raise error
        do("load", item)
    return TOTAL


@job(retry_on=[Retry(OSError, wait=30, jitter=0)])
def retrying() -> int:
    """Its error is one that it is tried again for."""
    return _breaks(OSError("the disk was busy"))


@job
def failed() -> int:
    """It has ended with an error."""
    return _breaks(ValueError("row 4 has no name"))


@job
def dead() -> int:
    """It ended its process each time."""
    for item in step.each("load", range(TOTAL), every=1):
        if item == STOP and recording():
            os.kill(os.getpid(), signal.SIGKILL)
        do("load", item)
    return TOTAL


@job
def completed(total: int, *, label: str = "") -> dict[str, Any]:
    """It has ended as it should; with events of its own."""
    for item in step.each("load", range(total), every=1):
        do("load", item)
    notify("golden.loaded", rows=total, label=label)
    return {"rows": total, "label": label}


@job
def queued() -> int:
    """It has not begun."""
    return do("start", 1)


@job
def scheduled() -> int:
    """It is not yet time."""
    return do("start", 1)


JOBS: dict[str, Job[..., Any]] = {name: found for name, found in list(globals().items()) if isinstance(found, Job)}
