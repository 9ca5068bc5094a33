"""The worker's processes for bodies, with real ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from nbjobs.lines import Line
from nbjobs.pool import End, Pool, PoolError
from nbjobs.settings import NbJobs

from .bodies import Claim
from .processes import alive, busy, children_of
from .support import await_until, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a worker needs Unix processes")

_owners = count(1)


class Bench:
    """A pool with what its bodies printed."""

    def __init__(self, **options: Any) -> None:
        settings = {name: options.pop(name) for name in ("children", "child_runs", "async_runs") if name in options}
        self.printed: list[tuple[str, Line]] = []
        self.batches: list[int] = []
        options.setdefault("performer", "tests.bodies:make")
        self.pool = Pool(NbJobs(**{"children": 2, **settings}), self._on_output, **options)

    def _on_output(self, claim: Any, lines: list[Line]) -> None:
        self.batches.append(len(lines))
        self.printed.extend((claim.run if claim else "", line) for line in lines)

    def lines(self, run: str = "r1", stream: str = "stdout") -> list[str]:
        return [line.text for whose, line in self.printed if whose == run and line.stream == stream]

    def claim(self, body: str, *args: Any, kind: str = "", run: str = "r1", user: str = "alice") -> Claim:
        kind = kind or ("async" if body.startswith("a") and body != "allocates" else "sync")
        return Claim(owner=f"w:{next(_owners)}", body=body, args=list(args), kind=kind, run=run, user=user)

    async def run(self, body: str, *args: Any, **options: Any) -> End:
        return await self.pool.run(self.claim(body, *args, **options))

    async def value(self, body: str, *args: Any, **options: Any) -> Any:
        end = await self.run(body, *args, **options)
        assert end.outcome is not None, end
        return end.outcome["value"]

    async def begin(self, body: str, *args: Any, **options: Any) -> tuple[str, asyncio.Task[End]]:
        """Has a body run; returns when it has begun."""
        claim = self.claim(body, *args, **options)
        task = asyncio.ensure_future(self.pool.run(claim))
        await await_until(lambda: self._has_begun(claim.owner), 20, f"{body} has begun")
        return claim.owner, task

    def _has_begun(self, owner: str) -> bool:
        held = self.pool._held.get(owner)
        if held is None or held.child is None or held.running is None:
            return False
        return held.running.started or busy(held.child.pid)


@pytest.fixture
async def bench() -> AsyncIterator[Callable[..., Any]]:
    """Makes a started `Bench`; closes all of them."""
    made: list[Bench] = []

    async def make(**options: Any) -> Bench:
        made.append(Bench(**options))
        await made[-1].pool.start()
        return made[-1]

    yield make
    for one in made:
        await one.pool.close()


async def test_a_body_runs_and_its_outcome_comes_back(bench: Any) -> None:
    """The outcome of an attempt is handed to whoever had it run."""
    b = await bench()
    end = await b.run("nothing")
    assert (end.died, end.outcome, end.started) == (False, {"code": "completed", "value": None}, True)


async def test_the_worker_itself_runs_no_body(bench: Any) -> None:
    """A body runs in a process of its own, in that process's main thread."""
    b = await bench()
    facts = await b.value("facts")
    assert facts["pid"] != os.getpid() and facts["main_thread"]
    assert facts["parent"] == b.pool.nursery_pid


async def test_a_child_leads_a_process_group_and_goes_first_when_memory_ends(bench: Any) -> None:
    """A child can be killed with its programs, and is the kernel's first choice when memory is short."""
    facts = await (await bench()).value("facts")
    assert facts["group"] == facts["pid"]
    assert facts["oom"] == 500


async def test_a_child_holds_its_own_socket_and_pipes_only(bench: Any) -> None:
    """No descriptor of the nursery or of another child gets into a child; a selector watches its socket."""
    b = await bench()
    for _ in range(3):
        facts = await b.value("facts")
        own = [fd for fd, target in facts["fds"].items() if not target.startswith("/proc")]
        assert facts["fds"]["0"] == "/dev/null" and len(own) == 5, facts["fds"]
        await b.begin("waits_for_stop")


