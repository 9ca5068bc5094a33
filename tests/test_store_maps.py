"""What the scripts keep of `step.map`: written with a commit or not at all, and gone with the run."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from nbjobs.store import Store

from .test_store_scripts import OWNER, RUN, Story, checkpoint

BEGUN = ("1", "load")


@pytest.fixture
def story(store: Store, redis_client: redis.Redis) -> Story:
    return Story(store, redis_client)


def kept(story: Story, k: int = 1) -> dict[str, str]:
    return story.store.read_map(RUN, k)


def mapped(story: Story, c: int = 1, *results: tuple[str, str], **given: Any) -> None:
    story.committed(c, results=[BEGUN, *results] if c == 1 else results, **given)


def test_results_are_stored_with_the_commit(story: Story) -> None:
    """Beside the step's name and their bytes; the run lists its maps."""
    story.running()
    mapped(story, 1, ("1:0", '"é"'), ("1:7", "1"))
    mapped(story, 2, ("1:3", "22"))
    assert kept(story) == {"name": "load", "bytes": "7", "0": '"é"', "7": "1", "3": "22"}
    story.committed(3, results=[("12", "other")])
    assert story.field("maps") == "1,12" and story.names().count("job.step") == 0


def test_a_map_that_begins_anew_forgets_what_was_there(story: Story) -> None:
    """Another step may stand at that place since the code has changed."""
    story.running()
    mapped(story, 1, ("1:0", "1"))
    story.committed(2, results=[("1", "other"), ("1:4", "5")])
    assert kept(story) == {"name": "other", "bytes": "1", "4": "5"} and story.field("maps") == "1"


def test_the_last_commit_may_carry_results(story: Story) -> None:
    """Those of the items that ended while the body was left."""
    story.running()
    last = checkpoint(1, story.n, results=[BEGUN, ("1:0", "1")])
    assert story.store.finish(RUN, OWNER, "released", d="{}", commit=last).code == "OK"
    assert kept(story)["0"] == "1"


def test_a_commit_with_results_sent_again_changes_nothing(story: Story) -> None:
    """Byte for byte."""
    story.running()
    mapped(story, 1, ("1:0", "1"))
    before = kept(story)
    assert story.store.commit(RUN, OWNER, checkpoint(1, 0, results=[BEGUN])).code == "AGAIN"
    assert story.store.commit(RUN, "w9:z", checkpoint(2, 0, results=[BEGUN])).code == "FENCED"
    assert kept(story) == before


@pytest.mark.parametrize(
    ("results", "what"),
    [
        ([("1:0", "x" * 65_537)], "result"),
        ([("one:0", "x")], "result"),
        ([("1:0:0", "x")], "result"),
        ([("", "x")], "result"),
        ([("1:0", "x" * 60_000)], "results"),
        ([(f"1:{n}", "1") for n in range(1001)], "commit"),
    ],
)
def test_what_is_too_large_is_refused_whole(
    story: Story, redis_client: redis.Redis, results: list[tuple[str, str]], what: str
) -> None:
    """A result has 64 KiB, all of a step 16 MiB, a commit a thousand of them."""
    story.running()
    mapped(story)
    redis_client.hset(story.keys.map(RUN, 1), "bytes", 16 * 1024 * 1024 - 50_000)
    before = story.picture()
    reply = story.store.commit(RUN, OWNER, checkpoint(2, story.n, results=results))
    assert (reply.code, reply.detail) == ("TOOBIG", what) and story.picture() == before


def test_a_commit_takes_as_many_events_beside_its_results(story: Story) -> None:
    """They are counted for themselves."""
    story.running()
    events = [("o", "own", "{}")] * 256
    mapped(story, 1, *((f"1:{n}", "1") for n in range(999)), events=events)
    assert len(kept(story)) == 999 + 2
    reply = story.store.commit(RUN, OWNER, checkpoint(2, story.n, results=[("1:0", "1")], events=[*events, events[0]]))
    assert (reply.code, reply.detail) == ("TOOBIG", "commit")


def test_a_key_of_another_type_is_refused_whole(story: Story, redis_client: redis.Redis) -> None:
    """Nothing of the commit is written."""
    story.running()
    redis_client.set(story.keys.map(RUN, 1), "x")
    before = story.picture()
    reply = story.store.commit(RUN, OWNER, checkpoint(1, story.n, results=[BEGUN]))
    assert (reply.code, reply.detail) == ("BADTYPE", story.keys.map(RUN, 1)) and story.picture() == before


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_results_expire_with_the_run(story: Story, redis_client: redis.Redis, outcome: str) -> None:
    """All its keys at the same time, to a few milliseconds."""
    story.running()
    mapped(story, 1, ("1:0", "1"))
    story.ended(outcome)
    times = {redis_client.pexpiretime(key) for key in (story.keys.run(RUN), story.keys.map(RUN, 1))}
    assert max(times) - min(times) < 1000 and min(times) > 0  # Redis 7.0 asks its clock anew for each command


def test_a_run_that_is_opened_again_has_its_results(story: Story, redis_client: redis.Redis) -> None:
    """With no end, as the run itself; without those of the steps that are done again."""
    story.running()
    mapped(story, 1, ("1:0", "1"), ended=[('{"name":"load"}', "")])
    story.committed(2, results=[("2", "more"), ("2:0", "2")])
    story.ended()
    assert story.store.reopen(RUN, story.n, None, "{}").code == "OK"
    assert [redis_client.ttl(story.keys.map(RUN, k)) for k in (1, 2)] == [-1, -1]
    story.running("w1:b")
    story.store.finish(RUN, "w1:b", "failed", d="{}")
    assert story.store.reopen(RUN, story.n, 2, "{}").code == "OK"
    assert story.field("maps") == "1" and kept(story, 1)["0"] == "1" and kept(story, 2) == {}


def test_a_restart_drops_results(story: Story) -> None:
    """As all other progress."""
    story.running()
    mapped(story, 1, ("1:0", "1"))
    story.store.finish(RUN, OWNER, "paused", d="{}")
    assert story.store.control(RUN, "restart", story.n, "{}").code == "OK"
    assert kept(story) == {} and story.field("maps") == ""
