"""Scripts and a model of a run, driven together by Hypothesis."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nbjobs import connection
from nbjobs.calls import Call, Calls, Commit
from nbjobs.settings import NbJobs
from nbjobs.store import Store

from .model import CLOCK, END, Model, counted_scripts, differences
from .support import RedisServer

EXAMPLES = os.environ.get("NBJOBS_TEST_EXAMPLES", "")  # that many, random ones; else the same few each time
RUN = "r1"
FIELDS = {"job": "m.f", "args": "[]", "kind": "sync"}
OWNERS = ("w1:a", "w1:b", "w2:c", "w3:d")
LEASE = 40  # calls
NAMED = ("enqueue", "claim", "commit", "finish", "control", "reopen")  # renew prolongs, the sweeper's lapse looks
EVENTS = st.lists(
    st.tuples(st.sampled_from("spo"), st.sampled_from(["job.step", "job.progress", "own"]), st.just("{}")), max_size=3
)
CURSORS = st.sampled_from(["", "5", "[1,2]"])
OUTCOMES = st.sampled_from(["completed", "failed", "paused", *["released"] * 3, *["retrying"] * 3])
WRONG = ["enqueue", "claim", "commit", "order", "renew", "finish", "finish order", "lapse", "control", "reopen"]
STEPS = st.lists(st.tuples(st.just('{"name":"a"}'), st.sampled_from(["", "1", '"é"'])), max_size=2)
RESULTS = st.lists(
    st.tuples(st.sampled_from(["1", "2", "1:0", "1:0", "1:7", "2:1", "3:0"]), st.sampled_from(["a", "1", '"é"'])),
    max_size=3,
)


class Runs(RuleBasedStateMachine):
    """One run and all that may happen to it: the right calls, wrong ones, and each of them sent again."""

    server: RedisServer

    @initialize(delay=st.sampled_from([None, None, 20]))
    def begin(self, delay: int | None) -> None:
        self.client = connection.sync_client(self.server.url)
        self.client.flushall()
        limits = NbJobs(lease=LEASE / 1000, renew=0.01, max_crashes=2, crash_wait=[0.0, 0.02, 0.06], run_events=1000)
        self.store = Store(self.client, "ada", limits)
        self.calls: Calls = self.store.calls
        self.model = Model()
        self.sent: list[Call] = []
        self.marks = (0, 0, 0)
        self.was_done = False
        self.do(self.calls.enqueue(RUN, FIELDS, "{}", delay_ms=delay))

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.client.close()

    def do(self, call: Call) -> None:
        """Send a call to both; they must answer alike."""
        self.sent.append(call)
        reply = self.store.send(call)
        self.was_done = reply.ok
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

    @property
    def is_held(self) -> bool:
        return bool(self.model.fields.get("owner"))

    @property
    def is_free(self) -> bool:
        return not self.is_held and self.model.fields.get("state") not in (*END, "paused")

    def checkpoint(self, off: int = 1, seen: int = 0, **given: Any) -> Commit:
        c = self.get("c") + off
        return Commit(c, self.get("n") + seen, **{"view": f"view {c}", "step": "step", "total": 10, **given})

    # -- what may happen ---------------------------------------------------------------------------

    @precondition(lambda self: self.is_free)
    @rule(owner=st.sampled_from(OWNERS), told=st.sampled_from([{}, {}, FIELDS, {**FIELDS, "kind": "async"}]))
    def claim(self, owner: str, told: dict[str, str]) -> None:
        self.do(self.calls.claim(RUN, f"{owner}{self.get('attempt')}", self.get("attempt") + 1, "{}", told=told))

    @precondition(lambda self: self.is_held)
    @rule(
        seen=st.sampled_from([0, 0, 0, -1]), moved=st.booleans(), cursor=CURSORS, what=st.tuples(STEPS, EVENTS, RESULTS)
    )
    def commit(self, seen: int, moved: bool, cursor: str, what: tuple[Any, Any, Any]) -> None:
        given = dict(zip(("ended", "events", "results"), what, strict=True))
        last = self.checkpoint(seen=seen, moved=moved, cursor=cursor, **given)
        self.do(self.calls.commit(RUN, self.holder, last))

    @precondition(lambda self: self.is_held)
    @rule()
    def renew(self) -> None:
        self.do(self.calls.renew(RUN, self.holder))

    @precondition(lambda self: self.is_held)
    @rule(
        outcome=OUTCOMES,
        wait=st.sampled_from([0, 30]),
        failed=st.booleans(),
        child=st.booleans(),
        what=st.tuples(EVENTS, RESULTS),
    )
    def finish(self, outcome: str, wait: int, failed: bool, child: bool, what: tuple[Any, Any]) -> None:
        events, results = what
        whole = self.checkpoint(moved=True, cursor="7", events=events, results=results)
        last = {"commit": whole} if child else {"events": events}
        given: dict[str, Any] = {"wait_ms": wait, "failed": failed, "result": "1", "error": "e", **last}
        self.do(self.calls.finish(RUN, self.holder, outcome, d="{}", **given))

    @precondition(lambda self: self.is_held)
    @rule()
    def die(self) -> None:
        self.do(self.calls.lapse(RUN, self.holder, "{}"))

    @rule()
    def sweep(self) -> None:
        self.do(self.calls.lapse(RUN, "", "{}"))

    @rule(op=st.sampled_from(["cancel", "now", *["pause", "unpause"] * 3, "accept", "restart"]))
    def control(self, op: str) -> None:
        self.do(self.calls.control(RUN, op, self.get("n"), "{}"))

    @precondition(lambda self: self.model.fields.get("state") in END)
    @rule(first=st.sampled_from([None, 1, 2]))
    def reopen(self, first: int | None) -> None:
        self.do(self.calls.reopen(RUN, self.get("n"), first, "{}"))

    @rule(call=st.sampled_from(WRONG), data=st.data())
    def somebody_is_wrong(self, call: str, data: st.DataObject) -> None:
        """A stale owner, a number or attempt that is not the next one, a caller who is behind."""
        behind = max(0, self.get("n") - data.draw(st.sampled_from([1, 3])))
        stale = data.draw(st.sampled_from([*OWNERS, *{call.args[4] for call in self.sent if call.script == "claim"}]))
        wrong = self.checkpoint(data.draw(st.sampled_from([-1, 0, 2])), moved=True, cursor="9")
        calls = self.calls
        self.do(
            {
                "enqueue": lambda: calls.enqueue(RUN, {**FIELDS, "args": "[1]"}, "{}"),
                "claim": lambda: calls.claim(RUN, "w7:x", self.get("attempt") + data.draw(st.sampled_from([0, 1, 2]))),
                "commit": lambda: calls.commit(RUN, stale, self.checkpoint(moved=True, cursor="9")),
                "order": lambda: calls.commit(RUN, self.holder, wrong),
                "renew": lambda: calls.renew(RUN, stale),
                "finish": lambda: calls.finish(RUN, stale, "completed", commit=self.checkpoint()),
                "finish order": lambda: calls.finish(RUN, self.holder, "completed", commit=wrong),
                "lapse": lambda: calls.lapse(RUN, stale, "{}"),
                "control": lambda: calls.control(RUN, "pause", behind),
                "reopen": lambda: calls.reopen(RUN, behind),
            }[call]()
        )

    @rule(calls=st.sampled_from([1, LEASE // 2, LEASE * 2]))
    def time_passes(self, calls: int) -> None:
        self.client.incrby(CLOCK, calls)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_an_old_call_again(self, data: st.DataObject) -> None:
        self.do(data.draw(st.sampled_from(self.sent[-12:])))

    @precondition(lambda self: self.was_done and self.sent[-1].script in NAMED)
    @rule()
    def the_answer_was_lost(self) -> None:
        """The last call, if it was done, changes nothing when it is sent again byte for byte."""
        before = self.picture()
        self.do(self.sent[-1])
        assert self.picture() == before, f"{self.sent[-1].script} sent again has changed the run"

    def picture(self) -> object:
        keys = self.calls.keys
        maps = {key: self.client.hgetall(key) for key in self.client.scan_iter(f"{keys.run(RUN)}:map:*")}
        return self.client.hgetall(keys.run(RUN)), self.client.xrange(keys.events(RUN)), maps

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
            max_examples=int(EXAMPLES or 80),
            derandomize=not EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        ),
    )
