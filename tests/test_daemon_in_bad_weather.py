"""The embedded daemon where its surroundings misbehave, with real processes in a home of its own."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nbjobs import Run, connection, embedded, lock
from nbjobs.embedded import ask, hello
from nbjobs.environment import environment
from nbjobs.settings import set_current

from . import workjobs
from .homes import Home
from .support import wait_until
from .workers import Ledger, gone


@pytest.fixture
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    """A home of its own; a test that is parametrised with `home` says with which settings."""
    with Home(**getattr(request, "param", {})) as found:
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
    wait_until(home.status, 60, "the daemon answers")
    run = workjobs.items.enqueue(ledger.path, 3000)
    ledger.wait_for(20, 60)
    family = home.family()
    guard = home.member("guard.py")
    guard.suspend()
    other = hello(home.settings, environment()._replace(cwd=str(home.work), hash="0" * 12))
    asking = threading.Thread(target=lambda: ask(home.places, other))
    asking.start()
    wait_until(lambda: None in workers(home), 60, "the start of the second worker is under way")
    assert "is being started" in home.run("up", "--no-worker").stdout
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: ask(home.places, {"op": "status"}) == {"ending": True}, 60)
    guard.resume()
    output, _ = process.communicate(timeout=60)
    asking.join()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    wait_until(lambda: gone(family), 10.0)
    ledger.open_gate()
    connection.drop_client()
    embedded.url(home.settings)
    run.wait(timeout=60)
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
    wait_until(there, 60, f"{seen} is there", every=0.001)
    family = [me, *me.children(recursive=True)]
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    wait_until(lambda: gone(family), 10.0)


@pytest.mark.slow
@pytest.mark.weather("D3")
def test_workers_killed_in_quick_succession_cost_a_moment_each(home: Home, ledger: Ledger) -> None:
    """As long as they make progress, the sixth death costs no more than the first."""
    run = workjobs.items.enqueue(ledger.path, 3000)
    ledger.wait_for(20, 60)
    for _ in range(6):
        home.member("worker").kill()
        ledger.wait_for(len(ledger.lines()) + 20, 25)  # a back-off would wait for 30 s before the last
    ledger.open_gate()
    run.wait(timeout=60)
    assert sorted(set(ledger.items())) == list(range(3000))
    assert reasons(run) == ["worker_died"] * 6


def elsewhere(home: Home) -> None:
    """Let further commands and scripts have another runtime directory than the daemon."""
    home.environment["NBJOBS_RUNTIME_DIR"] = str(home.folder / "elsewhere")


@pytest.mark.weather("H8")
def test_a_daemon_is_found_by_its_data_whatever_the_runtime_directory_is(home: Home) -> None:
    """A login shell, a cron job and a service have different ones: each finds the one daemon, and can end it."""
    (home.work / "mine.py").write_text("from nbjobs import job\n@job\ndef double(x):\n    return 2 * x\n")
    home.run("up", "--detach", "--no-worker")
    family = home.family()
    elsewhere(home)
    assert home.script("import mine\nprint(mine.double.enqueue(21).result(timeout=30))\n").stdout == "42\n"
    for arguments in (["up"], ["up", "--detach"], ["status"]):
        assert f"nbjobs is up (process {family[0].pid}, since" in home.run(*arguments).stdout
    assert home.run("down").stdout == "nbjobs is down\n"
    wait_until(lambda: gone(family), 10.0)
    assert home.run("status", check=False).returncode == 1


@pytest.mark.weather("H8")
@pytest.mark.parametrize("variable", ["the same", "another"])
def test_a_daemon_whose_sockets_are_gone_can_be_ended(home: Home, variable: str) -> None:
    """By the process that its lock names, also before the daemon itself has noticed."""
    home.run("up", "--detach")
    family = home.family()
    if variable == "another":
        elsewhere(home)
    family[0].suspend()  # so that it makes nothing anew
    shutil.rmtree(home.folder / "run")
    down = home.start("down")
    wait_until(lambda: signal.SIGTERM in pending(family[0].pid), 60, "`down` has sent its signal")
    family[0].resume()
    output, _ = down.communicate(timeout=60)
    assert (down.returncode, output) == (0, "nbjobs is down\n")
    wait_until(lambda: gone(family), 10.0)
    assert "was killed" not in home.log()


def sweep(path: Path) -> None:
    """Remove a directory at one moment: somebody may put things into it meanwhile."""
    away = path.rename(path.with_name("swept"))
    shutil.rmtree(away)


def pending(pid: int) -> set[int]:
    """Return the signals that a process has not taken yet."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.split("ShdPnd:")[1].split()[0], 16)
    return {number for number in range(1, 32) if mask & 1 << number - 1}


@pytest.mark.weather("H8")
@pytest.mark.parametrize("swept", ["the directory", "daemon.sock", "redis.sock"])
def test_sockets_that_were_removed_are_made_anew(home: Home, ledger: Ledger, swept: str) -> None:
    """Within seconds: a body that dies meanwhile comes back, new clients come in, and no worker is ended."""
    run = workjobs.items.enqueue(ledger.path, 3000)
    ledger.wait_for(20, 60)
    pids = [home.daemon().pid, home.member("nbjobs.nursery").ppid()]
    if swept == "the directory":
        sweep(home.folder / "run")
    else:
        (home.folder / "run" / swept).unlink()
    psutil.Process(int(ledger.lines()[-1][1])).kill()
    done = len(ledger.lines())
    ledger.wait_for(done + 20, 30)
    ledger.open_gate()
    connection.drop_client()
    assert workjobs.add.enqueue(1, 2).result(timeout=60) == 3
    run.wait(timeout=60)
    assert sorted(set(ledger.items())) == list(range(3000))
    assert reasons(run) == ["child_died"]
    wait_until(home.status, 60)
    assert [home.daemon().pid, home.member("nbjobs.nursery").ppid()] == pids


