"""The eight scripts, one after the other: what each does, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from nbjobs.calls import ClaimReply, Commit, Reply
from nbjobs.event import decode
from nbjobs.settings import NbJobs
from nbjobs.store import Store

from .model import CLOCK, counted_scripts
from .support import snapshot

RUN = "r1"
OWNER = "w1:a"
FIELDS = {"job": "m.f", "args": "[[],{}]", "kind": "sync", "queue": "q"}
SECOND = 1000
END = ("completed", "failed", "cancelled", "dead")


class Story:
    """A run on its way, and what Redis holds of it."""

    def __init__(self, store: Store, client: redis.Redis) -> None:
        self.store = store
        self.client = client
        self.keys = store.keys

    def queued(self) -> Reply:
        return self.store.enqueue(RUN, FIELDS, '{"p":1}')

    def running(self, owner: str = OWNER) -> ClaimReply:
        if self.field("state") == "":
            self.queued()
        reply = self.store.claim(RUN, owner, int(self.field("attempt")) + 1, "{}")
        assert reply.code == "OK", reply
        return reply

    def committed(self, c: int = 1, **given: Any) -> Reply:
        reply = self.store.commit(RUN, OWNER, checkpoint(c, self.n, **given))
        assert reply.code == "OK", reply
        return reply

    def ended(self, outcome: str = "failed") -> Reply:
        if not self.field("owner"):
            self.running()
        return self.store.finish(RUN, OWNER, outcome, d="{}")

    def field(self, name: str) -> str:
        return str(self.client.hget(self.keys.run(RUN), name) or "")

    @property
    def n(self) -> int:
        return int(self.field("n"))

    @property
    def due(self) -> float | None:
        return self.client.zscore(self.keys.due, RUN)

    def names(self) -> list[str]:
        return [entry["e"] for _, entry in self.client.xrange(self.keys.events(RUN))]

    def last(self) -> dict[str, str]:
        return dict(self.client.xrevrange(self.keys.events(RUN), count=1)[0][1])

    def picture(self) -> dict[str, Any]:
        return snapshot(self.client)


def checkpoint(c: int, n_seen: int, **given: Any) -> Commit:
    usual = {"view": f"view {c}", "moved": True, "step": "rows", "cursor": str(c), "done": c, "total": 9}
    return Commit(c, n_seen, **{**usual, **given})


@pytest.fixture
def story(store: Store, redis_client: redis.Redis) -> Story:
    return Story(store, redis_client)


@pytest.fixture
def counted(redis_client: redis.Redis, redis_url: str) -> Any:
    """Redis time is the number of calls; a function lets ms pass."""
    with counted_scripts():
        yield lambda ms: redis_client.incrby(CLOCK, ms)


# -- enqueue ---------------------------------------------------------------------------------------


def test_enqueue_stores_the_run_and_its_first_event(story: Story) -> None:
    """A new run is queued, with n = 1, in runs and in due; its event is in both streams."""
    reply = story.queued()
    assert (reply.code, reply.state, reply.n, reply.attempt, reply.at) == ("OK", "queued", 1, 0, 0)
    stored = story.store.read_all(RUN)
    assert {name: stored[name] for name in FIELDS} == FIELDS
    assert (stored["v"], stored["c"], stored["view_id"]) == ("1", "0", "0-0")
    entry = {"e": "job.enqueued", "id": RUN, "a": "0", "d": '{"p":1}', "n": "1", "s": "queued", "at": "0", "k": "0"}
    assert story.last() == entry
    assert [entry for _, entry in story.client.xrange(story.keys.user_events)] == [entry]
    assert story.due == reply.now + 60 * SECOND
    assert story.client.zscore(story.keys.runs, RUN) == reply.now


def test_enqueue_tells_sweepers_of_the_user_first(story: Story) -> None:
    """The user's sign is there even if the run alone arrives, so the run is found."""
    call = story.store.calls.enqueue(RUN, FIELDS, "{}", queue="q")
    assert [command[0] for command in call.before] == ["ZADD"]
    assert call.before[0][1] == "nbjobs:users"
    reply = story.store.send(call)
    assert abs(story.client.zscore("nbjobs:users", "ada") - reply.now) < 5 * SECOND