async def test_settings_do_not_travel_in_the_environment(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body, and what it starts, finds no password in its environment; other variables it does."""
    monkeypatch.setenv("NBJOBS_REDIS_URL", "redis://:hunter2@localhost")
    monkeypatch.setenv("NBJOBS_OTHER", "kept")
    found = await (await bench()).value("environment")
    assert "hunter2" not in json.dumps(found)
    assert found["NBJOBS_OTHER"] == "kept" and found["PATH"] == os.environ["PATH"]


# -- children are used again while they are clean ------------------------------------------------


async def test_a_clean_child_is_used_again(bench: Any) -> None:
    """The next body runs where the last one ran, with its modules loaded."""
    b = await bench()
    first = await b.value("pid")
    assert [await b.value("pid") for _ in range(3)] == [first] * 3


@pytest.mark.parametrize("body", ["thread_that_ends", "replaces_stdout", "prints", "burns_nothing"])
async def test_what_is_put_in_order_keeps_a_child(bench: Any, body: str) -> None:
    """A thread that ends in time, or a replaced stdout, costs no child."""
    b = await bench()
    first = await b.value("pid")
    await b.run(body)
    assert await b.value("pid") == first
    await b.run("prints", "again")
    assert "again" in b.lines()


@pytest.mark.parametrize("body", ["leaves_thread", "starts_program", "changes_directory", "changes_environment"])
async def test_a_child_that_is_not_as_it_was_is_replaced(bench: Any, body: str) -> None:
    """After a left-over thread or program, or a changed directory or environment, another child serves."""
    b = await bench()
    first = await b.value("pid")
    end = await b.run(body)
    assert not end.died
    assert await b.value("pid") != first
    await await_until(lambda: not alive(first), description="the used child is gone")


@pytest.mark.parametrize("body", ["starts_program", "starts_program_in_session"])
async def test_a_program_left_behind_ends_with_its_child(bench: Any, body: str) -> None:
    """Nothing that a body started outlives its child, also where it left the process group."""
    b = await bench()
    program = await b.value(body)
    await await_until(lambda: not alive(program), description="the body's program is gone")


async def test_a_program_of_another_child_lives_on(bench: Any) -> None:
    """A daemon that a body has started and still uses is not mistaken for a left-over of its neighbour."""
    b = await bench()
    owner, task = await b.begin("starts_daemon_and_waits")
    await await_until(lambda: b.lines(), description="the daemon has been started")
    daemon = int(b.lines()[0])
    await b.run("kills_itself", signal.SIGKILL, run="r2")
    await b.run("nothing", run="r2")
    assert alive(daemon)
    b.pool.stop(owner, "cancel")
    await task
    b.pool.kill(owner)
    await b.pool.close()
    assert not alive(daemon)


async def test_a_child_is_replaced_after_child_runs(bench: Any) -> None:
    """No child serves more than `child_runs` bodies."""
    b = await bench(child_runs=3)
    pids = [await b.value("pid") for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


async def test_edited_code_is_loaded_anew(bench: Any, tmp_path: Path) -> None:
    """A body sees the code as it is on disk, though a child that has the old one is idle."""
    b = await bench()
    module = tmp_path / "edited_module.py"
    module.write_text("VALUE = 'old'")
    assert await b.value("imports", str(tmp_path), "edited_module") == "old"
    assert await b.value("imports", str(tmp_path), "edited_module") == "old"
    module.write_text("VALUE = 'brand new'")
    assert await b.value("imports", str(tmp_path), "edited_module") == "brand new"


async def test_code_edited_while_a_body_runs_is_loaded_anew(bench: Any, tmp_path: Path) -> None:
    """Where a file changes after it was loaded and before the body ends, the child is not used again."""
    b = await bench()
    module = tmp_path / "edited_meanwhile.py"
    module.write_text("VALUE = 'old'")
    owner, task = await b.begin("imports_and_waits", str(tmp_path), "edited_meanwhile")
    await await_until(lambda: b.lines() == ["old"], description="the module is loaded")
    module.write_text("VALUE = 'brand new'")  # of another size, by which Python tells bytecode of this second apart
    b.pool.stop(owner, "go on")
    await task
    assert await b.value("imports", str(tmp_path), "edited_meanwhile") == "brand new"


async def test_a_spare_stands_ready(bench: Any) -> None:
    """While bodies run, one more child is up."""
    b = await bench(children=1)
    await b.begin("waits_for_stop")
    await await_until(lambda: len(b.pool.pids()) == 2 and b.pool._idle, description="a spare is up")


@pytest.mark.weather("H10")
async def test_a_used_process_is_kept_for_its_user(bench: Any) -> None:
    """A process runs sync bodies of one user; with more users than places the longest idle one gives way."""
    b = await bench(children=1)
    first = {user: await b.value("pid", user=user) for user in ("ada", "bob")}
    assert {user: await b.value("pid", user=user) for user in ("ada", "bob")} == first
    assert await b.value("pid", user="cyd") not in first.values()
    assert await b.value("pid", user="bob") == first["bob"]
    await await_until(lambda: not alive(first["ada"]), description="the longest idle process is gone")
    await await_until(lambda: len(b.pool.pids()) == 3, description="two that were used, and a spare")


@pytest.mark.weather("H10")
async def test_async_bodies_begin_in_an_unused_process(bench: Any) -> None:
    """What all users' async bodies share has run nobody's sync body before."""
    b = await bench(children=1)
    assert await b.value("pid", user="ada") != await b.value("apid", user="bob") == await b.value("apid", user="cyd")


# -- deaths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "args", "number", "code", "last"),
    [
        ("kills_itself", [9], 9, None, "about to go"),
        ("kills_itself", [6], 6, None, "Fatal Python error: Aborted"),
        ("segfaults", [], 11, None, "Fatal Python error: Segmentation fault"),
        ("exits", [3], None, 3, "last words"),
        ("exits", [0], None, 0, "last words"),
    ],
)
async def test_a_death_is_told_with_its_cause_and_last_lines(
    bench: Any, body: str, args: list[int], number: int | None, code: int | None, last: str
) -> None:
    """The end of a child says signal or exit code, and what was printed last."""
    b = await bench()
    end = await b.run(body, *args)
    assert (end.died, end.started, end.outcome) == (True, True, None)
    assert (end.signal, end.code, end.reason) == (number, code, "")
    assert last in end.last_lines


async def test_last_lines_are_a_runs_own(bench: Any) -> None:
    """What another run printed before in the same child is not for the owner of one that dies without a word."""
    b = await bench(children=1)
    pid = await b.value("pid", run="r1")
    await b.run("prints", "a line of r1", run="r1")
    end = await b.run("renames_process", "die", run="r2")
    assert (end.died, end.last_lines) == (True, [])
    assert b.lines("r1") == ["a line of r1"]
    assert await b.value("pid", run="r3") != pid, "the three before had one child"


async def test_a_death_is_seen_at_once(bench: Any) -> None:
    """No lease or timer tells of a child's SIGKILL, but its end itself: `benchmarks/processes.py` says how soon."""
    b = await bench()
    _, task = await b.begin("waits_for_stop", "say pid")
    await await_until(lambda: b.lines(), description="the body runs")
    os.kill(int(b.lines()[0]), signal.SIGKILL)
    assert (await asyncio.wait_for(task, 2)).signal == signal.SIGKILL


async def test_a_program_that_holds_the_socket_does_not_hide_a_death(bench: Any, tmp_path: Path) -> None:
    """The nursery's word is enough where the end of the socket does not come; the program dies too."""
    b = await bench()
    note = tmp_path / "pid"
    end = await asyncio.wait_for(b.run("forks_and_dies", str(note)), 5)
    assert end.died and end.signal == signal.SIGKILL
    await await_until(lambda: not alive(int(note.read_text())), description="the forked program is gone")


async def test_a_death_harms_no_other_body(bench: Any) -> None:
    """While one child dies, the body of another runs to its end."""
    b = await bench()
    owner, task = await b.begin("waits_for_stop", run="r2")
    assert (await b.run("segfaults")).died
    b.pool.stop(owner, "cancel")
    assert (await task).outcome == {"code": "completed", "value": "cancel"}


async def test_an_error_out_of_an_attempt_is_told_and_costs_the_child(bench: Any) -> None:
    """What comes out of an attempt, though nothing should, is told; no outcome is made up."""
    b = await bench()
    first = await b.value("pid")
    for body, error in (("raises_exit", "SystemExit: 3"), ("unmakeable", "ValueError: no such job")):
        end = await b.run(body)
        assert (end.died, end.outcome, end.error) == (False, None, error)
        assert any("Traceback" in line for line in b.lines(stream="stderr"))
    assert await b.value("pid") != first


# -- stop and kill ---------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["waits_for_stop", "spins_until_stop", "await_stop"])
async def test_a_body_hears_of_a_stop(bench: Any, body: str) -> None:
    """The reason of a stop reaches the attempt while its body runs."""
    b = await bench()
    owner, task = await b.begin(body)
    assert b.pool.stop(owner, "deploy")
    assert (await asyncio.wait_for(task, 5)).outcome["value"] == "deploy"
    assert not b.pool.stop(owner, "deploy") and not b.pool.kill(owner)


@pytest.mark.parametrize("body", ["waits_for_stop", "await_stop"])
async def test_a_stop_that_comes_before_the_body_is_not_lost(bench: Any, body: str) -> None:
    """A stop reaches the attempt, however early it comes: with or without a child, before the body began."""
    b = await bench(children=4)
    claims = [b.claim(body) for _ in range(8)]
    tasks = [asyncio.ensure_future(b.pool.run(claim)) for claim in claims]
    await asyncio.sleep(0)
    assert all(b.pool.stop(claim.owner, "cancel") for claim in claims)
    ends = await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert {end.outcome["value"] for end in ends} == {"cancel"}


async def test_a_kill_that_comes_before_the_body_keeps_it_from_beginning(bench: Any) -> None:
    """What was killed while it waited for a child never runs."""
    b = await bench()
    await b.begin("waits_for_stop")
    claim = b.claim("prints", "never")
    b.pool._idle.clear()
    task = asyncio.ensure_future(b.pool.run(claim))
    await asyncio.sleep(0)
    assert b.pool.kill(claim.owner)
    end = await asyncio.wait_for(task, 20)
    assert (end.died, end.started, end.reason) == (True, False, "killed")
    assert b.lines() == []


async def test_a_kill_ends_a_body_that_holds_the_interpreter(bench: Any, tmp_path: Path) -> None:
    """What hears nothing is ended with all its programs, and the end says that it was us."""
    b = await bench()
    note = tmp_path / "pids"
    owner, task = await b.begin("starts_programs_and_holds_gil", str(note))
    await await_until(note.exists, description="the body runs")
    assert b.pool.kill(owner)
    end = await asyncio.wait_for(task, 5)
    assert (end.died, end.signal, end.reason) == (True, signal.SIGKILL, "killed")
    pids = [int(pid) for pid in note.read_text().split()]
    await await_until(lambda: not any(map(alive, pids)), description="child and programs are gone")


async def test_a_cancelled_run_ends_its_process(bench: Any) -> None:
    """Nobody waits for a body whose `run` was cancelled: it is killed."""
    b = await bench()
    _, task = await b.begin("waits_for_stop", "say pid")
    await await_until(lambda: b.lines(), description="the body runs")
    task.cancel()
    await await_until(lambda: not alive(int(b.lines()[0])), description="the child is gone")
    assert b.pool.free("sync") == 2


# -- output ----------------------------------------------------------------------------------------


async def test_output_is_read_before_the_end_is_told(bench: Any) -> None:
    """All that a body printed has been handed on when its end is known, the last open line too."""
    b = await bench()
    for _ in range(20):
        b.printed.clear()
        await b.run("prints_apart")
        assert b.lines() == ["out", "raw"] and b.lines(stream="stderr") == ["err"]


async def test_c_output_is_flushed_for_the_run_that_wrote_it(bench: Any) -> None:
    """What C code buffers belongs to its own run, not to the next one."""
    b = await bench()
    await b.run("buffers_in_c")
    assert b.lines() == ["from C"]


async def test_a_flood_is_read_whole_and_in_batches(bench: Any) -> None:
    """No line is lost, and they come at most 200 at a time."""
    b = await bench()
    await b.run("floods", 20_000)
    assert b.lines() == [str(number) for number in range(20_000)]
    assert max(b.batches) <= 200 and len(b.batches) < 2_000


@pytest.mark.weather("M2")
@pytest.mark.parametrize("body", ["writes", "awrites"])
async def test_of_a_flood_of_short_lines_few_are_cut_and_all_are_counted(bench: Any, body: str) -> None:
    """So it leaves the worker its time: what nobody could read is counted in bytes."""
    b = await bench()
    began = time.monotonic()
    await b.run(body, "\n" * 65_536, 150)
    lines = [line for _, line in b.printed]
    assert len(lines) <= 2 * 20_000 + 5_000 * (time.monotonic() - began)
    assert len(lines) + sum(line.missed for line in lines) == 150 * 65_536


async def test_c_code_that_writes_with_the_interpreter_locked_does_not_hang(bench: Any) -> None:
    """200 KB written in one go by C code pass: the reader is in another process."""
    b = await bench()
    await asyncio.wait_for(b.run("writes_in_c", 200_000), 20)
    assert len(b.lines()) == 2_000


# -- places ----------------------------------------------------------------------------------------


async def test_free_counts_the_places_of_each_kind(bench: Any) -> None:
    """As many sync bodies as children, as many async ones as async_runs."""
    b = await bench(children=2, async_runs=5)
    assert (b.pool.free("sync"), b.pool.free("async")) == (2, 5)
    begun = [await b.begin(body) for body in ("waits_for_stop", "await_stop", "await_stop")]
    assert (b.pool.free("sync"), b.pool.free("async")) == (1, 3)
    for owner, task in begun:
        b.pool.stop(owner, "cancel")
        await task
    assert (b.pool.free("sync"), b.pool.free("async")) == (2, 5)


async def test_a_body_that_waits_for_another_lends_its_place(bench: Any) -> None:
    """The place is free while the body waits, and taken again behind it."""
    b = await bench(children=1)
    owner, task = await b.begin("lends")
    await await_until(lambda: b.pool.free("sync") == 1, description="the place is lent")
    assert not (await b.run("nothing", run="r2")).died
    b.pool.stop(owner, "done")
    assert (await task).outcome["value"] == "done"
    assert b.pool.free("sync") == 1


async def test_a_place_is_taken_back_behind_the_wait(bench: Any) -> None:
    """A body that goes on behind its wait counts again."""
    b = await bench(children=1)
    owner, _ = await b.begin("lends_and_goes_on")
    await await_until(lambda: b.pool.free("sync") == 1, description="the place is lent")
    b.pool.stop(owner, "done")
    await await_until(lambda: b.pool.free("sync") == 0, description="the place is taken back")


async def test_no_more_places_are_lent_than_there_are(bench: Any) -> None:
    """Beyond `children` more, a body that waits gets a clear error."""
    b = await bench(children=1)
    owner, task = await b.begin("lends")
    await await_until(lambda: b.pool.free("sync") == 1, description="the place is lent")
    end = await b.run("lends", run="r2")
    assert "lends no more places" in end.error and "children" in end.error
    b.pool.kill(owner)
    await task
    assert b.pool.free("sync") == 1


async def test_the_next_body_begins_while_the_end_of_one_is_written(bench: Any, tmp_path: Path) -> None:
    """A body that is over takes no place, though its end is still to be written: another child takes the next one."""
    room = list[int]()
    b = await bench(on_over=lambda: room.append(1))
    _, task = await b.begin("ends_slowly", str(tmp_path / "gate"))
    await await_until(lambda: b.pool.free("sync") == 2)
    assert room == [1]
    other = await b.value("pid")
    (tmp_path / "gate").touch()
    end = await task
    assert end.outcome["value"] != other
    assert b.pool.free("sync") == 2


async def test_no_more_ends_are_outstanding_than_there_are_places(bench: Any, tmp_path: Path) -> None:
    """Where ends cannot be written, bodies do not go on beginning for ever."""
    b = await bench(children=1)
    tasks = [(await b.begin("ends_slowly", str(tmp_path / "gate")))[1] for _ in range(2)]
    await b.value("pid")  # what the second one has said of its body has arrived before
    assert b.pool.free("sync") == 0
    (tmp_path / "gate").touch()
    await asyncio.gather(*tasks)
    assert b.pool.free("sync") == 1


@pytest.mark.parametrize("patience", [30.0, 0.01])
async def test_a_child_that_is_about_to_be_idle_is_waited_for(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """A new process costs more than a moment of patience; no longer than that, though."""
    monkeypatch.setattr("nbjobs.pool._END_PATIENCE", patience)
    b = await bench()
    _, first = await b.begin("ends_slowly", str(tmp_path / "gate"))
    await await_until(lambda: b.pool.free("sync") == 2 and b.pool._idle, description="a spare is up")
    owner, second = await b.begin("waits_for_stop")
    third = asyncio.ensure_future(b.value("pid"))
    if patience < 1:
        assert await third not in b.pool.pids()[:2]
    (tmp_path / "gate").touch()
    pid = (await first).outcome["value"]
    assert (await third == pid) == (patience > 1)
    b.pool.stop(owner, "stopping")
    await second


async def test_async_bodies_lend_without_waiting(bench: Any) -> None:
    """In the shared child a wait for another run frees a place too."""
    b = await bench(async_runs=1)
    owner, task = await b.begin("alends")
    await await_until(lambda: b.pool.free("async") == 1, description="the place is lent")
    b.pool.stop(owner, "done")
    assert (await task).outcome["value"] == "done"


# -- async bodies ----------------------------------------------------------------------------------


async def test_async_bodies_share_one_child(bench: Any) -> None:
    """Async bodies run side by side in one process that no sync body runs in."""
    b = await bench()
    pids = set(await asyncio.gather(*(b.value("apid_together", 5, run=f"r{k}") for k in range(5))))
    assert len(pids) == 1
    assert await b.value("pid") not in pids
    assert {await b.value("apid")} == pids


async def test_what_async_bodies_print_is_told_apart(bench: Any) -> None:
    """Lines go to the run that printed them, in whole, threads of `asyncio.to_thread` included."""
    b = await bench()
    runs = [f"r{k}" for k in range(4)]
    await asyncio.gather(*(b.run("aprints", run, run=run) for run in runs))
    for run in runs:
        assert b.lines(run) == [f"{run} 0", f"{run} 1", f"{run} 2", f"{run} thread"]


async def test_the_death_of_the_shared_child_blames_nobody_and_separates(bench: Any) -> None:
    """All its runs end as died and shared; each goes on in a child of its own, which is to blame."""
    b = await bench()
    others = [await b.begin("await_stop", run="r2") for _ in range(2)]
    end = await b.run("adies", run="r1")
    ends = [end, *[await asyncio.wait_for(task, 5) for _, task in others]]
    assert all(end.died and end.shared and end.signal == signal.SIGKILL for end in ends)
    assert len({await b.value("apid", run=run) for run in ("r1", "r2", "r3")}) == 3
    again = await b.run("adies", run="r3")
    assert again.shared, "r3 was in the shared child"
    again = await b.run("adies", run="r3")
    assert again.died and not again.shared


async def test_a_blocked_loop_is_warned_of_with_its_stack_and_ended(
    bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Blocking code in an async body is named by its stack; after the limit the shared child is ended."""
    b = await bench(stall_warning=0.3, stall_limit=1.5)
    _, other = await b.begin("await_stop", run="r2")
    end = await asyncio.wait_for(b.run("ablocks", run="r1"), 20)
    assert (end.died, end.reason, end.shared) == (True, "stalled", True)
    assert (await other).reason == "stalled"
    assert "event loop of child" in caplog.text
    assert any("ablocks" in line for line in end.last_lines)
    _, task = await b.begin("ablocks", run="r1")
    await await_until(lambda: caplog.text.count("event loop of child") == 2, 10, "warned of again")
    assert not task.done()


async def test_a_task_left_behind_costs_the_async_child(bench: Any) -> None:
    """Once no body runs in it, an async child with tasks of ended bodies is replaced."""
    b = await bench()
    first = await b.value("apid")
    await b.run("aleaves_task")
    assert await b.value("apid") != first


async def test_an_async_child_that_has_served_its_runs_is_replaced(bench: Any) -> None:
    """New async bodies go to a new child, the old one ends behind its last body."""
    b = await bench(child_runs=2)
    owner, task = await b.begin("await_stop")
    pids = [await b.value("apid") for _ in range(3)]
    assert len(set(pids)) == 2
    b.pool.stop(owner, "cancel")
    await task
    await await_until(lambda: not alive(pids[0]), description="the worn child is gone")


# -- what a run used -------------------------------------------------------------------------------


async def test_cpu_and_peak_memory_are_those_of_the_run(bench: Any) -> None:
    """CPU seconds and peak are measured per run, though the child serves many."""
    b = await bench()
    burnt, big, small = await b.run("burns", 0.2), await b.run("allocates", 100_000_000), await b.run("nothing")
    assert 0.2 <= burnt.cpu < 0.6
    assert big.peak > 100_000_000 > small.peak > 1_000_000
    assert small.cpu < 0.1


# -- nursery and worker ----------------------------------------------------------------------------


async def test_a_new_nursery_comes_when_it_dies(bench: Any) -> None:
    """Bodies end with their nursery, which says so; the next body runs under a new one."""
    b = await bench()
    nursery = b.pool.nursery_pid
    _, task = await b.begin("holds_gil")
    pids = b.pool.pids()
    os.kill(nursery, signal.SIGKILL)
    end = await asyncio.wait_for(task, 10)
    assert (end.died, end.reason) == (True, "nursery")
    await await_until(lambda: not any(map(alive, pids)), description="the children are gone")
    assert not (await b.run("nothing")).died
    assert b.pool.nursery_pid not in (None, nursery)


async def test_a_pool_that_gets_no_child_says_why() -> None:
    """Where the first children do not come up, `start` tells the reason and leaves nothing behind."""
    b = Bench(performer="tests.bodies:absent")
    with pytest.raises(PoolError, match="absent"):
        await b.pool.start()
    assert b.pool.pids() == [] and b.pool.nursery_pid is None


async def test_three_failed_births_stop_the_claiming_until_one_succeeds(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trouble` says why nothing may be claimed; it ends by itself with its cause."""
    switch = tmp_path / "broken"
    monkeypatch.setenv("NBJOBS_TEST_SWITCH", str(switch))
    b = await bench(performer="tests.bodies:make_unless_broken")
    await b.run("nothing")
    switch.touch()
    for _ in range(3):
        end = await b.run("kills_itself", 9)
        if end.reason:
            break
    assert (end.died, end.started, end.reason) == (True, False, "no child")
    assert "no make_unless_broken at present" in end.last_lines[0]
    assert "no make_unless_broken at present" in b.pool.trouble
    assert b.pool.free("sync") == b.pool.free("async") == 0
    switch.unlink()
    await await_until(lambda: b.pool.free("sync") == 2, 20, "children can be born again")
    assert b.pool.trouble == "" and not (await b.run("nothing")).died


async def test_close_ends_everything(bench: Any) -> None:
    """After `close` no process is left; bodies that still ran end as died, reason closed."""
    b = await bench()
    tasks = [(await b.begin(body))[1] for body in ("holds_gil", "waits_for_stop", "await_stop")]
    await b.run("nothing")
    pids = [*b.pool.pids(), b.pool.nursery_pid]
    await b.pool.close()
    assert not any(map(alive, pids))
    assert [(await task).reason for task in tasks] == ["closed"] * 3
    assert b.pool.free("sync") == 0


async def test_nothing_is_leaked_by_many_runs(bench: Any) -> None:
    """After 200 runs in a row, deaths and replacements among them, descriptors and processes are as before."""
    b = await bench(child_runs=20)
    await b.run("nothing")
    await await_until(lambda: len(b.pool._idle) == 2, description="a spare is up")

    def usage() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())) - 3 * len(b.pool.pids()), len(b.pool.pids())

    before = usage()
    for number in range(200):
        body = {0: "kills_itself", 1: "leaves_thread"}.get(number % 50, "prints")
        await b.run(body, *([9] if body == "kills_itself" else []))
    await await_until(lambda: usage()[0] == before[0] and usage()[1] <= 4, description="all is as before")
    children = Path(f"/proc/{b.pool.nursery_pid}/task/{b.pool.nursery_pid}/children")
    assert len(children.read_text().split()) == len(b.pool.pids())
    assert b.pool._held == {} and b.pool._lent == {"sync": 0, "async": 0}


async def test_a_child_can_be_a_new_interpreter(bench: Any) -> None:
    """Where forking is not safe (macOS) a child is executed, and behaves the same."""
    b = await bench(birth="spawn")
    facts = await b.value("facts")
    assert facts["group"] == facts["pid"] and facts["fds"]["0"] == "/dev/null" and facts["main_thread"]
    assert (await b.run("kills_itself", 9)).signal == 9
    assert await b.value("apid") > 0
    await b.run("prints", "hello")
    assert b.lines()[-1] == "hello"


async def test_on_windows_a_worker_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no Unix processes, the message names the way out."""
    pool = Pool(NbJobs(), lambda claim, lines: None)
    monkeypatch.setattr("nbjobs.pool.sys.platform", "win32")
    with pytest.raises(PoolError, match="WSL"):
        await pool.start()


WORKER = """
import asyncio, signal, sys
from nbjobs.pool import Pool
from nbjobs.settings import NbJobs
from tests.bodies import Claim

async def main():
    pool = Pool(NbJobs(children=2), lambda claim, lines: None, performer="tests.bodies:make")
    await pool.start()
    runs = [pool.run(Claim(owner=f"w:{n}", body="starts_programs_and_holds_gil", args=[note]))
            for n, note in enumerate(sys.argv[1:])]
    await asyncio.gather(*runs, pool.run(Claim(owner="w:a", body="await_stop", kind="async")))

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
asyncio.run(main())
"""


def start_worker(folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A worker with two bodies that hold the interpreter and have programs; the ids of all processes."""
    notes = [folder / "one", folder / "two"]
    worker = subprocess.Popen([sys.executable, "-c", WORKER, *map(str, notes)], cwd=Path(__file__).parents[1])
    wait_until(lambda: all(note.exists() for note in notes), 20, "both bodies run")
    nursery = next(pid for pid in children_of(worker.pid))
    bodies = [int(pid) for note in notes for pid in note.read_text().split()]
    return worker, [nursery, *bodies, *(pid for pid in children_of(nursery) if pid not in bodies)]


@pytest.mark.fault(row=4)
def test_no_process_outlives_a_killed_worker(tmp_path: Path) -> None:
    """A worker is SIGKILLed while bodies hold the interpreter: one second later nothing of it is left."""
    worker, pids = start_worker(tmp_path)
    worker.kill()
    worker.wait()
    wait_until(lambda: not any(map(alive, pids)), 1, "children, their programs and the nursery are gone")


@pytest.mark.fault(row=4)
def test_children_do_not_outlive_worker_and_nursery_killed_at_once(tmp_path: Path) -> None:
    """The kernel ends the children where nobody is left to do it."""
    worker, (nursery, *pids) = start_worker(tmp_path)
    bodies = children_of(nursery)
    try:
        os.kill(worker.pid, signal.SIGSTOP)
        os.kill(nursery, signal.SIGKILL)
        worker.kill()
        worker.wait()
        wait_until(lambda: not any(map(alive, bodies)), 1, "the children are gone")
    finally:
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_worker_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    """A worker that ends by an error, without closing anything, takes its processes along."""
    worker, pids = start_worker(tmp_path)
    worker.send_signal(signal.SIGINT)
    worker.wait()
    wait_until(lambda: not any(map(alive, pids)), 1, "all are gone")
