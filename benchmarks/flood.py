"""An empty job beside a body that prints without end, and a worker's memory while such bodies meet no Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil

from nbjobs.settings import configure
from tests.support import RedisServer

from .figures import Figure, Goal, percentile
from .jobs import flood, nothing
from .support import QUEUE, USER, Stamps, worker

KINDS = ("empty", "short", "binary", "endless")
Times = dict[str, tuple[list[float], list[float]]]


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    rounds, runs, away = (1, 5, 3.0) if quick else (5, 40, 60.0)
    times: Times = {kind: ([], []) for kind in KINDS}
    with RedisServer() as server, Stamps() as stamps, ExitStack() as stack:
        configure(redis_url=server.url, user=USER, queue=QUEUE)
        process = stack.enter_context(worker(server.url, children=2))
        nothing.enqueue().result(timeout=30)
        for _ in range(rounds):
            for kind, (beside, without) in times.items():
                with _flooding(stamps, kind):
                    beside += [_empty() for _ in range(runs)]
                without += [_empty() for _ in range(runs)]
        memory = _absence(server, stamps, psutil.Process(process.pid), away)
    return [*_delays(times), memory]


@contextmanager
def _flooding(stamps: Stamps, *kinds: str) -> Iterator[None]:
    found = [flood.enqueue(stamps.path, kind) for kind in kinds]
    for _ in found:
        stamps.next()
    try:
        yield
    finally:
        for run in found:
            run.cancel(now=True)
        for run in found:
            run.wait(timeout=30)


def _empty() -> float:
    """Return the ms from the enqueue of an empty job to its result."""
    began = time.perf_counter()
    nothing.enqueue().result(timeout=60)
    return (time.perf_counter() - began) * 1e3


def _absence(server: RedisServer, stamps: Stamps, process: psutil.Process, seconds: float) -> Figure:
    """Return the most memory that the worker had beside two printing bodies while Redis was away."""
    before = process.memory_info().rss
    most = 0
    with _flooding(stamps, "long", "short"):
        until = time.monotonic() + 1
        while time.monotonic() < until:
            time.sleep(0.01)
        server.stop()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            most = max(most, process.memory_info().rss)
            time.sleep(0.05)
        server.start()
    most = max(most, process.memory_info().rss)
    return Figure(
        "backlog_memory",
        f"worker beside two endless prints, Redis away for {seconds:g} s, most memory",
        "MB",
        most / 1e6,
        "most of samples every 50 ms",
        Goal(128),
        "the same worker before",
        before / 1e6,
    )


def _delays(times: Times) -> list[Figure]:
    return [
        Figure(
            f"flood_{kind}_{name}",
            f"an empty job beside a flood ({kind}), {name}",
            "ms",
            percentile(beside, share),
            f"{name} of {len(beside)}, in turns",
            Goal(500) if name == "p99" else None,
            "the same job without the flood",
            percentile(without, share),
        )
        for kind, (beside, without) in times.items()
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]
