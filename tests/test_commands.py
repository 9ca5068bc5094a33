"""The commands about runs, as processes: what they print, and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import redis

from nbjobs import Run, keys
from nbjobs.settings import NbJobs

from . import workjobs
from .support import wait_until
from .workers import ROOT, Worker, bare_environment

pytestmark = pytest.mark.leaky  # workers leave their sign, their queue's entries and a lock

KEYS = keys.Keys("ada")


class Shell:
    """Runs ``nbjobs`` against the Redis of a test."""

    def __init__(self, url: str) -> None:
        self._environment = bare_environment(redis_url=url, user="ada")

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "nbjobs", *arguments],
            cwd=ROOT,
            env={**self._environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def __call__(self, *arguments: str, **environment: str) -> list[str]:
        """Run a command that works; return the lines that it prints."""
        done = self.run(*arguments, **environment)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout.splitlines()

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command with ``--json``; return what it prints."""
        return [json.loads(line) for line in self(*arguments, "--json")]

    def complaint(self, *arguments: str) -> str:
        """Run a command that does not; return the one line that it says."""
        done = self.run(*arguments)
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith("nbjobs: "), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.removeprefix("nbjobs: ").strip()


@pytest.fixture
def shell(redis_url: str, nbjobs_settings: NbJobs) -> Shell:
    return Shell(redis_url)


