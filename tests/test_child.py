"""A child, spoken to by hand."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import Child, HandNursery, alive
from .support import wait_until


@pytest.fixture
def nursery() -> Iterator[HandNursery]:
    made = HandNursery()
    yield made
    made.close()


@pytest.fixture
def child(nursery: HandNursery) -> Child:
    return nursery.bear()


def test_the_end_of_a_run_is_told(child: Child) -> None:
    """A child says at the end the outcome, what the body used and what it left."""
    child.run("nothing", owner="w:7")
    done = child.next()
    assert {name: done[name] for name in ("op", "owner", "outcome", "error", "dirty")} == {
        "op": "done",
        "owner": "w:7",
        "outcome": {"code": "completed", "value": None},
        "error": "",
        "dirty": [],
    }
    assert 0 <= done["cpu"] < 1 and done["peak"] > 1_000_000


def test_what_is_left_behind_is_named(child: Child) -> None:
    """The worker's log can say why a child was replaced."""
    child.run("changes_directory")
    assert child.next("done")["dirty"] == ["changed directory"]
    program = child.result("starts_program")
    child.run("changes_environment")
    dirty = child.next("done")["dirty"]
    assert dirty == [f"process {program}", "changed directory", "changed environment"]


def test_a_run_is_refused_where_the_code_is_newer(child: Child, tmp_path: Path) -> None:
    """A child whose modules are older than their files runs nothing any more."""
    module = tmp_path / "refused_module.py"
    module.write_text("VALUE = 1")
    child.result("imports", str(tmp_path), "refused_module")
    module.write_text("VALUE = 2222")
    child.run("nothing", owner="w:2")
    answer = child.next()
    assert (answer["op"], answer["owner"]) == ("refused", "w:2")
    assert answer["why"] == f"{module} has changed since it was loaded"


def test_a_stop_for_another_attempt_is_not_heard(child: Child) -> None:
    """A late stop of an ended attempt does not end the next one."""
    child.run("nothing", owner="w:1")
    child.next("done")
    child.send(op="stop", owner="w:1", reason="late")
    child.run("waits_for_stop", owner="w:2")
    child.send(op="stop", owner="w:1", reason="late")
    child.send(op="stop", owner="w:2", reason="right")
    assert child.next("done")["outcome"]["value"] == "right"


def test_a_body_that_runs_ends_with_the_socket(nursery: HandNursery, child: Child) -> None:
    """Where its worker is gone, a child ends itself and its programs, nursery or not."""
    program = child.result("starts_program")
    child.begin("waits_for_stop")
    child.channel.close()
    assert nursery.next("exit")["signal"] == signal.SIGKILL
    wait_until(lambda: not alive(program), 2, "the program is gone")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_idle_child_leaves_as_a_program_does(nursery: HandNursery, child: Child, kind: str) -> None:
    """At the end of its socket an idle child runs its exit handlers and leaves with code 0."""
    child.result("says_goodbye" if kind == "sync" else "asays_goodbye", kind=kind)
    child.channel.close()
    assert nursery.next("exit")["code"] == 0
    assert child.printed() == "goodbye\n"


def test_a_fork_that_the_body_made_does_not_speak_for_the_child(child: Child) -> None:
    """Where a forked program comes back out of the body, it ends; the child tells its own end once."""
    child.run("forks_and_both_return", owner="w:1")
    assert child.next("done")["owner"] == "w:1"
    child.run("nothing", owner="w:2")
    assert child.next("done")["owner"] == "w:2"
    assert child.printed() == "the fork\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.fault(row=59)
def test_bodies_may_use_multiprocessing(child: Child, method: str) -> None:
    """Pools of processes work in a body, whatever their start method, and cost no other body anything."""
    assert child.result("pools", method) == [1, 2, 3]
    assert child.result("nothing") is None


def test_forks_of_a_body_end_by_sigterm(child: Child) -> None:
    """What a child is deaf to, the processes that a body forks are not: `terminate` ends them."""
    assert child.result("terminates_a_fork") == -signal.SIGTERM


def test_children_do_not_share_their_random_numbers(nursery: HandNursery) -> None:
    """Each child has a random state of its own."""
    assert len({nursery.bear(name).result("draws") for name in ("one", "two", "three")}) == 3


def test_programs_of_a_body_react_to_signals_as_usual(child: Child) -> None:
    """A child is deaf to SIGINT and SIGTERM; what a body starts is not."""
    ignored = int(child.result("ignored_signals"), 16)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert not ignored & (1 << (number - 1))


def test_an_async_child_beats(child: Child) -> None:
    """While its loop turns, an async child says so."""
    child.run("await_stop", kind="async")
    assert child.next("beat") == child.next("beat") == {"op": "beat"}


def test_usage_is_told_only_where_it_can_be_told_apart(child: Child) -> None:
    """Async bodies that ran side by side share their CPU seconds; one alone has its own."""
    child.run("anothing", kind="async", owner="w:1")
    assert child.next("done")["cpu"] is not None
    for owner in ("w:2", "w:3"):
        child.run("apid_together", 2, kind="async", owner=owner)
    assert {child.next("done")["cpu"] for _ in range(2)} == {None}