@pytest.mark.parametrize("when", ["at_ms", "delay_ms"])
def test_enqueue_for_later_is_scheduled(story: Story, when: str) -> None:
    """A run with a time to come is scheduled and looked at then; it has no entry in arq's queue."""
    now = story.queued().now
    wanted = {"at_ms": now + 90 * SECOND} if when == "at_ms" else {"delay_ms": 90 * SECOND}
    reply = story.store.enqueue("later", FIELDS, "{}", queue="q", **wanted)  # type: ignore[arg-type]
    assert (reply.state, reply.n) == ("scheduled", 1)
    assert reply.at == pytest.approx(now + 90 * SECOND, abs=5 * SECOND)
    assert story.client.zscore(story.keys.due, "later") == reply.at
    assert not story.client.exists("arq:queue:q")
    assert story.store.claim("later", OWNER, 1).code == "EARLY"


def test_enqueue_for_a_time_that_is_over_is_queued(story: Story) -> None:
    """A start time in the past means at once."""
    assert story.store.enqueue(RUN, FIELDS, at_ms=5).state == "queued"


def test_enqueue_knows_its_own_run_again(story: Story) -> None:
    """The same id with the same job and arguments answers AGAIN and the run as it stands, else EXISTS."""
    story.running()
    before = story.picture()
    again = story.store.enqueue(RUN, {**FIELDS, "tags": "other"}, "{}")
    assert (again.code, again.state, again.n) == ("AGAIN", "running", 2)
    assert story.store.enqueue(RUN, {**FIELDS, "args": "[[1],{}]"}).code == "EXISTS"
    assert story.store.enqueue(RUN, {**FIELDS, "job": "m.g"}).code == "EXISTS"
    after = story.picture()
    assert {**after, "nbjobs:users": None} == {**before, "nbjobs:users": None}


def test_enqueue_removes_what_an_expired_run_left(story: Story) -> None:
    """Streams that outlived their run's hash do not become part of a new run of that id."""
    story.queued()
    story.client.xadd(story.keys.log(RUN), {"line": "old"})
    story.client.delete(story.keys.run(RUN))
    story.queued()
    assert story.names() == ["job.enqueued"]
    assert not story.client.exists(story.keys.log(RUN))


# -- claim -----------------------------------------------------------------------------------------


def test_claim_takes_the_run(story: Story) -> None:
    """The owner holds the run for a lease; attempt and fence rise; the answer says where to go on."""
    story.queued()
    reply = story.running()
    assert (reply.state, reply.attempt, reply.n, reply.steps, reply.resumptions) == ("running", 1, 2, 0, 0)
    assert (reply.step, reply.cursor, reply.done, reply.total) == ("", "", None, None)
    assert reply.fence == reply.now
    assert story.field("owner") == OWNER
    assert story.due == int(story.field("lease_until")) == reply.now + 15 * SECOND
    assert story.last()["e"] == "job.started"
    assert reply.last_id == story.field("last_id")


def test_claim_after_progress_is_a_resumption(story: Story) -> None:
    """An attempt that begins with an ended step or a cursor counts as resumed and is told both."""
    story.running()
    story.committed(ended=[('{"name":"prepare"}', "7")])
    story.store.lapse(RUN, OWNER, "{}")
    reply = story.running("w2:b")
    assert (reply.step, reply.cursor, reply.done, reply.total) == ("rows", "1", 1, 9)
    assert (reply.steps, reply.resumptions, reply.c, reply.crashes) == (1, 1, 1, 1)
    assert story.store.read(RUN, "s:1", "v:1") == ['{"name":"prepare"}', "7"]


def test_claim_without_progress_is_no_resumption(story: Story) -> None:
    """A second attempt that has nothing to go on from does not count as resumed."""
    story.running()
    story.store.lapse(RUN, OWNER, "{}")
    assert story.running("w2:b").resumptions == 0


def test_fence_rises_with_every_claim(story: Story, counted: Callable[[int], None]) -> None:
    """A later holder has a higher fence, even where Redis' clock fell back."""
    counted(10_000)
    first = story.running()
    story.store.lapse(RUN, OWNER, "{}")
    story.client.set(CLOCK, 5)
    second = story.store.claim(RUN, "w2:b", 2)
    assert second.now < first.now
    assert second.fence == first.fence + 1


def test_claim_refuses(story: Story) -> None:
    """A run that is held, has ended, is paused or is at another attempt is not handed out."""
    story.queued()
    assert story.store.claim(RUN, OWNER, 2).code == "ATTEMPT"
    assert story.store.claim(RUN, OWNER, 0).code == "ATTEMPT"
    story.running()
    assert story.store.claim(RUN, "w2:b", 2).code == "HELD"
    story.store.finish(RUN, OWNER, "paused")
    assert story.store.claim(RUN, "w2:b", 2).code == "PAUSED"
    story.store.control(RUN, "cancel", story.n)
    assert story.store.claim(RUN, "w2:b", 2).code == "ENDED"
    assert story.field("attempt") == "1"


