"""How attempts are given back: no way back into the queue is free."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import pytest
import redis

from nbjobs import connection, endings, phrases
from nbjobs.asked import Holding
from nbjobs.attempts import Attempts
from nbjobs.claim import Claim
from nbjobs.errors import Interrupt
from nbjobs.journal import Ending
from nbjobs.keys import Keys
from nbjobs.leases import Held, Leases
from nbjobs.pool import End
from nbjobs.settings import NbJobs
from nbjobs.store import Store
from nbjobs.suspects import Suspects

pytestmark = pytest.mark.leaky  # workers tell sweepers of their users

USER, QUEUE = "ada", "test"
FIELDS = {"job": "m.f", "args": "[[],{}]", "kind": "sync", "queue": QUEUE, "user": USER, "tags": "{}"}
OFTEN = 14  # attempts in a row: more than any count allows

CHILDS = {
    "interrupted": endings.after_error(Interrupt("stopping"), endings.Facts(endings.Policy())),
    "cancelled as asked": endings.after_error(asyncio.CancelledError(), endings.Facts(endings.Policy(), asked=True)),
    "cancelled by itself": endings.after_error(asyncio.CancelledError(), endings.Facts(endings.Policy())),
    "failed": endings.after_error(OSError(), endings.Facts(endings.Policy())),
    "retried": endings.after_error(OSError(), endings.Facts(endings.Policy(), advanced=True)),
    "retried at once": Ending("retrying", {}, failed=True),
    "paused": Ending("paused", {"reason": "changed"}),
    "completed": endings.after_return(1),
}
"""Endings that a child has written itself: one of each outcome."""

DEATHS = [
    End(died=True, started=started, shared=shared, reason=reason)
    for reason in ("", "killed", "stalled", "nursery", "closed", "no child")
    for started in (True, False)
    for shared in (True, False)
]
TOLD = [
    End(died=False, started=True, error="SystemExit: came out of the attempt"),
    *(End(died=False, started=True, outcome={"code": code, "state": "running"}) for code in ("fenced", "released")),
]


class Standing(NamedTuple):
    """What a run has to show for itself."""

    state: str
    failures: int
    crashes: int
    fruitless: int
    wait: int  # ms until it may go on


class World:
    """One run, and a worker that gives it back."""

    def __init__(self, client: Any, settings: NbJobs) -> None:
        self.client, self.keys = client, Keys(USER)
        self.settings = settings
        self.store = Store(connection.client(), USER, settings)

    async def walk(self, end: End, release: str = "", ending: Ending | None = None) -> list[Standing]:
        """Let attempts of a run end in this way, each time it comes back; return how it stood after each."""
        asyncs = connection.async_client(self.settings.redis_url or "", name="nbjobs-test")
        pool: Any = None
        attempts = Attempts(
            Leases(asyncs, self.settings), pool, worker="w", queue=QUEUE, on_free=lambda kind: None, grace=1
        )
        seen = []
        self.store.enqueue("r1", FIELDS)
        try:
            for attempt in range(1, OFTEN + 1):
                self.client.hset(self.keys.run("r1"), "at", "0")  # its wait is over
                claimed = self.store.claim("r1", f"w:{attempt}", attempt)
                assert claimed.code == "OK", claimed
                if ending is not None:
                    self.store.finish(
                        "r1",
                        f"w:{attempt}",
                        ending.outcome,
                        wait_ms=round(ending.wait * 1000),
                        bounded=ending.bounded,
                        failed=ending.failed,
                    )
                held = Held(self.keys, "r1", f"w:{attempt}", attempt, "m.f", QUEUE, USER)
                await attempts._give_back(Holding(held, claim_of(held), release=release), end)
                seen.append(self.standing())
                if seen[-1].state not in ("queued", "retrying"):
                    break
        finally:
            await asyncs.aclose()
        return seen

    def standing(self) -> Standing:
        fields = self.client.hgetall(self.keys.run("r1"))
        seconds, micros = self.client.time()
        wait = int(fields["at"]) - (seconds * 1000 + micros // 1000)
        failures, crashes, fruitless = (int(fields[name]) for name in ("failures", "crashes", "fruitless"))
        return Standing(fields["state"], failures, crashes, fruitless, max(0, wait))


def claim_of(held: Held) -> Claim:
    return Claim(user=held.user, run=held.run, owner=held.owner, attempt=held.attempt, fence=1, c=0, n=0, now=0)


@pytest.fixture
def world(redis_client: redis.Redis, nbjobs_settings: NbJobs) -> World:
    return World(redis_client, nbjobs_settings)


def costs_something(seen: list[Standing]) -> None:
    """Each time that the run came back it has been counted, and without a failure it does not come back for ever."""
    before = Standing("", 0, 0, 0, 0)
    for now in seen:
        if now.state in ("queued", "retrying"):
            assert (now.failures, now.crashes, now.fruitless) > (before.failures, before.crashes, before.fruitless)
        before = now
    if not before.failures:
        assert before.state in ("paused", "dead", "completed"), seen
        assert len(seen) < 5 or sum(one.wait for one in seen) > 60_000 * (len(seen) - 5)


@pytest.mark.weather("H4")
@pytest.mark.parametrize("end", [*DEATHS, *TOLD], ids=repr)
@pytest.mark.parametrize("release", ["", "stopping"])
async def test_every_death_costs_something(world: World, end: End, release: str) -> None:
    """However a child ends, and whyever it was ended: a crash is counted, or the run waits longer and longer."""
    costs_something(await world.walk(end, release))


@pytest.mark.weather("H4")
@pytest.mark.parametrize("name", CHILDS)
async def test_every_ending_costs_something(world: World, name: str) -> None:
    """Whatever a child writes of an attempt's end: a failure is counted, or the run waits longer and longer."""
    ending = CHILDS[name]
    state = {"completed": "completed", "failed": "failed", "paused": "paused"}.get(ending.outcome, "queued")
    end = End(died=False, started=True, outcome={"code": ending.outcome, "state": state})
    costs_something(await world.walk(end, ending=ending))


@pytest.mark.weather("H4")
def test_every_reason_of_an_interrupt_has_its_cost() -> None:
    """One that is new has to be thought of here, and in the table of `nbjobs.attempts`."""
    walked = {"stopping", "waiting", "isolating", "not_found", "lease_lost", "child_died", "worker_died"}
    no_code = {"not_accepted", "other_python"}  # words for two cases of `not_found`
    assert set(phrases._AFTER) - {"error", "exception", "deploy", "no_progress"} == walked | no_code


@pytest.mark.weather("H4")
def test_runs_that_were_there_twice_when_a_nursery_died_go_one_at_a_time() -> None:
    """The others are no matter of theirs; from the third time on they are blamed, until they have ended."""
    suspects = Suspects()
    for times in (1, 2, 3):
        for run in ("a", "b"):
            assert suspects.blames(run) == (times > 3)
            suspects.add(run)
        suspects.begin("a")
        assert suspects.puts_off("b") == (times >= 2)
        assert not suspects.puts_off("a") and not suspects.puts_off("c")
        suspects.end("a")
        assert not suspects.puts_off("b")
    assert suspects.blames("a") and suspects.blames("b")
    suspects.clear("a")
    assert not suspects.blames("a")
