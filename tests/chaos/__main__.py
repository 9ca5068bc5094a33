"""Run chaos: ``python -m tests.chaos --minutes 10``; the exit code is 1 where something was found."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from .default import Default
from .load import Load
from .own import Own
from .totals import Totals
from .verdicts import judge
from .worlds import World

ROUND = 45.0  # seconds between two calms
STAGES: dict[str, Callable[[Path, Random, Totals], World]] = {"embedded": Default, "own": Own}


def play(stage: str, seconds: float, seed: int, *, least: int = 0) -> Totals:
    """Play one stage for so long, and until so many runs met so many faults; return its totals."""
    totals = Totals(f"{STAGES[stage].name}, seed {seed}")  # type: ignore[attr-defined]
    folder = Path(tempfile.mkdtemp(prefix="nbjobs-chaos-"))
    until, number = time.monotonic() + seconds, 0
    world = STAGES[stage](folder, Random(seed), totals)
    try:
        while time.monotonic() < until:
            number += 1
            _round(world, totals, number, min(until, time.monotonic() + ROUND), Random(f"{seed}/{number}"), least)
            left = ", ".join(f"{name} {count}" for name, count in totals.broken.items()) or "nothing found"
            print(f"chaos: round {number}: {totals.runs} runs, {totals.faults.total()} faults, {left}", flush=True)
    finally:
        world.close()
        if totals.fine:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"chaos: ledgers and logs are kept in {folder}")
    return totals


def _round(world: World, totals: Totals, number: int, until: float, dice: Random, least: int) -> None:
    """Have runs in bad weather, then let it calm down and judge."""
    world.dice = dice
    world.begin(number)
    load, strikes = Load(world, dice), time.monotonic() + 1.0
    while time.monotonic() < until or min(totals.faults.total(), load.ended) < least:
        world.tend()
        if time.monotonic() > strikes:
            world.strike()
            strikes = time.monotonic() + dice.uniform(*world.pause)
        load.step()
        time.sleep(0.05)
    world.calm()
    try:
        load.finish()
    except AssertionError as error:
        print(f"chaos: {error}", flush=True)
    world.tend(everything=True)
    judge(world, load, totals)
    world.recorder.close()


def main() -> int:
    """Play what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="default: both, one after the other")
    parser.add_argument("--minutes", type=float, default=2.0, help="of each stage (default: 2)")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time; it is printed")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing of it is left then either
    seed = options.seed if options.seed is not None else int(time.time()) % 100_000
    print(f"chaos: {options.minutes:g} minutes of each stage, seed {seed}", flush=True)
    found = [play(stage, options.minutes * 60, seed) for stage in options.stages or STAGES]
    for totals in found:
        print(totals.table())
        for finding in totals.findings:
            print(f"  {finding}")
    fine = all(totals.fine for totals in found)
    print("chaos: all that must be zero is zero" if fine else f"chaos: see above; again with --seed {seed}")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