def test_claim_refuses_a_run_that_is_another_than_was_told(story: Story) -> None:
    """Who has not read the run says what it takes it for; where a field is otherwise or missing, nothing happens."""
    story.queued()
    before = story.client.hgetall(story.keys.run(RUN))
    for told in ({"job": "m.g"}, {**FIELDS, "queue": "p"}, {**FIELDS, "code": ""}):
        assert story.store.claim(RUN, OWNER, 1, "x" * 20_000, told=told).code == "OTHER"
    assert story.client.hgetall(story.keys.run(RUN)) == before
    reply = story.store.claim(RUN, OWNER, 1, told={**FIELDS, "v": "1"})
    assert (reply.code, reply.args) == ("OK", FIELDS["args"])
    assert story.store.claim(RUN, OWNER, 1, told={"job": "m.g"}).code == "AGAIN"
    assert story.store.claim("r2", OWNER, 1, told=FIELDS).code == "GONE"


# -- commit ----------------------------------------------------------------------------------------


def test_commit_stores_everything_together(story: Story) -> None:
    """Cursor, steps, events, view and lease are there after one call; the view knows its place in the stream."""
    story.running()
    events = [("s", "job.step", '{"a":1}'), ("p", "job.progress", '{"b":2}'), ("o", "mine", '{"c":3}')]
    reply = story.committed(ended=[("meta", "1"), ("meta2", "")], events=events)
    assert (reply.c, reply.n, reply.state) == (1, 3, "running")
    stored = story.store.read_all(RUN)
    expected = {"c": "1", "step": "rows", "cursor": "1", "done": "1", "total": "9", "steps": "2", "bytes": "1"}
    assert {name: stored[name] for name in expected} == expected
    assert [stored[name] for name in ("s:1", "v:1", "s:2", "v:2")] == ["meta", "1", "meta2", ""]
    assert (stored["view"], stored["view_id"]) == ("view 1", stored["last_id"])
    assert story.due == int(stored["lease_until"]) == reply.now + 15 * SECOND
    entries = [entry for _, entry in story.client.xrange(story.keys.events(RUN))][2:]
    assert [(entry["e"], entry["d"], entry.get("n")) for entry in entries] == [
        ("job.step", '{"a":1}', "3"),
        ("job.progress", '{"b":2}', None),
        ("mine", '{"c":3}', None),
    ]
    assert [entry["e"] for _, entry in story.client.xrange(story.keys.user_events)][2:] == ["job.step"]


def test_commit_is_refused_whole(story: Story) -> None:
    """Another owner, and any number but the next one, change nothing: no cursor, no event, no view, no lease."""
    story.running()
    story.committed()
    before = story.picture()
    events = [("s", "job.step", "{}")]
    assert story.store.commit(RUN, "w2:b", checkpoint(2, 2, events=events)).code == "FENCED"
    assert story.store.commit(RUN, "w2:b", checkpoint(1, 2, events=events)).code == "FENCED"
    assert story.store.commit(RUN, OWNER, checkpoint(3, 2, events=events)).code == "ORDER"
    assert story.store.commit(RUN, OWNER, checkpoint(0, 2, events=events)).code == "ORDER"
    assert story.picture() == before


def test_commit_sent_again_changes_nothing(story: Story) -> None:
    """Where the answer was lost, the same commit answers AGAIN and the run as it stands."""
    story.running()
    commit = checkpoint(1, 2, ended=[("meta", "1")], events=[("s", "job.step", "{}")])
    story.store.commit(RUN, OWNER, commit)
    before = story.picture()
    again = story.store.commit(RUN, OWNER, commit)
    assert (again.code, again.c, again.n) == ("AGAIN", 1, 3)
    assert story.picture() == before


def test_commit_of_many_values_can_be_sent_again(story: Story) -> None:
    """A commit that was stored is not refused as too big when it comes again, though its bytes now count twice."""
    story.running()
    commit = checkpoint(1, 2, ended=[("meta", "x" * 65_536)] * 40)
    assert story.store.commit(RUN, OWNER, commit).code == "OK"
    assert story.store.commit(RUN, OWNER, commit).code == "AGAIN"
    assert story.store.commit(RUN, OWNER, checkpoint(2, 2, ended=[("meta", "x" * 65_536)] * 40)).detail == "values"