@pytest.fixture
def two(nbjobs_settings: NbJobs, redis_client: redis.Redis) -> dict[str, Run]:
    """One run that is paused, and then one that is queued."""
    paused = workjobs.add.options(id="paused").enqueue(1, 2)
    paused.pause()
    changed = redis_client.zscore(KEYS.runs, "paused")
    wait_until(lambda: redis_client.time()[0] * 1000 + redis_client.time()[1] // 1000 > changed)
    return {"paused": paused, "queued": workjobs.items.options(id="queued").enqueue("ledger", 5)}


# -- runs ----------------------------------------------------------------------------------------


def test_runs_are_a_table(shell: Shell, two: dict[str, Run], redis_client: redis.Redis) -> None:
    """A head and a line for each, nothing cut where it is piped, and no colours."""
    redis_client.hset(KEYS.run("queued"), mapping={"step": "load_rows", "done": "1200", "total": "5000"})
    redis_client.zincrby(KEYS.runs, -7_200_000, "paused")
    head, first, second = shell("runs", FORCE_COLOR="")
    assert head.split() == ["RUN", "JOB", "STATE", "PROGRESS", "CHANGED"]
    assert first.split()[:7] == ["queued", "items", "queued", "load_rows", "1,200", "of", "5,000"]
    assert second.split() == ["paused", "add", "paused", "2", "h", "ago"]
    assert "\x1b" not in head + first + second


def test_runs_are_chosen(shell: Shell, two: dict[str, Run], redis_client: redis.Redis) -> None:
    """By state, job and time, up to a limit."""
    redis_client.zincrby(KEYS.runs, -7_200_000, "paused")

    def chosen(*options: str) -> list[str]:
        return [found["id"] for found in shell.objects("runs", *options)]

    assert chosen() == ["queued", "paused"]
    assert chosen("--state", "paused, failed") == ["paused"]
    assert chosen("--job=items") == ["queued"]
    assert chosen("--since=1h", "--limit=5") == ["queued"]
    assert chosen("--limit=1") == ["queued"]
    assert shell("runs", "--state", "failed") == ["no such runs"]
    assert shell("runs", "--user", "bob") == ["bob has no runs"]
    assert shell("runs", "--user", "bob", "--json") == []


def test_a_run_in_json_has_what_a_list_shows(shell: Shell, two: dict[str, Run]) -> None:
    """One object a line."""
    found = shell.objects("runs")[0]
    assert (found["id"], found["job"], found["state"]) == ("queued", "tests.workjobs.items", "queued")
    assert {"attempt", "resumptions", "step", "done", "total", "queue", "changed", "enqueued"} <= found.keys()


def test_a_bad_choice_is_told(shell: Shell) -> None:
    """What was found, and what is expected."""
    assert "'finished' is no state, expected one of cancelled," in shell.complaint("runs", "--state=finished")
    assert "--since is 'yesterday', expected for instance 90s" in shell.complaint("runs", "--since=yesterday")
    assert "takes no arguments, found 'failed'" in shell.complaint("runs", "failed")


# -- control -------------------------------------------------------------------------------------


def test_runs_are_controlled(shell: Shell, two: dict[str, Run]) -> None:
    """Each says what comes of it, for several runs in one go."""
    assert shell("pause", "queued") == ["queued paused"]
    assert shell("unpause", "queued", "paused") == ["queued queued", "paused queued"]
    assert shell.objects("cancel", "queued", "paused") == [
        {"run": "queued", "state": "cancelled"}, {"run": "paused", "state": "cancelled"},
    ]  # fmt: skip
    assert shell("retry", "paused") == ["paused queued"]
    assert shell("cancel", "--now", "paused") == ["paused cancelled"]


def test_what_one_run_refuses_stops_no_other(shell: Shell, two: dict[str, Run]) -> None:
    """The exit code says that not all went well."""
    two["paused"].cancel()
    done = shell.run("pause", "paused", "nobody", "queued")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["queued paused"]
    ended, missing = done.stderr.splitlines()
    assert "paused has ended (cancelled)" in ended
    assert "ada has no run 'nobody'" in missing


def test_a_retry_begins_at_a_step(shell: Shell, two: dict[str, Run]) -> None:
    """One that there is."""
    two["paused"].cancel()
    assert "has no step 'load'" in shell.complaint("retry", "--from-step", "load", "paused")


@pytest.mark.parametrize("command", ["cancel", "pause", "unpause", "retry", "logs", "events"])
def test_a_command_without_a_run_says_what_it_needs(shell: Shell, command: str) -> None:
    """And how to find one."""
    assert shell.complaint(command) == f"`nbjobs {command}` needs the id of a run; `nbjobs runs` lists yours"


def test_an_id_that_can_be_none_is_told(shell: Shell) -> None:
    """Before Redis is asked."""
    assert "a b" in shell.complaint("cancel", "a b")
    assert "reads one run, found 2" in shell.complaint("logs", "one", "two")


# -- reading -------------------------------------------------------------------------------------


def test_what_a_run_told_and_printed_is_read(shell: Shell, redis_url: str, redis_client: redis.Redis) -> None:
    """As text and as JSON; where something is missing that is said."""
    with Worker(redis_url):
        run = workjobs.say.enqueue("hello\n\x1b[31mgr\u00fcn")
        run.wait(timeout=20)
        wait_until(lambda: redis_client.xlen(KEYS.log(run.id)), 5)
    assert shell("logs", run.id, PYTHONIOENCODING="utf-8") == ["hello", "[31mgr\u00fcn"]
    assert shell("logs", run.id, PYTHONIOENCODING="ascii") == ["hello", "[31mgr\\xfcn"]
    hello, _ = shell.objects("logs", run.id)
    assert (hello["stream"], hello["text"]) == ("stdout", "hello")
    assert [line.split()[2] for line in shell("events", run.id)] == ["job.enqueued", "job.started", "job.completed"]
    events = shell.objects("events", run.id)
    assert [(event["n"], event["name"]) for event in events] == [
        (1, "job.enqueued"), (2, "job.started"), (3, "job.completed"),
    ]  # fmt: skip
    assert hello["at"] > events[1]["timestamp"]
    redis_client.xtrim(KEYS.events(run.id), maxlen=1, approximate=False)
    assert shell.objects("events", run.id)[0] == {"missed": 2}
    assert shell("events", run.id)[0] == "(at least 2 events missing here)"


def test_a_run_is_followed_to_its_end(shell: Shell, redis_url: str) -> None:
    """Its output, its events, and its card line by line; the exit code of watch says how it ended."""
    run = workjobs.say.enqueue("hello")
    failing = workjobs.add.enqueue("a", 1)
    following = [
        subprocess.Popen(
            [sys.executable, "-m", "nbjobs", *arguments, run.id],
            cwd=ROOT, env=shell._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )
        for arguments in (["logs", "--follow"], ["events", "-f", "--json"], ["watch", "--json"])
    ]  # fmt: skip
    with Worker(redis_url):
        said = [process.communicate(timeout=30)[0].splitlines() for process in following]
        failing.wait(timeout=20)
    assert [process.returncode for process in following] == [0, 0, 0]
    assert said[0] == ["hello"]
    assert json.loads(said[1][-1])["name"] == "job.completed"
    last = json.loads(said[2][-1])
    assert (last["run"], last["state"], last["headline"]) == (run.id, "completed", "done")
    done = shell.run("watch", failing.id)
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert "failed" in done.stdout


def test_no_colour_where_nobody_wants_it(shell: Shell, two: dict[str, Run]) -> None:
    """A terminal gets colours, and none with NO_COLOR."""

    def on_a_terminal(**environment: str) -> str:
        master, slave = os.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "nbjobs", "runs"],
            cwd=ROOT,
            env={**shell._environment, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
            stdin=slave,
            stdout=slave,
        )
        os.close(slave)
        said = b""
        try:
            while data := os.read(master, 65536):
                said += data
        except OSError:
            pass  # the terminal is gone with the process
        os.close(master)
        assert process.wait(20) == 0
        return said.decode()

    assert "\x1b[33mpaused" in on_a_terminal()
    plain = on_a_terminal(NO_COLOR="1")
    assert "paused" in plain
    assert "\x1b[33m" not in plain


def test_a_reader_that_has_enough_is_no_error(shell: Shell, two: dict[str, Run]) -> None:
    """As `head` has: no traceback."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "nbjobs", "events", "paused"],
        cwd=ROOT, env=shell._environment, stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(write)
    _, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint) == (141, "")
