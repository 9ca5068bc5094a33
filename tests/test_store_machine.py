"""Scripts and a model of a run, driven together by Hypothesis."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nbjobs import connection
from nbjobs.calls import Call, Calls, Commit
from nbjobs.settings import NbJobs
from nbjobs.store import Store

from .model import CLOCK, Model, counted_scripts, differences
from .support import RedisServer

EXAMPLES = int(os.environ.get("NBJOBS_TEST_EXAMPLES", "60"))
RUN = "r1"
OWNERS = ("w1:a", "w1:b", "w2:c", "w3:d")
LEASE = 40  # calls
NAMED = ("enqueue", "claim", "commit", "finish", "control", "reopen")  # renew prolongs, the sweeper's lapse looks
EVENTS = st.lists(
    st.tuples(st.sampled_from("spo"), st.sampled_from(["job.step", "job.progress", "own"]), st.just("{}")), max_size=3
)
STEPS = st.lists(st.tuples(st.just('{"name":"a"}'), st.sampled_from(["", "1", '"é"'])), max_size=2)


class Runs(RuleBasedStateMachine):
    """One run and all that may happen to it: the right calls, wrong ones, and each of them sent again."""

    server: RedisServer

    @initialize(queued=st.sampled_from([True, True, True, False]))
    def begin(self, queued: bool) -> None:
        self.client = connection.sync_client(self.server.url)
        self.client.flushall()
        limits = NbJobs(lease=LEASE / 1000, renew=0.01, max_crashes=2, crash_wait=[0.0, 0.02, 0.06], run_events=1000)
        self.store = Store(self.client, "ada", limits)
        self.calls: Calls = self.store.calls
        self.model = Model()
        self.sent: list[Call] = []
        self.marks = (0, 0, 0)
        if queued:
            self.enqueue(delay=None, args="[]")

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.client.close()

    def do(self, call: Call) -> None:
        """Send a call to both; they must answer alike."""
        self.sent.append(call)
        reply = self.store.send(call)
        expected = self.model.apply(call.script, list(call.args), reply.now)
        assert reply.code == expected, (call.script, call.args[4:], reply, expected)
        for name in ("state", "c", "n", "attempt", "at", "control", "fence", "crashes"):
            if reply.code != "GONE":
                assert getattr(reply, name) == self.model.fields[name], (name, call.script, reply)

    def get(self, name: str) -> int:
        return int(self.model.fields.get(name, 0))

    @property
    def holder(self) -> str:
        return str(self.model.fields.get("owner", "")) or OWNERS[0]

    # -- what may happen ---------------------------------------------------------------------------

    @rule(delay=st.sampled_from([None, 10, 100]), args=st.sampled_from(["[]", "[]", "[1]"]))
    def enqueue(self, delay: int | None, args: str) -> None:
        self.do(self.calls.enqueue(RUN, {"job": "m.f", "args": args, "kind": "sync"}, "{}", delay_ms=delay))

    @rule(owner=st.sampled_from(OWNERS), off=st.sampled_from([1, 1, 1, 1, 0, 2]))
    def claim(self, owner: str, off: int) -> None:
        self.do(self.calls.claim(RUN, f"{owner}{self.get('attempt')}", self.get("attempt") + off, "{}"))

    @rule(
        stale=st.sampled_from([False] * 5 + [True]),
        off=st.sampled_from([1] * 6 + [0, 2]),
        seen=st.sampled_from([0, 0, 0, -1]),
        moved=st.booleans(),
        cursor=st.sampled_from(["", "5", "[1,2]"]),
        steps=STEPS,
        events=EVENTS,
    )
    def commit(
        self,
        stale: bool,
        off: int,
        seen: int,
        moved: bool,
        cursor: str,
        steps: list[tuple[str, str]],
        events: list[tuple[str, str, str]],
    ) -> None:
        owner = "w9:gone" if stale else self.holder
        self.do(self.calls.commit(RUN, owner, self.checkpoint(off, seen, moved, cursor, steps, events)))

    def checkpoint(
        self,
        off: int,
        seen: int,
        moved: bool,
        cursor: str,
        steps: list[tuple[str, str]],
        events: list[tuple[str, str, str]],
    ) -> Commit:
        c = self.get("c") + off
        n = self.get("n") + seen
        return Commit(c, n, f"view {c}", moved, "step", cursor, 5 if cursor else None, 10, steps, events)

    @rule(owner=st.sampled_from(["", "w9:gone"]))
    def renew(self, owner: str) -> None:
        self.do(self.calls.renew(RUN, owner or self.holder))

    @rule(
        outcome=st.sampled_from(["completed", "failed", "paused", "released", "released", "retrying"]),
        wait=st.sampled_from([0, 30]),
        failed=st.booleans(),
        by=st.sampled_from(["child", "child", "worker", "stale"]),
        off=st.sampled_from([1, 1, 1, 1, 2]),
        events=EVENTS,
    )
    def finish(
        self, outcome: str, wait: int, failed: bool, by: str, off: int, events: list[tuple[str, str, str]]
    ) -> None:
        last = self.checkpoint(off, 0, True, "7", [], events) if by != "worker" else None
        self.do(
            self.calls.finish(
                RUN,
                "w9:gone" if by == "stale" else self.holder,
                outcome,
                wait_ms=wait,
                failed=failed,
                result="1",
                error="",
                d="{}",
                commit=last,
                events=events if last is None else (),
            )
        )

    @rule(owner=st.sampled_from(["holder", "holder", "", "", "w9:gone"]))
    def lapse(self, owner: str) -> None:
        self.do(self.calls.lapse(RUN, self.holder if owner == "holder" else owner, "{}"))

    @rule(
        op=st.sampled_from(["cancel", "now", "pause", "pause", "unpause", "unpause", "accept", "restart"]),
        behind=st.sampled_from([0, 0, 0, 1, 3]),
    )
    def control(self, op: str, behind: int) -> None:
        self.do(self.calls.control(RUN, op, max(0, self.get("n") - behind), "{}"))

    @rule(behind=st.sampled_from([0, 0, 2]), first=st.sampled_from([None, 1, 2]))
    def reopen(self, behind: int, first: int | None) -> None:
        self.do(self.calls.reopen(RUN, max(0, self.get("n") - behind), first, "{}"))

    @rule(calls=st.sampled_from([1, LEASE // 2, LEASE * 2]))
    def time_passes(self, calls: int) -> None:
        self.client.incrby(CLOCK, calls)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_an_old_call_again(self, data: st.DataObject) -> None:
        self.do(data.draw(st.sampled_from(self.sent[-12:])))

    @precondition(lambda self: self.sent and self.sent[-1].script in NAMED)
    @rule()
    def the_answer_was_lost(self) -> None:
        """The last call, sent again byte for byte, changes nothing."""
        before = self.picture()
        self.do(self.sent[-1])
        assert self.picture() == before, f"{self.sent[-1].script} sent again has changed the run"

    def picture(self) -> object:
        keys = self.calls.keys
        return self.client.hgetall(keys.run(RUN)), self.client.xrange(keys.events(RUN))

    # -- what always holds -------------------------------------------------------------------------

    @invariant()
    def redis_is_as_the_model(self) -> None:
        if hasattr(self, "model"):
            found = differences(self.client, self.calls.keys, RUN, self.model)
            assert not found, "\n".join([self.sent[-1].script if self.sent else "", *found])

    @invariant()
    def nothing_falls(self) -> None:
        if hasattr(self, "model"):
            marks = (self.get("fence"), self.get("c"), self.get("n"))
            assert all(new >= old for new, old in zip(marks, self.marks, strict=True)), (marks, self.marks)
            self.marks = marks


@pytest.fixture
def _counted(redis_client: redis.Redis, redis_server: RedisServer) -> Iterator[None]:
    Runs.server = redis_server
    with counted_scripts():
        yield
    redis_client.flushall()


@pytest.mark.usefixtures("_counted")
def test_scripts_do_what_the_model_does() -> None:
    """Whatever is sent, in whatever order and how often, Redis and a model of the run agree on all of it."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Runs,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        ),
    )
