"""The worker's processes for bodies, with real ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from nbjobs.childhandle import PoolError
from nbjobs.output import Line
from nbjobs.pool import End, Pool
from nbjobs.settings import NbJobs

from .bodies import Claim
from .support import await_until, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a worker needs Unix processes")

_owners = count(1)


class Bench:
    """A pool with what its bodies printed."""

    def __init__(self, **options: Any) -> None:
        settings = {
            name: options.pop(name) for name in ("children", "child_runs", "async_runs") if name in options
        }
        self.printed: list[tuple[str, Line]] = []
        self.batches: list[int] = []
        options.setdefault("performer", "tests.bodies:make")
        self.pool = Pool(NbJobs(**{"children": 2, **settings}), self._on_output, **options)

    def _on_output(self, claim: Any, lines: list[Line]) -> None:
        self.batches.append(len(lines))
        self.printed.extend((claim.run if claim else "", line) for line in lines)

    def lines(self, run: str = "r1", stream: str = "stdout") -> list[str]:
        return [line.text for whose, line in self.printed if whose == run and line.stream == stream]

    def claim(self, body: str, *args: Any, kind: str = "", run: str = "r1") -> Claim:
        kind = kind or ("async" if body.startswith("a") and body != "allocates" else "sync")
        return Claim(owner=f"w:{next(_owners)}", body=body, args=list(args), kind=kind, run=run)

    async def run(self, body: str, *args: Any, **options: Any) -> End:
        return await self.pool.run(self.claim(body, *args, **options))

    async def value(self, body: str, *args: Any, **options: Any) -> Any:
        end = await self.run(body, *args, **options)
        assert end.outcome is not None, end
        return end.outcome["value"]

    def begin(self, body: str, *args: Any, **options: Any) -> tuple[str, asyncio.Task[End]]:
        claim = self.claim(body, *args, **options)
        return claim.owner, asyncio.ensure_future(self.pool.run(claim))


@pytest.fixture
async def bench() -> AsyncIterator[Callable[..., Any]]:
    """Makes a started `Bench`; closes all of them."""
    made: list[Bench] = []

    async def make(**options: Any) -> Bench:
        made.append(Bench(**options))
        await made[-1].pool.start()
        return made[-1]

    yield make
    for one in made:
        await one.pool.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_body_runs_and_its_outcome_comes_back(bench: Any) -> None:
    """The outcome of an attempt is handed to whoever had it run."""
    b = await bench()
    end = await b.run("nothing")
    assert (end.died, end.outcome, end.started) == (False, {"code": "completed", "value": None}, True)