def test_commit_keeps_the_old_view_where_another_has_written(story: Story) -> None:
    """A control between two commits makes the child's view a lie: the stored one stays, until the child knows."""
    story.running()
    story.committed(1)
    story.store.control(RUN, "pause", story.n, "{}")
    reply = story.store.commit(RUN, OWNER, checkpoint(2, 2, events=[("s", "job.step", "{}")]))
    assert (reply.code, reply.control, reply.state, reply.n) == ("OK", "pause", "pausing", 4)
    assert (story.field("view"), story.field("cursor")) == ("view 1", "2")
    assert story.last()["s"] == "pausing"
    story.store.commit(RUN, OWNER, checkpoint(3, reply.n))
    assert story.field("view") == "view 3"
    assert story.field("view_id") == story.field("last_id")


def test_commit_takes_crashes_back_only_where_something_moved(story: Story) -> None:
    """Progress sets crashes to 0; a commit without progress, such as a step's beginning, does not."""
    story.running()
    story.store.lapse(RUN, OWNER, "{}")
    story.running()
    assert story.committed(1, moved=False).crashes == 1
    assert story.committed(2, moved=True).crashes == 0


# -- renew -----------------------------------------------------------------------------------------


def test_renew_prolongs_the_lease(story: Story, counted: Callable[[int], None]) -> None:
    """The holder's sign moves the lease and the time of the next look; it answers what is asked of it."""
    first = story.running()
    counted(10_000)
    story.store.control(RUN, "cancel", story.n)
    reply = story.store.renew(RUN, OWNER)
    assert (reply.code, reply.control, reply.state) == ("OK", "cancel", "cancelling")
    assert reply.now > first.now + 10_000
    assert story.due == int(story.field("lease_until")) == reply.now + 15 * SECOND
    counted(14_000)
    assert story.store.lapse(RUN).code == "HELD"


def test_renew_by_another_owner_is_refused(story: Story) -> None:
    """Only the holder can prolong a lease; neither another nor its predecessor."""
    story.running()
    before = story.picture()
    assert story.store.renew(RUN, "w2:b").code == "FENCED"
    assert story.picture() == before
    story.store.lapse(RUN, OWNER, "{}")
    assert story.store.renew(RUN, OWNER).code == "FENCED"


# -- finish ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "wait", "state", "event", "looked_at"),
    [
        ("completed", 0, "completed", "job.completed", None),
        ("failed", 0, "failed", "job.failed", None),
        ("paused", 0, "paused", "job.interrupt", None),
        ("released", 0, "queued", "job.interrupt", 5 * SECOND),
        ("retrying", 0, "queued", "job.retry_scheduled", 5 * SECOND),
        ("retrying", 7000, "retrying", "job.retry_scheduled", 7000),
    ],
)
@pytest.mark.parametrize("control", ["", "pause", "cancel", "now"])
def test_finish_ends_the_attempt(
    story: Story, outcome: str, wait: int, state: str, event: str, looked_at: int | None, control: str
) -> None:
    """A body that ended has ended; every other outcome yields to a cancel or pause that came meanwhile."""
    story.running()
    if control:
        story.store.control(RUN, control, story.n)
    if control and outcome not in ("completed", "failed"):
        state = "paused" if control == "pause" else "cancelled"
        event, looked_at, wait = "job.interrupt" if control == "pause" else "job.cancelled", None, 0
    given_wait = 7000 if wait else 0
    reply = story.store.finish(RUN, OWNER, outcome, wait_ms=given_wait, failed=True, result="1", error="e", d="{}")
    assert (reply.code, reply.state, reply.control) == ("OK", state, "")
    assert (story.last()["e"], story.last()["s"]) == (event, state)
    assert story.due == (None if looked_at is None else reply.now + looked_at)
    assert reply.at == (reply.now + wait if state == "retrying" else 0)
    read = story.store.read(RUN, "owner", "last_owner", "failures", "result", "error")
    assert read == ["", OWNER, "1", "1", "e"]
    assert (story.client.ttl(story.keys.run(RUN)) > 0) == (state in END)


def test_finish_carries_the_last_commit(story: Story) -> None:
    """The last checkpoint, its events and the end are one call; the view covers all events but the closing one."""
    story.running()
    last = checkpoint(1, 2, ended=[("meta", "1")], events=[("s", "job.step", "{}")])
    reply = story.store.finish(RUN, OWNER, "completed", d="{}", commit=last)
    assert (reply.c, reply.n) == (1, 4)
    assert story.names()[-2:] == ["job.step", "job.completed"]
    ids = [id for id, _ in story.client.xrange(story.keys.events(RUN))]
    assert (story.field("view"), story.field("view_id"), story.field("last_id")) == ("view 1", ids[-2], ids[-1])


