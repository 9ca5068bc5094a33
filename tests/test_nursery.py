"""The nursery, spoken to by hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbjobs import nursery as nursery_module
from nbjobs.wire import pair

from .processes import HandNursery, alive, children_of
from .support import wait_until


@pytest.fixture
def nursery() -> Iterator[HandNursery]:
    made = HandNursery()
    yield made
    made.close()


def test_a_child_is_born_and_its_end_is_told(nursery: HandNursery) -> None:
    """The nursery answers with the process id, later with how it ended, its peak memory, and whether a body ran."""
    first, second = nursery.bear("one"), nursery.bear("two")
    first.run("exits", 7)
    end = nursery.next()
    assert 1 << 20 < end.pop("peak") < 1 << 30
    assert end == {"op": "exit", "pid": first.pid, "code": 7, "signal": None, "busy": True, "out_of": 0}
    second.result("renames_process")
    os.kill(second.pid, signal.SIGKILL)
    end = nursery.next()
    del end["peak"]
    assert end == {
        "op": "exit", "pid": second.pid, "code": None, "signal": signal.SIGKILL, "busy": False, "out_of": 0
    }  # fmt: skip


def test_a_body_that_renames_its_process_is_a_body(nursery: HandNursery) -> None:
    """Any name but that of an idle child says that a body was under way."""
    child = nursery.bear()
    child.run("renames_process", "killed")
    assert nursery.next("exit")["busy"] is True


def test_many_requests_in_one_go_each_get_their_child(nursery: HandNursery) -> None:
    """Descriptors are not mixed up between requests that arrive together."""
    children = {f"c{k}": nursery.ask_for_child(f"c{k}") for k in range(10)}
    for _ in children:
        answer = nursery.next("pid")
        children[answer["name"]].pid = answer["pid"]
    for child in children.values():
        child.next("up")
        assert child.result("pid") == child.pid


def test_kill_ends_a_child_with_its_programs(nursery: HandNursery) -> None:
    """Killed is the process group, and what has left it."""
    child = nursery.bear()
    programs = [child.result("starts_program"), child.result("starts_program_in_session")]
    nursery.send(op="kill", pid=child.pid)
    assert nursery.next("exit")["signal"] == signal.SIGKILL
    wait_until(lambda: not any(map(alive, programs)), 2, "the programs are gone")


@pytest.mark.parametrize("op", ["kill", "signal"])
def test_only_children_are_signalled(nursery: HandNursery, op: str) -> None:
    """A process id that is none of a living child is let alone, its own parent's first of all."""
    dead = nursery.bear("one")
    dead.run("exits", 0)
    nursery.next("exit")
    for pid in (os.getpid(), dead.pid, 0, -1, nursery.process.pid):
        nursery.send(op=op, pid=pid, number=int(signal.SIGKILL))
    assert nursery.bear("two").result("pid") > 0


def test_a_signal_is_passed_on(nursery: HandNursery) -> None:
    """SIGUSR1 makes a child print its stack, also while C code holds the interpreter."""
    child = nursery.bear()
    child.begin("holds_gil")

    def told() -> bool:
        nursery.send(op="signal", pid=child.pid, number=int(signal.SIGUSR1))  # the first may come before the body
        return "in holds_gil" in child.printed()

    wait_until(told, 5, "the stack is printed", every=0.1)


def test_all_ends_with_the_socket(nursery: HandNursery) -> None:
    """When the worker is gone, so are the children, what they started, and the nursery."""
    busy, idle = nursery.bear("busy"), nursery.bear("idle")
    programs = [idle.result("starts_program"), idle.result("starts_program_in_session")]
    busy.begin("holds_gil")
    nursery.channel.close()
    nursery.process.wait(2)
    assert not any(map(alive, [busy.pid, idle.pid, *programs]))
    assert nursery.process.returncode == 0


def test_children_end_with_their_nursery(nursery: HandNursery) -> None:
    """The kernel kills the children of a killed nursery, also one that holds the interpreter."""
    busy, idle = nursery.bear("busy"), nursery.bear("idle")
    busy.begin("holds_gil")
    nursery.process.kill()
    wait_until(lambda: not alive(busy.pid) and not alive(idle.pid), 1, "the children are gone")


def test_terminal_and_service_managers_do_not_end_it(nursery: HandNursery) -> None:
    """SIGINT, SIGTERM and SIGHUP end neither nursery nor child: the worker decides."""
    child = nursery.bear()
    child.begin("waits_for_stop")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for pid in (nursery.process.pid, child.pid):
            os.kill(pid, number)
    child.send(op="stop", owner="w:1", reason="deploy")
    assert child.next("done")["outcome"]["value"] == "deploy"
    assert nursery.bear("two").result("pid") > 0


def test_it_has_one_thread_and_keeps_no_descriptor(nursery: HandNursery) -> None:
    """Forking is safe in one thread only; what belongs to a child is closed here."""
    folder = Path(f"/proc/{nursery.process.pid}")
    nursery.bear("one")
    before = len(list((folder / "fd").iterdir()))
    for number in range(5):
        nursery.bear(f"more {number}")
    assert len(list((folder / "fd").iterdir())) == before
    assert len(list((folder / "task").iterdir())) == 1


def test_no_zombie_stays(nursery: HandNursery) -> None:
    """Every child and every orphan that it adopted is reaped."""
    for number in range(5):
        child = nursery.bear(f"c{number}")
        child.result("starts_program_in_session")
        child.run("exits", 0)
        nursery.next("exit")
    wait_until(lambda: children_of(nursery.process.pid) == [], 2, "all are reaped")


def test_a_failed_fork_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no process, the reason comes back and the descriptors are closed."""

    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    ours, theirs = pair()
    made = nursery_module.Nursery(theirs)
    made._init = {"birth": "fork"}
    monkeypatch.setattr(nursery_module.os, "fork", fork)
    reading, writing = os.pipe()
    ours.send({"op": "fork", "name": "one"}, [writing, writing, writing])
    os.close(writing)
    (message,) = theirs.read() or []
    assert made._obey(message) is None
    (answer,) = ours.read() or []
    assert answer["op"] == "failed" and "temporarily unavailable" in answer["why"]
    assert os.read(reading, 1) == b"", "no copy of the writing end is left"
    os.close(reading)
    ours.close()
    theirs.close()


def test_spawned_children_need_no_fork() -> None:
    """With `spawn` a child is a new interpreter that gets its settings by a pipe."""
    made = HandNursery(birth="spawn")
    try:
        child = made.bear()
        facts = child.result("facts")
        assert facts["group"] == facts["pid"] == child.pid
        assert facts["parent"] == made.process.pid
        made.send(op="kill", pid=child.pid)
        assert made.next("exit")["signal"] == signal.SIGKILL
    finally:
        made.close()
