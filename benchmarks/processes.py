"""Birth and death of the processes that run bodies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from functools import partial
from typing import Any

import psutil

from nbjobs.lines import Line
from nbjobs.pool import Pool
from nbjobs.settings import NbJobs, configure
from tests.bodies import Claim
from tests.support import RedisServer
from tests.workers import gone

from .figures import Figure, Goal, median, percentile
from .jobs import hold, stamp
from .support import QUEUE, USER, Stamps, wait_for, worker


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    rounds = 5 if quick else 40
    births, bare, messages, deaths = asyncio.run(_processes(rounds))
    gone = _workers_gone(1 if quick else 5)
    how = f"p50 of {rounds}, in turns"
    return [
        Figure(
            "birth", "a new child, asked for → up", "ms", median(births), how, None, "`python -c pass`", median(bare)
        ),
        Figure("body", "run given to a child → its body started", "ms", median(messages), f"p50 of {rounds}"),
        Figure(
            "death", "child killed → its worker knows, worst", "ms", max(deaths), f"worst of {len(deaths)}", Goal(50)
        ),
        Figure("death_p50", "child killed → its worker knows, p50", "ms", median(deaths), f"p50 of {len(deaths)}"),
        Figure(
            "orphans",
            "worker killed, body holds the GIL → no process left, worst",
            "ms",
            percentile(gone, 1),
            f"worst of {len(gone)}",
            Goal(1000),
        ),
    ]


async def _processes(rounds: int) -> tuple[list[float], ...]:
    pids: asyncio.Queue[int] = asyncio.Queue()

    def printed(claim: Any, lines: list[Line]) -> None:
        for line in lines:
            pids.put_nowait(int(line.text))

    pool = Pool(NbJobs(redis_url="redis://nowhere", children=2), printed, performer="tests.bodies:make")
    await pool.start()
    births, bare, messages, deaths = [], [], [], []
    for number in range(rounds):
        began = time.perf_counter()
        pool._births.retire(await pool._births.bear())
        births.append((time.perf_counter() - began) * 1e3)
        bare.append(_bare())

        sent = time.monotonic_ns()
        end = await pool.run(Claim(owner=f"stamp:{number}", body="clock"))
        assert end.outcome is not None, end
        messages.append((end.outcome["value"] - sent) / 1e6)

        endless = Claim(owner=f"endless:{number}", body="waits_for_stop", args=["its pid"])
        task = asyncio.ensure_future(pool.run(endless))
        pid = await asyncio.wait_for(pids.get(), 10)
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        end = await task
        assert end.died, end
        deaths.append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(0.05)
    await pool.close()
    return births, bare, messages, deaths


def _bare() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (time.perf_counter() - began) * 1e3


def _workers_gone(rounds: int) -> list[float]:
    """Return the ms from a worker's SIGKILL until all that it had started was gone."""
    found = []
    for _ in range(rounds):
        with RedisServer() as server, Stamps() as stamps:
            configure(redis_url=server.url, user=USER, queue=QUEUE)
            with worker(server.url, children=2) as process:
                stamp.enqueue(stamps.path)
                stamps.next()
                hold.enqueue(stamps.path)
                body = stamps.next()
                time.sleep(0.2)  # by now it is in C
                family = psutil.Process(process.pid).children(recursive=True)
                assert body.pid in {one.pid for one in family}, "the body's process is not among the worker's"
                began = time.perf_counter()
                process.kill()
                process.wait()
                wait_for(partial(gone, family), 30, "all processes are gone")
                found.append((time.perf_counter() - began) * 1e3)
    return found
