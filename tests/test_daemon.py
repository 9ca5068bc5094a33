"""The embedded daemon, with real processes in a home of its own."""

from __future__ import annotations

import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from nbjobs import Run, connection, embedded
from nbjobs.embedded import ask, hello
from nbjobs.environment import environment
from nbjobs.settings import set_current
from nbjobs.store import Store

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


def test_up_detached_and_down(home: Home) -> None:
    """`up --detach` comes back when all is ready; `down` leaves nothing within two seconds."""
    said = home.run("up", "--detach").stdout
    assert "nbjobs is up" in said
    assert str(home.places.redis_socket) in said
    assert f"in {home.work}" in said
    assert stat.S_IMODE(home.places.redis_socket.stat().st_mode) == 0o700
    family = home.family()
    assert home.run("down").stdout == "nbjobs is down\n"
    wait_until(lambda: gone(family), 2.0, "all processes have ended")
    assert not home.places.redis_socket.exists()
    assert home.run("down").stdout == "nbjobs is not up: nothing to end\n"


def test_up_beside_a_running_daemon_shows_it(home: Home) -> None:
    """It says so, with process, Redis and workers, and starts no second one."""
    first = home.run("up", "--detach").stdout
    daemon = home.daemon().pid
    for arguments in (["up"], ["up", "--detach"]):
        said = home.run(*arguments).stdout
        assert said.startswith(f"nbjobs is up (process {daemon}, since")
        assert said == first


def test_up_in_the_foreground_ends_with_its_terminal(home: Home) -> None:
    """Ctrl-C drains; the process ends with code 0 and leaves nothing."""
    process = home.start("up")
    wait_until(lambda: (status := home.status()) and status["workers"], 10, "the worker is kept")
    family = home.family()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 0, output
    assert "Ctrl-C ends it" in output
    wait_until(lambda: gone(family), 2.0)


def test_a_client_needs_nothing_but_the_import(home: Home) -> None:
    """In an empty folder, with nothing running, a script's job completes."""
    (home.work / "mine.py").write_text("from nbjobs import job\n@job\ndef double(x):\n    return 2 * x\n")
    done = home.script("import mine\nprint(mine.double.enqueue(21).result(timeout=30))\n")
    assert done.stdout == "42\n"


def test_an_environment_has_one_worker(home: Home) -> None:
    """However often it is asked for; another directory is another environment."""
    embedded.url(home.settings)
    embedded.url(home.settings)
    status = home.status()
    assert status is not None
    assert [worker["cwd"] for worker in status["workers"]] == [environment().cwd]
    home.run("up", "--detach")
    status = home.status()
    assert status is not None
    assert [worker["cwd"] for worker in status["workers"]] == [environment().cwd, str(home.work)]


def test_several_workers_of_an_environment() -> None:
    """The setting `workers` says how many."""
    with Home(workers=2) as home:
        assert home.run("up", "--detach").stdout.count("  worker  ") == 2


@pytest.mark.fault(4)
def test_a_killed_worker_costs_about_a_second(home: Home, ledger: Ledger) -> None:
    """The daemon saw its end: the run goes on in the next worker without waiting for the lease."""
    workjobs.add.enqueue(1, 2).wait(timeout=30)
    run = workjobs.items.enqueue(ledger.path, 2000)
    ledger.wait_for(20)
    done = len(ledger.lines())
    home.member("worker").kill()
    began = time.monotonic()
    ledger.wait_for(done + 30)
    assert time.monotonic() - began < 10  # 15 s is the lease; it takes 1 s where nobody else works
    ledger.open_gate()
    run.wait(timeout=20)
    assert sorted(set(ledger.items())) == list(range(2000))
    assert reasons(run) == ["worker_died"]


def test_a_killed_daemon_leaves_nothing_and_the_next_client_goes_on(home: Home, ledger: Ledger) -> None:
    """The guard ends Redis and workers; a new daemon gives back what they held."""
    workjobs.add.enqueue(1, 2).wait(timeout=30)
    run = workjobs.items.enqueue(ledger.path, 2000)
    ledger.wait_for(20)
    family = home.family()
    family[0].kill()
    wait_until(lambda: gone(family), 2.0, "nothing of the daemon lives")
    ledger.open_gate()
    connection.drop_client()
    embedded.url(home.settings)
    run.wait(timeout=30)
    assert run.state == "completed"
    assert sorted(set(ledger.items())) == list(range(2000))
    assert reasons(run) == ["worker_died"]


