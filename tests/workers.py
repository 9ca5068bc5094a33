"""Workers in other processes, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import redis

from nbjobs import keys
from nbjobs.leases import process_of

from .support import wait_until

ROOT = Path(__file__).parent.parent
QUICK = {"lease": "1.5", "renew": "0.3", "sweep": "0.3", "children": "2", "grace": "5", "crash_wait": "[0,0,0]"}


def bare_environment(**settings: object) -> dict[str, str]:
    """Return this process's environment without settings of nbjobs but those given."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("NBJOBS_", "JUPYTERHUB_"))}
    return {**kept, **{f"NBJOBS_{name.upper()}": str(value) for name, value in settings.items()}}


class Worker:
    """``nbjobs worker`` on a Redis, ready when the block begins and gone when it ends."""

    def __init__(self, url: str, *, queue: str = "test", path: str = "", **settings: object) -> None:
        self.url = url
        self.queue = queue
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when the block ends
        environment = bare_environment(redis_url=url, queue=queue, **{**QUICK, **settings})
        if path:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (path, environment.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nbjobs", "worker"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # Linux shares a busy machine's time among sessions, and the tests' is crowded
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return Path(f"/proc/self/fd/{self._log.fileno()}").read_text() if self._log else ""

    def ready(self) -> Worker:
        """Wait until it takes runs."""
        client = redis.Redis.from_url(self.url, decode_responses=True)
        try:
            wait_until(lambda: self._signed(client), 20, lambda: f"the worker has given its sign; it said: {self.log}")
        finally:
            client.close()
        return self

    def _signed(self, client: redis.Redis) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return any(process_of(found) == self.pid for found in client.zrange(keys.workers(self.queue), 0, -1))
        except redis.RedisError:
            return False

    def family(self) -> list[psutil.Process]:
        """Return the worker, its helper and the processes of bodies."""
        found = psutil.Process(self.pid)
        return [found, *found.children(recursive=True)]

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 10.0) -> int:
        return self.process.wait(timeout)

    def __enter__(self) -> Worker:
        try:
            return self.ready()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._log.close()


class Ledger:
    """What jobs have noted: one line each."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def lines(self) -> list[list[str]]:
        try:
            text = Path(self.path).read_text()
        except FileNotFoundError:
            return []
        return [line.split() for line in text.splitlines()]

    def wait_for(self, count: int, timeout: float = 15.0) -> list[list[str]]:
        """Wait until so many lines are there."""
        wait_until(lambda: len(self.lines()) >= count, timeout, f"{count} lines in the ledger")
        return self.lines()

    def open_gate(self) -> None:
        """Let go on what waits for the gate, and end soon what works for as long as it is closed."""
        Path(self.path + ".gate").touch()

    def items(self) -> list[int]:
        return [int(line[0]) for line in self.lines()]


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them have ended; who waits to be reaped by its parent has."""
    return not [one for one in processes if _lives(one)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