def test_finish_of_a_worker_carries_events_but_no_checkpoint(story: Story) -> None:
    """A worker that ends a run for its child adds events; cursor, view and c stay the child's."""
    story.running()
    story.committed()
    events = [("s", "job.retry_stopped", "{}")]
    reply = story.store.finish(RUN, OWNER, "failed", d="{}", events=events)
    assert (reply.code, reply.c, reply.n) == ("OK", 1, 4)
    assert (story.field("cursor"), story.field("view")) == ("1", "view 1")
    assert story.names()[-2:] == ["job.retry_stopped", "job.failed"]


def test_finish_is_refused_whole(story: Story) -> None:
    """Another owner and a commit that is not the next one change nothing."""
    story.running()
    before = story.picture()
    assert story.store.finish(RUN, "w2:b", "completed").code == "FENCED"
    assert story.store.finish(RUN, OWNER, "completed", commit=checkpoint(2, 2)).code == "ORDER"
    assert story.store.finish(RUN, OWNER, "completed", commit=checkpoint(0, 2)).code == "ORDER"
    assert story.picture() == before


def test_finish_sent_again_changes_nothing(story: Story) -> None:
    """Where the answer was lost, the end is not written twice, though the next attempt may have begun."""
    story.running()
    finish = story.store.calls.finish(RUN, OWNER, "released", failed=True, d="{}", commit=checkpoint(1, 2))
    story.store.send(finish)
    before = story.picture()
    assert story.store.send(finish).code == "AGAIN"
    assert story.picture() == before
    story.running("w2:b")
    again = story.store.send(finish)
    assert (again.code, again.state, again.attempt) == ("AGAIN", "running", 2)
    story.store.finish(RUN, "w2:b", "released")
    assert story.store.send(finish).code == "FENCED"


def released(story: Story, **given: Any) -> Reply:
    """Claim the run, though its time may not have come, and let it go."""
    story.client.hset(story.keys.run(RUN), "at", "0")
    story.running()
    return story.store.finish(RUN, OWNER, "released", d="{}", **given)


@pytest.mark.weather("H4")
def test_a_release_without_progress_waits_longer_each_time(story: Story) -> None:
    """It is due when its wait is over, and after ten of them the run is paused, with the reason."""
    story.queued()
    waits = [0, 1000, 10_000] + [60_000] * 7
    for wait in waits:
        reply = released(story)
        assert (reply.state, reply.at) == (("retrying", reply.now + wait) if wait else ("queued", 0))
        assert story.due == reply.now + (wait or 5 * SECOND)
        assert story.last()["e"] == "job.interrupt"
    assert released(story).state == "paused"
    assert story.due is None
    assert story.names()[-2:] == ["job.interrupt", "job.paused"]
    assert decode("", story.last()["d"]).payload == {"reason": "no_progress"}


@pytest.mark.weather("H4")
@pytest.mark.parametrize("op", ["unpause", "accept", "restart"])
def test_what_its_owner_decides_begins_the_count_anew(story: Story, op: str) -> None:
    """So does progress; a release that something else bounds is not counted."""
    story.queued()
    for _ in range(11):
        reply = released(story)
    assert story.store.control(RUN, op, reply.n).state == "queued"
    assert [released(story).state for _ in range(2)] == ["queued", "retrying"]
    assert released(story, bounded=True).state == "queued"
    last = checkpoint(int(story.field("c")) + 1, story.n, moved=True)
    assert released(story, commit=last).state == "queued"


@pytest.mark.weather("H4")
def test_a_retry_of_its_owner_begins_the_count_anew(story: Story) -> None:
    """As it does that of the crashes."""
    story.queued()
    for _ in range(5):
        released(story)
    story.client.hset(story.keys.run(RUN), "at", "0")
    assert story.ended("failed").state == "failed"
    story.store.reopen(RUN, story.n)
    assert released(story).state == "queued"


def test_end_states_absorb(story: Story) -> None:
    """Nothing but reopen leads out of an end."""
    story.ended("completed")
    before = story.picture()
    story.store.commit(RUN, OWNER, checkpoint(1, 3))
    story.store.renew(RUN, OWNER)
    story.store.finish(RUN, OWNER, "failed")
    story.store.lapse(RUN, OWNER)
    story.store.lapse(RUN)
    for op in ("cancel", "now", "pause", "unpause", "accept", "restart"):
        assert story.store.send(story.store.calls.control(RUN, op, 99)._replace(before=())).code == "ENDED"
    assert story.store.send(story.store.calls.claim(RUN, "w2:b", 2)._replace(before=())).code == "ENDED"
    assert story.picture() == before


