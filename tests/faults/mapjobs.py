"""Jobs that map, whose items write themselves into a ledger."""

from __future__ import annotations

import time
from pathlib import Path

from nbjobs.jobs import job
from nbjobs.stepping import step

from .jobs import write


@job
def mapped(path: str, total: int, seconds: float, workers: int = 4) -> list[int]:
    """A step that runs once, then a map over items that wait a little."""
    step("prepare", write, path, "prepare", 0)

    def item(number: int) -> int:
        time.sleep(seconds)
        write(path, "map", number)
        return 3 * number

    return step.map("map", item, range(total), workers=workers)


@job
def slow_first(path: str, total: int, gate: str) -> list[int]:
    """A map whose first item waits for a file, beside many that take no time."""

    def item(number: int) -> int:
        while number == 0 and not Path(gate).exists():
            time.sleep(0.005)
        write(path, "map", number)
        return number

    return step.map("map", item, range(total), workers=4)


def square(path: str, number: int) -> int:
    """An item in a process of its own: its line has no key of a run."""
    time.sleep(0.01)
    with Path(path).open("a") as file:
        file.write(f"{step.current.key} {number}\n")
    return number * number


@job
def in_processes(path: str, total: int) -> list[int]:
    """A map in two processes."""
    return step.map("map", lambda number: square(path, number), range(total), processes=2)
