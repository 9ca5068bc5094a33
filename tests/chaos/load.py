"""The client: it keeps runs coming, and now and then pauses or cancels one and has it go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import redis

from nbjobs.errors import NbjobsError
from nbjobs.run import Run

from ..faults.transcript import Transcript
from ..support import ENDED, wait_until
from .jobs import Plan, plan
from .worlds import World

OUTAGE = (redis.RedisError, NbjobsError, OSError)
FOLLOWED = 5  # runs of a round of which all that is shown is looked at
ALL_END = 150.0  # seconds that runs may take to end when the weather is calm


@dataclass
class Started:
    """A run of a round.

    Attributes:
        controlled: somebody paused, cancelled or retried it, so that the times between its attempts say nothing.
    """

    run: Run
    plan: Plan
    state: str = "queued"
    controlled: bool = False


@dataclass
class Load:
    """The runs of one round.

    Args:
        world: where they run.
        dice: decides which.

    Attributes:
        died: how many were `dead` and were retried.
        forgotten: how many Redis had acknowledged and no longer knew.
    """

    world: World
    dice: Random
    started: list[Started] = field(default_factory=list)
    died: int = 0
    forgotten: int = 0

    @property
    def ended(self) -> int:
        """How many runs have ended so far."""
        return sum(one.state in ENDED for one in self.started)

    def step(self, *, more: bool = True) -> None:
        """Look at all runs, let those that stand still go on, and start new ones in the place of those that ended."""
        with _weather():
            self._look()
            for one in self.started:
                self._go_on(one)
            under_way = [one for one in self.started if one.state not in ENDED]
            if more and under_way and self.dice.random() < 0.02:
                self._interfere(self.dice.choice(under_way))
            if more:
                for _ in range(self.world.places_for_runs - len(under_way)):
                    self._start()

    def finish(self) -> None:
        """Return when all runs have completed; those that have not in time are left."""

        def all_ended() -> bool:
            self.step(more=False)
            return all(one.state == "completed" for one in self.started)

        wait_until(all_ended, ALL_END, lambda: f"all runs complete: {self._standing()}", every=0.1)

    def _start(self) -> None:
        wanted = plan(self.dice, str(self.world.ledger.path))
        run = wanted.job.enqueue(*wanted.args)
        self.started.append(Started(run, wanted))
        if len(self.world.transcripts) < FOLLOWED:
            self.world.transcripts[run.id] = Transcript(run.id, self.world.keys.user, self.world.settings)

    def _look(self) -> None:
        with self.world.client.pipeline(transaction=False) as pipeline:
            for one in self.started:
                pipeline.hget(self.world.keys.run(one.run.id), "state")
            states = pipeline.execute()
        for one, state in zip(list(self.started), states, strict=True):
            one.state = state or "gone"
            if state is None:  # its enqueue was acknowledged, and forgotten with Redis
                self.started.remove(one)
                if transcript := self.world.transcripts.pop(one.run.id, None):
                    transcript.close()
                self.forgotten += 1

    def _go_on(self, one: Started) -> None:
        changes: dict[str, Callable[[], Any]] = {
            "paused": one.run.unpause,
            "cancelled": one.run.retry,
            "dead": one.run.retry,
        }
        if one.state in changes:
            self.died += one.state == "dead"
            one.controlled = True
            changes[one.state]()

    def _interfere(self, one: Started) -> None:
        change = self.dice.choice(["pause", "cancel"])
        one.controlled = True
        self.world.totals.strike(f"{change} by a client")
        getattr(one.run, change)()

    def _standing(self) -> str:
        told = []
        for one in self.started:
            if one.state != "completed":
                fields = self.world.fields(one.run)
                names = ("state", "control", "attempt", "crashes", "step", "done", "owner", "at", "error")
                told.append(f"{one.run.id} ({one.plan.kind}): " + str({name: fields.get(name) for name in names}))
        return "; ".join(told)


@contextmanager
def _weather() -> Iterator[None]:
    """Pass over what Redis does not answer: the next look comes soon."""
    try:
        yield
    except OUTAGE:
        time.sleep(0.05)