def test_ended_runs_leave_nothing_for_ever(story: Story) -> None:
    """The keys of an ended run have a TTL, its stream is short, and nobody looks at it again."""
    story.running()
    story.client.xadd(story.keys.log(RUN), {"line": "x"})
    for c in range(1, 9):
        story.committed(c, events=[("o", "own", "{}")] * 100)
    reply = story.ended("completed")
    kept = 7 * 86_400 * SECOND
    for key in (story.keys.run(RUN), story.keys.events(RUN), story.keys.log(RUN)):
        assert story.client.pttl(key) == pytest.approx(kept, abs=10 * SECOND)
    assert 200 <= story.client.xlen(story.keys.events(RUN)) <= 300
    assert story.due is None
    assert story.client.zscore(story.keys.runs, RUN) == reply.now


# -- lapse -----------------------------------------------------------------------------------------


def test_lapse_of_the_owner_queues_the_run_at_once(story: Story) -> None:
    """A holder that is known to be gone costs no lease: the interrupt is told, the crash counted, the run queued."""
    story.running()
    reply = story.store.lapse(RUN, OWNER, '{"p":{"reason":"child_died"}}')
    assert (reply.code, reply.state, reply.crashes, reply.at) == ("OK", "queued", 1, 0)
    assert (story.last()["e"], story.last()["d"]) == ("job.interrupt", '{"p":{"reason":"child_died"}}')
    assert (story.field("owner"), story.field("last_owner")) == ("", OWNER)
    assert story.due == reply.now + 5 * SECOND


def test_crashes_in_a_row_wait_longer_and_end_dead(story: Story, counted: Callable[[int], None]) -> None:
    """Four starts, after 0, 10 and 60 s; then the run is dead. Each says interrupt first, then what follows."""
    story.queued()
    seen = []
    for attempt in range(1, 5):
        assert story.store.claim(RUN, OWNER, attempt).code == "OK"
        reply = story.store.lapse(RUN, OWNER, "{}")
        seen.append((reply.state, max(0, reply.at - reply.now), reply.crashes))
        counted(60_000)
    assert seen == [("queued", 0, 1), ("retrying", 10_000, 2), ("retrying", 60_000, 3), ("dead", 0, 4)]
    assert story.names()[-5:] == ["job.interrupt", "job.retry_scheduled", "job.started", "job.interrupt", "job.dead"]
    assert story.due is None
    assert story.client.ttl(story.keys.run(RUN)) > 0


def test_waits_after_crashes_end_with_the_last_one(
    redis_client: redis.Redis, store: Store, counted: Callable[[int], None]
) -> None:
    """Crashes beyond the list of waits wait as long as its last entry says."""
    store = Store(store._client, "ada", NbJobs(max_crashes=9, crash_wait=[0.0, 1.0]))
    store.enqueue(RUN, FIELDS)
    for attempt in range(1, 6):
        store.claim(RUN, OWNER, attempt)
        reply = store.lapse(RUN, OWNER)
        counted(5000)
    assert reply.at - reply.now == SECOND


@pytest.mark.parametrize(("control", "state"), [("cancel", "cancelled"), ("now", "cancelled"), ("pause", "paused")])
def test_lapse_heeds_what_was_asked(story: Story, control: str, state: str) -> None:
    """A holder that dies on its way to a stop has stopped; that is no crash."""
    story.running()
    story.store.control(RUN, control, story.n)
    reply = story.store.lapse(RUN, OWNER, "{}")
    assert (reply.state, reply.crashes, reply.control) == (state, 0, "")
    assert "job.interrupt" in story.names()[-2:]
    assert story.due is None


def test_lapse_sent_again_changes_nothing(story: Story) -> None:
    """Who takes a run back twice takes it back once; who never held it, never."""
    story.running()
    story.store.lapse(RUN, OWNER, "{}")
    before = story.picture()
    assert story.store.lapse(RUN, OWNER, "{}").code == "AGAIN"
    assert story.store.lapse(RUN, "w9:z", "{}").code == "FENCED"
    assert story.picture() == before
    story.running("w2:b")
    assert story.store.lapse(RUN, OWNER, "{}").code == "AGAIN"
    assert story.field("owner") == "w2:b"


def test_sweeper_takes_only_a_lease_that_is_over(story: Story, counted: Callable[[int], None]) -> None:
    """A look takes no run from a holder whose lease runs; afterwards it does, and counts a crash."""
    story.running()
    counted(14_900)
    held = story.store.lapse(RUN)
    assert (held.code, held.state) == ("HELD", "running")
    assert story.due == int(story.field("lease_until"))
    counted(200)
    reply = story.store.lapse(RUN, "", "{}")
    assert (reply.code, reply.state, reply.crashes) == ("OK", "queued", 1)