@pytest.mark.weather("H8")
@pytest.mark.parametrize("taken", ["run", "data/redis"])
def test_a_daemon_that_cannot_be_reached_again_drains_and_leaves(home: Home, ledger: Ledger, taken: str) -> None:
    """Something else lies where its directory was: bodies end their items, nothing is killed, nothing lives on."""
    process = home.start("up", "--no-worker")
    wait_until(home.status, 60, "the daemon answers")
    run = workjobs.items.enqueue(ledger.path, 3000)
    ledger.wait_for(20, 60)
    family = home.family()
    family[0].suspend()  # or it makes it anew before something else is there
    sweep(home.folder / taken)
    (home.folder / taken).write_text("")
    family[0].resume()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"the daemon of {home.settings.data_dir} cannot go on" in output
    assert "Traceback" not in output
    wait_until(lambda: gone(family), 10.0)
    (home.folder / taken).unlink()
    assert home.run("down").stdout == "nbjobs is not up: nothing to end\n"
    if taken == "run":  # else its data are gone
        ledger.open_gate()
        connection.drop_client()
        embedded.url(home.settings)
        run.wait(timeout=60)
        assert reasons(run) == ["stopping"]
        assert ledger.items() == list(range(3000))


@pytest.mark.weather("H8")
def test_a_lock_that_was_removed_is_taken_again_by_the_daemon(home: Home) -> None:
    """Within seconds, so that no second daemon starts on its data."""
    home.run("up", "--detach", "--no-worker")
    (home.folder / "data" / "daemon.lock").unlink()
    wait_until(lambda: lock.holder(home.folder / "data"), 30)
    assert f"process {home.daemon().pid}," in home.run("up", "--detach", "--no-worker").stdout


def kill_daemon_and_guard(home: Home) -> None:
    """Leave the guard no time to end the others."""
    daemon, guard = home.daemon(), home.member("guard.py")
    guard.suspend()
    daemon.kill()
    guard.kill()


@pytest.mark.weather("low: orphans")
def test_what_outlives_daemon_and_guard_is_ended_by_down(home: Home, ledger: Ledger) -> None:
    """The worker drains by itself; Redis is ended after it."""
    run = workjobs.items.enqueue(ledger.path, 3000)
    ledger.wait_for(20, 60)
    family = home.family()
    kill_daemon_and_guard(home)
    assert home.run("down").stdout == "nbjobs is down\n"
    wait_until(lambda: gone(family), 10.0)
    assert home.run("down").stdout == "nbjobs is not up: nothing to end\n"
    ledger.open_gate()
    connection.drop_client()
    embedded.url(home.settings)
    run.wait(timeout=60)
    assert reasons(run) == ["stopping"]
    assert ledger.items() == list(range(3000))


@pytest.mark.weather("low: orphans")
@pytest.mark.parametrize("home", [{"lease": 90.0}], indirect=True)
def test_what_outlives_daemon_and_guard_is_replaced_for_the_next_client(home: Home, ledger: Ledger) -> None:
    """It waits for no lease; the old worker drains and leaves, and its run goes on in the new one."""
    run = workjobs.items.enqueue(ledger.path, 3000)
    ledger.wait_for(20, 60)
    family = home.family()
    kill_daemon_and_guard(home)
    connection.drop_client()
    assert workjobs.add.enqueue(1, 2).result(timeout=60) == 3
    wait_until(lambda: gone(family), 20, "the old worker has left")
    ledger.open_gate()
    run.wait(timeout=60)
    assert reasons(run) == ["stopping"]
    assert sorted(set(ledger.items())) == list(range(3000))


@pytest.mark.weather("A4")
def test_down_beside_a_redis_of_ones_own_ends_nothing_in_silence(home: Home) -> None:
    """It says what is up, and what ends it."""
    home.run("up", "--detach", "--no-worker")
    daemon = home.daemon()
    home.environment["NBJOBS_REDIS_URL"] = "redis://127.0.0.1:1/0"
    done = home.run("down", check=False)
    assert done.returncode == 1
    assert "NBJOBS_REDIS_URL names a Redis of your own" in done.stderr
    assert f"(process {daemon.pid}, since" in done.stderr and "`nbjobs down --embedded` ends that" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "runs are there, not in the embedded one" in home.run("status").stdout
    assert daemon.is_running()
    assert home.run("down", "--embedded").stdout == "nbjobs is down\n"
    assert "nothing to end. NBJOBS_REDIS_URL names" in home.run("down").stdout
    del home.environment["NBJOBS_REDIS_URL"]


@pytest.mark.weather("M11")
def test_a_log_that_is_a_link_is_not_written(home: Home) -> None:
    """Whoever has put it there would get the daemon to write elsewhere."""
    embedded.places(home.settings)
    (home.folder / "precious").write_text("kept")
    (home.folder / "data" / "daemon.log").symlink_to(home.folder / "precious")
    done = home.run("up", "--detach", check=False)
    assert done.returncode == 1
    assert "daemon.log cannot be written" in done.stderr
    assert (home.folder / "precious").read_text() == "kept"
