"""What an event costs: with nobody listening, with one subscriber beside ``logging.info``, and in a body.

The costs are CPU time of the process, as those of the loop are.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from nbjobs import job, notify, subscribe, unsubscribe
from nbjobs.events import Event, EventReporter
from nbjobs.settings import configure
from tests.support import RedisServer

from .figures import Figure, Goal
from .support import USER

_rates: list[float] = []


class Batching:
    """A sink as exporters are: the body hands events over, a thread takes them in batches."""

    def __init__(self) -> None:
        self.count = 0
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def emit(self, event: Event) -> None:
        self._queue.put(event)

    def _run(self) -> None:
        batch = []
        while (event := self._queue.get()) is not None:
            batch.append(event)
            if len(batch) == 512:
                self.count += len(batch)
                batch = []
        self.count += len(batch)

    def close(self) -> None:
        """Wait until all has been taken."""
        self._queue.put(None)
        self._thread.join()


@job
def storm(events: int) -> None:
    """Notify as fast as it goes."""
    began = time.perf_counter()
    for row in range(events):
        notify("row", row=row)
    _rates.append(events / (time.perf_counter() - began))


def cost(calls: int, call: Callable[[int], None]) -> float:
    """Return ns of CPU a call."""
    began = time.process_time()
    call(calls)
    return (time.process_time() - began) / calls * 1e9


def nothing(calls: int) -> None:
    for _ in range(calls):
        pass


def notifying(reporter: EventReporter) -> Callable[[int], None]:
    told = reporter.notify

    def loop(calls: int) -> None:
        for row in range(calls):
            told("row", row=row)

    return loop


def logging_to_nowhere(calls: int) -> None:
    logger = logging.getLogger("benchmarks.nowhere")
    for row in range(calls):
        logger.info("row %s", row)


def take(event: Event) -> None:
    """Do nothing with an event."""


def rates(rounds: int, events: int) -> tuple[float, bool]:
    """Return the best rate of events a second from one body, and whether all of them have reached the sink."""
    whole = True
    with RedisServer() as server:
        configure(redis_url=server.url, user=USER, adapter="inline")
        for _ in range(rounds):
            sink = subscribe(Batching(), names="row")
            try:
                storm.enqueue(events)
            finally:
                unsubscribe(sink)
                sink.close()
            whole = whole and sink.count == events
    return max(_rates), whole


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    logger = logging.getLogger("benchmarks.nowhere")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    rounds, calls, tries = (3, 50_000, 1) if quick else (15, 200_000, 5)
    loops = (nothing, notifying(EventReporter()), notifying(EventReporter(take)), logging_to_nowhere)
    found = [[cost(calls, loop) for loop in loops] for _ in range(rounds)]
    empty, silent, one, logged = (min(column) for column in zip(*found, strict=True))
    rate, whole = rates(tries, 50_000)
    if not whole:
        raise RuntimeError("events of a body did not reach the sink")
    how = f"best of {rounds} in turns, the bare loop taken off"
    return [
        Figure("notify_silent", "notify, nobody listens, CPU", "ns", silent - empty, how, Goal(250)),
        Figure(
            "notify_one",
            "notify, one subscriber, CPU",
            "ns",
            one - empty,
            how,
            Goal(0.5, "ratio"),
            "logging.info, null handler",
            logged - empty,
        ),
        Figure(
            "notify_rate",
            "events from one body into a batching sink",
            "1/s",
            rate,
            f"best of {tries}, by the clock",
            Goal(50_000, least=True),
        ),
    ]