def test_sweeper_puts_due_right(story: Story, redis_client: redis.Redis) -> None:
    """A look at a run that nobody holds says whether an entry is wanted, and when to look again."""
    now = story.queued().now
    reply = story.store.lapse(RUN)
    assert (reply.code, story.due) == ("QUEUE", reply.now + 60 * SECOND)
    story.store.enqueue("later", FIELDS, at_ms=now + 50_000)
    redis_client.zadd(story.keys.due, {"later": 1, "lost": 1, "ended": 1, "paused": 1})
    assert story.store.lapse("later").code == "EARLY"
    assert redis_client.zscore(story.keys.due, "later") == now + 50_000
    for run, op in (("ended", "cancel"), ("paused", "pause")):
        story.store.enqueue(run, FIELDS)
        story.store.control(run, op, 1)
        redis_client.zadd(story.keys.due, {run: 1})
        assert story.store.lapse(run).code == "NONE"
    redis_client.zadd(story.keys.runs, {"lost": 1})
    assert story.store.lapse("lost").code == "GONE"
    assert set(redis_client.zrange(story.keys.due, 0, -1)) == {RUN, "later"}
    assert redis_client.zscore(story.keys.runs, "lost") is None


# -- control ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["queued", "scheduled", "retrying", "paused", "held"])
@pytest.mark.parametrize("op", ["cancel", "now", "pause", "unpause", "accept", "restart"])
def test_control_does_at_once_what_nobody_holds(story: Story, begin: str, op: str) -> None:
    """What nobody holds changes at once; a holder is asked. What changes nothing answers STATE without an event."""
    _begin(story, begin)
    n = story.n
    reply = story.store.control(RUN, op, n, "{}")
    expected = {
        ("cancel", "held"): "cancelling",
        ("now", "held"): "cancelling",
        ("pause", "held"): "pausing",
        ("unpause", "paused"): "queued",
        ("accept", "paused"): "queued",
        ("restart", "paused"): "queued",
    }
    changes = op in ("cancel", "now") or (op == "pause" and begin != "paused")
    state = expected.get((op, begin)) or ({"pause": "paused"}.get(op, "cancelled") if changes else None)
    if state is None:
        assert (reply.code, reply.n) == ("STATE", n)
        return
    assert (reply.code, reply.state, reply.n) == ("OK", state, n + 1)
    assert story.last()["s"] == state
    assert reply.control == ({"pause": "pause"}.get(op, op) if begin == "held" else "")
    assert (story.due is None) == (state in ("cancelled", "paused"))


def _begin(story: Story, state: str) -> None:
    if state == "scheduled":
        story.store.enqueue(RUN, FIELDS, delay_ms=90 * SECOND)
    else:
        story.queued()
    if state in ("held", "retrying"):
        story.running()
    if state == "retrying":
        story.store.finish(RUN, OWNER, "retrying", wait_ms=90 * SECOND)
    if state == "paused":
        story.store.control(RUN, "pause", 1)


def test_control_sent_again_changes_nothing(story: Story) -> None:
    """A call that carries an n from before the last control answers AGAIN, so no click counts twice."""
    story.running()
    for op in ("pause", "unpause"):
        control = story.store.calls.control(RUN, op, story.n, "{}")
        assert story.store.send(control).code == "OK"
        before = story.picture()
        assert story.store.send(control).code == "AGAIN"
        assert story.picture() == before


def test_pause_can_be_taken_back_and_cancel_cannot(story: Story) -> None:
    """A pausing that is taken back runs on; a cancelling can only be hurried."""
    story.running()
    story.store.control(RUN, "pause", story.n)
    reply = story.store.control(RUN, "unpause", story.n)
    assert (reply.state, reply.control) == ("running", "")
    story.store.control(RUN, "cancel", story.n)
    for op in ("cancel", "pause", "unpause", "accept"):
        assert story.store.control(RUN, op, story.n).code == "STATE"
    assert story.store.control(RUN, "now", story.n).control == "now"
    assert story.store.control(RUN, "cancel", story.n).code == "STATE"


def test_unpause_keeps_a_start_time_and_not_a_wait(story: Story) -> None:
    """A scheduled run that was paused waits for its time again; a retry begins at once."""
    at = story.store.enqueue(RUN, FIELDS, delay_ms=90 * SECOND).at
    story.store.control(RUN, "pause", 1)
    reply = story.store.control(RUN, "unpause", 2)
    assert (reply.state, reply.at, story.due) == ("scheduled", at, at)
    story.store.enqueue("r2", FIELDS)
    story.store.claim("r2", OWNER, 1)
    story.store.finish("r2", OWNER, "retrying", wait_ms=90 * SECOND)
    story.store.control("r2", "pause", 3)
    assert story.store.control("r2", "unpause", 4).at == 0


