"""The embedded daemon where its surroundings misbehave, with real processes in a home of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nbjobs import Run, connection, embedded
from nbjobs.embedded import ask, hello
from nbjobs.environment import environment
from nbjobs.settings import set_current

from . import workjobs
from .homes import Home
from .support import wait_until
from .workers import Ledger, gone


@pytest.fixture
def home() -> Iterator[Home]:
    with Home() as found:
        set_current(found.settings)
        yield found
        connection.drop_client()
        set_current(None)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def reasons(run: Run) -> list[str]:
    return [event.payload["reason"] for event in run.events() if event.name == "job.interrupt"]


def workers(home: Home) -> list[int | None]:
    status = home.status()
    assert status is not None, home.log()
    return [worker["pid"] for worker in status["workers"]]


JOB = """
import os
from nbjobs import job
@job
def told(count):
    return [len(os.environ[f"BIG_{number}"]) for number in range(count)]
"""


@pytest.mark.weather("H7")
def test_an_environment_as_large_as_the_system_takes_reaches_the_bodies(home: Home) -> None:
    """From the first client, which starts the daemon, to the worker's children; with text that is no UTF-8, too."""
    (home.work / "mine.py").write_text(JOB)
    big = {f"BIG_{number}": "x" * 120_000 for number in range(15)}  # the system takes 2 MB in all
    home.environment |= {**big, "ODD": os.fsdecode(b"caf\xe9")}
    done = home.script("import mine\nprint(sum(mine.told.enqueue(15).result(timeout=60)))\n")
    assert done.stdout == f"{15 * 120_000}\n"


@pytest.mark.weather("H7")
def test_an_environment_too_large_for_a_process_is_told(home: Home) -> None:
    """By the daemon where the request is too long, by the system where the worker cannot have it; both go on."""
    home.run("up", "--detach", "--no-worker")
    for size, said in ((3 << 20, "cannot be started.*Argument list too long"), (17 << 20, "more than 16 MiB")):
        request = hello(home.settings, environment())
        request["worker"]["variables"] |= {"HUGE": "x" * size}
        with pytest.raises(embedded.EmbeddedError, match=said):
            ask(home.places, request)
    assert home.status() is not None


@pytest.mark.weather("D1")
def test_a_stop_while_a_worker_is_started_drains_the_others(home: Home, ledger: Ledger) -> None:
    """The run of another environment is released at its next checkpoint, and the daemon ends as always."""
    process = home.start("up", "--no-worker")
    wait_until(home.status, 20, "the daemon answers")
    run = workjobs.items.enqueue(ledger.path, 3000)
    ledger.wait_for(20, 30)
    family = home.family()
    guard = home.member("guard.py")
    guard.suspend()
    other = hello(home.settings, environment()._replace(cwd=str(home.work), hash="0" * 12))
    asking = threading.Thread(target=lambda: ask(home.places, other))
    asking.start()
    wait_until(lambda: None in workers(home), 10, "the start of the second worker is under way")
    assert "is being started" in home.run("up", "--no-worker").stdout
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: ask(home.places, {"op": "status"}) == {"ending": True}, 10)
    guard.resume()
    output, _ = process.communicate(timeout=40)
    asking.join()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    wait_until(lambda: gone(family), 2.0)
    ledger.open_gate()
    connection.drop_client()
    embedded.url(home.settings)
    run.wait(timeout=40)
    assert reasons(run) == ["stopping"]
    assert ledger.items() == list(range(3000))


@pytest.mark.weather("D2")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seen", ["guard", "redis.sock", "daemon.sock"])
def test_a_stop_before_the_daemon_is_ready_is_a_clean_end(home: Home, seen: str, number: signal.Signals) -> None:
    """Whenever it comes: no traceback, code 0, nothing lives on."""
    process = home.start("up")
    me = psutil.Process(process.pid)
    there = me.children if seen == "guard" else (home.folder / "run" / seen).exists
    wait_until(there, 20, f"{seen} is there", every=0.001)
    family = [me, *me.children(recursive=True)]
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    wait_until(lambda: gone(family), 3.0)


@pytest.mark.slow
@pytest.mark.weather("D3")
def test_workers_killed_in_quick_succession_cost_a_moment_each(home: Home, ledger: Ledger) -> None:
    """As long as they make progress, the fifth death costs no more than the first."""
    run = workjobs.items.enqueue(ledger.path, 3000)
    ledger.wait_for(20, 30)
    for _ in range(5):
        home.member("worker").kill()
        ledger.wait_for(len(ledger.lines()) + 20, 8)  # a back-off would wait for 12.8 s before the last
    ledger.open_gate()
    run.wait(timeout=30)
    assert sorted(set(ledger.items())) == list(range(3000))
    assert reasons(run) == ["worker_died"] * 5
