"""What keeps a worker alive, with programs that end when a test says so; the guard's side with a real guard."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from nbjobs import daemon
from nbjobs.daemon import Daemon
from nbjobs.directories import Places
from nbjobs.errors import EmbeddedError
from nbjobs.keeper import Keeper, Wanted
from nbjobs.lock import Lock
from nbjobs.programs import Program, Programs
from nbjobs.settings import NbJobs
from nbjobs.steward import Steward

from .support import await_until

WANTED = Wanted(python=sys.executable, cwd="/", path=(), queue="q", key="hash q", variables={})


class Stand:
    """In the place of programs and steward: notes what a keeper does, in order."""

    def __init__(self, *, signs: bool = False) -> None:
        self.done: list[str] = []
        self.programs: list[Program] = []
        self.signs = signs
        self.gate = asyncio.Event()
        self.gate.set()
        self.missing = False

    async def start(self, argv: Any, **options: Any) -> Program:
        await self.gate.wait()
        if self.missing:
            raise EmbeddedError("no such file")
        self.programs.append(Program(100 + len(self.programs), cast(Programs, self)))
        self.done.append("start")
        return self.programs[-1]

    def tell(self, message: dict[str, Any]) -> None:
        self.done.append(f"signal {message['signal']}")
        self.die(-message["signal"])

    def die(self, code: int = 1) -> None:
        self.programs[-1].ended.set_result(code)

    async def give_back(self, pid: int, code: int) -> None:
        self.done.append(f"give back {pid}")

    async def has_signed(self, queue: str, pid: int) -> bool:
        return self.signs

    async def starts(self, count: int, within: float = 5.0) -> None:
        await await_until(lambda: len(self.programs) == count, within, f"{count} starts")

    def keeper(self) -> Keeper:
        return Keeper(WANTED, cast(Programs, self), cast(Steward, self), Places(Path("/r"), Path("/d")))


@pytest.mark.weather("D3")
async def test_what_a_dead_worker_held_is_given_back_before_all_else() -> None:
    """Also where no other worker can be started, and before any pause."""
    stand = Stand()
    keeping = asyncio.create_task((keeper := stand.keeper()).keep())
    await keeper.started()
    for count in (1, 2, 3):
        await stand.starts(count)
        stand.die()
    await await_until(lambda: stand.done[-1] == "give back 102", 0.5)  # the pause after the third is 0.8 s
    stand.missing = True
    await asyncio.wait_for(keeping, 5)
    assert stand.done == ["start", "give back 100", "start", "give back 101", "start", "give back 102"]
    assert keeper.gone


@pytest.mark.weather("D3")
async def test_a_worker_that_took_runs_is_replaced_at_once_however_often_it_dies() -> None:
    """The back-off is for workers that cannot begin."""
    stand = Stand(signs=True)
    keeping = asyncio.create_task((keeper := stand.keeper()).keep())
    for count in range(1, 8):
        await stand.starts(count, 0.5)
        stand.die(-9)
    await stand.starts(8, 0.5)
    keeper.stop()
    await asyncio.wait_for(keeping, 5)


@pytest.mark.weather("D3")
async def test_a_client_ends_the_back_off() -> None:
    """It asks for a worker, so one is started at once, and the next pauses are short again."""
    stand = Stand()
    keeping = asyncio.create_task((keeper := stand.keeper()).keep())
    for count in (1, 2, 3, 4):
        await stand.starts(count)
        stand.die()
    await await_until(lambda: stand.done[-1] == "give back 103")
    with pytest.raises(AssertionError):
        await stand.starts(5, 0.3)  # the pause after the fourth is 3.2 s
    await keeper.started()
    await stand.starts(5, 0.5)
    stand.die()
    await stand.starts(6, 0.5)
    keeper.stop()
    await asyncio.wait_for(keeping, 5)


@pytest.mark.weather("D1")
async def test_a_worker_can_be_described_and_stopped_while_it_is_started() -> None:
    """It has no process yet; it gets its signal as soon as it has one, and is waited for."""
    stand = Stand()
    stand.gate.clear()
    keeping = asyncio.create_task((keeper := stand.keeper()).keep())
    await asyncio.sleep(0)
    assert keeper.describe()["pid"] is None
    keeper.stop()
    await keeper.end()
    drained = asyncio.create_task(keeper.drained())
    stand.gate.set()
    await asyncio.wait_for(asyncio.gather(drained, keeping), 5)
    assert stand.done == ["start", f"signal {signal.SIGTERM}", "give back 100"]


@pytest.mark.weather("D3")
async def test_a_stop_does_not_wait_for_the_back_off() -> None:
    """Nothing is started after it."""
    stand = Stand()
    keeping = asyncio.create_task((keeper := stand.keeper()).keep())
    for count in (1, 2, 3, 4):
        await stand.starts(count)
        stand.die()
    await await_until(lambda: stand.done[-1] == "give back 103")
    keeper.stop()
    await asyncio.wait_for(keeping, 1)
    assert len(stand.programs) == 4


@pytest.mark.weather("D2")
@pytest.mark.parametrize("argv", [["sleep", "60"], ["/no/such/program"]])
async def test_a_start_that_is_cancelled_disturbs_no_other(argv: list[str]) -> None:
    """The guard's answer comes when nobody waits for it any more; a program that it started is ended."""
    programs = Programs()
    await programs.open()
    os.kill(programs._process.pid, signal.SIGSTOP)
    start = asyncio.create_task(programs.start(argv))
    await await_until(lambda: programs._starting)
    start.cancel()
    await asyncio.wait({start})
    os.kill(programs._process.pid, signal.SIGCONT)
    await await_until(lambda: not programs._starting and not programs._running)
    program = await programs.start(["true"])
    assert await program.ended == 0
    await programs.close()


@pytest.mark.weather("H7")
async def test_a_request_longer_than_the_daemon_takes_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read to its end, and the answer says what is too long."""
    monkeypatch.setattr(daemon, "REQUEST_MAX", 1000)
    reader = asyncio.StreamReader(limit=1000)
    reader.feed_data(json.dumps({"op": "hello", "wide": "x" * 5000}).encode() + b"\n")
    answers: list[bytes] = []

    class Writer:
        write = staticmethod(answers.append)

        async def drain(self) -> None: ...

        def close(self) -> None: ...

    served = Daemon(NbJobs(), Lock(Places(Path("/r"), Path("/d"))))
    await served._serve(reader, cast(asyncio.StreamWriter, Writer()))
    assert "environment variables" in json.loads(answers[0])["error"]