def test_accept_holds_for_the_next_attempt(story: Story) -> None:
    """An accept notes the attempt that may go on with the code as it is."""
    story.running()
    story.store.finish(RUN, OWNER, "paused")
    story.store.control(RUN, "accept", story.n)
    assert story.field("accept") == "2"


def test_restart_drops_progress(story: Story) -> None:
    """A restart forgets steps, values and cursor, so the next attempt begins afresh; c, n and attempt go on."""
    story.running()
    story.committed(ended=[("meta", "1"), ("meta2", "22")])
    story.store.finish(RUN, OWNER, "paused")
    story.store.control(RUN, "restart", story.n)
    stored = story.store.read_all(RUN)
    assert not [name for name in stored if name[:2] in ("s:", "v:")]
    assert [stored[name] for name in ("steps", "bytes", "step", "cursor", "done", "total")] == ["0", "0", *[""] * 4]
    reply = story.running("w2:b")
    assert (reply.resumptions, reply.attempt, reply.c) == (0, 2, 1)


def test_unpaused_run_gets_an_entry(story: Story) -> None:
    """Who unpauses a run says where its attempts go, and a worker is woken for the next one."""
    story.running()
    story.store.finish(RUN, OWNER, "paused")
    story.store.control(RUN, "unpause", story.n, queue="q")
    assert story.client.zrange("arq:queue:q", 0, -1) == ["{ada}:r1:2"]


# -- reopen ----------------------------------------------------------------------------------------


def test_reopen_queues_the_run_again(story: Story) -> None:
    """A failed run goes on under its id: counts of failures go, n, c, attempt and steps stay, the TTL is off."""
    story.running()
    story.committed(ended=[("meta", "1"), ("meta2", "2")])
    story.store.finish(RUN, OWNER, "failed", failed=True, error="e")
    story.client.xadd(story.keys.log(RUN), {"line": "x"})
    story.client.expire(story.keys.log(RUN), 60)
    reply = story.store.reopen(RUN, story.n, None, "{}", queue="q")
    assert (reply.code, reply.state, reply.c, reply.n, reply.attempt) == ("OK", "queued", 1, 4, 1)
    assert story.store.read(RUN, "failures", "error", "steps", "cursor") == ["0", "", "2", "1"]
    for key in (story.keys.run(RUN), story.keys.events(RUN), story.keys.log(RUN)):
        assert story.client.ttl(key) == -1
    assert story.client.zrange("arq:queue:q", 0, -1) == ["{ada}:r1:2"]
    assert story.running("w2:b").resumptions == 1


@pytest.mark.parametrize(("first", "left"), [(1, 0), (2, 1), (3, 2), (9, 2)])
def test_reopen_drops_steps_from_one_on(story: Story, first: int, left: int) -> None:
    """Steps from from_step on are done again, those before keep their values."""
    story.running()
    story.committed(ended=[("meta", "1"), ("meta2", "22")])
    story.ended()
    story.store.reopen(RUN, story.n, first)
    kept = [name for name in story.store.read_all(RUN) if name.startswith("v:")]
    assert kept == [f"v:{k}" for k in range(1, left + 1)]
    assert story.store.read(RUN, "steps", "bytes", "cursor") == [str(left), str([0, 1, 3][left]), ""]


def test_reopen_is_refused(story: Story) -> None:
    """A run that goes on, or has completed, or was reopened since, is not opened again."""
    story.running()
    assert story.store.reopen(RUN, story.n).code == "STATE"
    story.ended("failed")
    reopen = story.store.calls.reopen(RUN, story.n)
    story.store.send(reopen)
    before = story.picture()
    assert story.store.send(reopen).code == "AGAIN"
    assert story.picture() == before
    story.running("w2:b")
    story.store.finish(RUN, "w2:b", "completed")
    assert story.store.reopen(RUN, story.n).code == "STATE"


# -- all -------------------------------------------------------------------------------------------


def test_unknown_words_are_refused_before_they_are_sent(store: Store) -> None:
    """An outcome or op that no script knows is an error of the caller."""
    with pytest.raises(ValueError, match="expected one of completed"):
        store.finish(RUN, OWNER, "done")
    with pytest.raises(ValueError, match="expected one of cancel"):
        store.control(RUN, "stop", 1)