def test_a_killed_guard_is_replaced(home: Home, ledger: Ledger) -> None:
    """Without a guard nothing may run: all is ended and started again, and runs go on."""
    workjobs.add.enqueue(1, 2).wait(timeout=30)
    run = workjobs.items.enqueue(ledger.path, 2000)
    ledger.wait_for(20)
    family = home.family()
    home.member("guard.py").kill()
    wait_until(lambda: gone(family[1:]), 3.0, "what the guard had started has ended")
    ledger.open_gate()
    run.wait(timeout=30)
    assert sorted(set(ledger.items())) == list(range(2000))
    assert family[0].is_running()


def test_a_client_outlives_the_daemon(home: Home) -> None:
    """After `down` the same process goes on: the daemon is started again, with a worker for this process."""
    assert workjobs.add.enqueue(1, 2).result(timeout=30) == 3
    home.run("down")
    assert workjobs.add.enqueue(2, 3).result(timeout=30) == 5
    home.run("down")
    home.run("up", "--detach")  # somebody else's
    assert workjobs.add.enqueue(3, 4).result(timeout=30) == 7


@pytest.mark.fault(16)
def test_a_killed_redis_is_started_again(home: Home, ledger: Ledger) -> None:
    """The same attempt goes on."""
    workjobs.add.enqueue(1, 2).wait(timeout=30)
    run = workjobs.items.enqueue(ledger.path, 2000)
    ledger.wait_for(20)
    home.member("redis-server").kill()
    ledger.open_gate()
    run.wait(timeout=30)
    assert run.state == "completed"
    assert sorted(set(ledger.items())) == list(range(2000))
    assert home.status() is not None


def test_down_releases_a_run_whose_item_does_not_end(home: Home, ledger: Ledger) -> None:
    """`down` waits for nobody longer than two seconds, and counts no crash."""
    run = workjobs.endless.enqueue(ledger.path)
    ledger.wait_for(1, 30)
    family = home.family()
    home.run("down")
    wait_until(lambda: gone(family), 1.0)
    connection.drop_client()
    embedded.url(home.settings, worker=False)
    store = Store(connection.client(), "ada", home.settings)
    assert store.read(run.id, "state", "crashes") == ["queued", "0"]


def test_the_daemon_leaves_when_nobody_needs_it() -> None:
    """Neither a client nor an unfinished run: it ends, with all that it started. A paused run does not keep it."""
    with Home(idle_exit=1.5) as home:
        home.run("up", "--detach", "--no-worker")
        family = home.family()
        client = redis.Redis.from_url(home.places.redis_url, decode_responses=True)
        store = Store(client, "ada", home.settings)
        fields = {"job": "x.y", "args": "[[],{}]", "kind": "sync", "queue": "nobody", "user": "ada"}
        store.enqueue("kept", fields)
        client.close()
        assert not _ends(family, 3.0), "a queued run keeps it"
        store.control("kept", "pause", 1)
        assert not _ends(family, 3.0), "a connected client keeps it"
        client.close()
        wait_until(lambda: gone(family), 8.0, "the daemon has left")


def _ends(family: list[psutil.Process], within: float) -> bool:
    try:
        wait_until(lambda: gone(family[:1]), within)
    except AssertionError:
        return False
    return True


def test_two_daemons_live_side_by_side(home: Home) -> None:
    """Other directories are another daemon."""
    with Home() as other:
        home.run("up", "--detach", "--no-worker")
        other.run("up", "--detach", "--no-worker")
        assert home.daemon().pid != other.daemon().pid


def test_a_worker_that_cannot_be_started_is_told(home: Home) -> None:
    """An interpreter that is gone: the client hears it, the daemon goes on."""
    home.run("up", "--detach", "--no-worker")
    wanted = environment()._replace(python="/no/such/python")
    with pytest.raises(embedded.EmbeddedError, match=r"interpreter /no/such/python cannot be started in"):
        ask(home.places, hello(home.settings, wanted))
    assert home.status() is not None


def test_a_worker_that_ends_at_once_is_told(home: Home) -> None:
    """Who waits for the worker hears that it ended, and where the reason is."""
    home.run("up", "--detach", "--no-worker")
    wanted = environment()._replace(path=(str(home.work),))
    with pytest.raises(embedded.EmbeddedError, match=r"ended with code 1: see .*daemon\.log"):
        ask(home.places, hello(home.settings, wanted, wait=True))


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[1]\n", b'{"op": "hello", "worker": {}}\n', b"\xff\n"])
def test_a_bad_request_harms_nobody(home: Home, line: bytes) -> None:
    """Whatever comes in on the socket, the daemon goes on."""
    import socket

    home.run("up", "--detach", "--no-worker")
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(home.places.daemon_socket))
        link.sendall(line)
        link.makefile("rb").readline()
    assert home.status() is not None
