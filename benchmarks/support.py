"""What the measurements share: workers of both kinds, and a place where bodies say that they began."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
QUEUE = "bench"
USER = "bench"


class Stamp(NamedTuple):
    """When a body began (monotonic time, ns), and in which process."""

    at: int
    pid: int


class Stamps:
    """Hears from bodies when they began."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nbjobs-bench-")
        self.path = str(Path(self._folder.name, "stamps"))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)

    def next(self, timeout: float = 20.0) -> Stamp:
        """Return what the next body says."""
        self._socket.settimeout(timeout)
        at, pid = self._socket.recv(100).split()
        return Stamp(int(at), int(pid))

    def __enter__(self) -> Stamps:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()
        self._folder.cleanup()


def wait_for(predicate: Callable[[], Any], timeout: float, what: str, *, every: float = 0.002) -> Any:
    """Return what the predicate returns as soon as that is true."""
    end = time.monotonic() + timeout
    while not (found := predicate()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(every)
    return found


@contextlib.contextmanager
def worker(url: str, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of nbjobs; its settings travel in the environment."""
    given = {"redis_url": url, "queue": QUEUE, "user": USER, **settings}
    variables = {f"NBJOBS_{name.upper()}": str(value) for name, value in given.items()}
    with _process([sys.executable, "-m", "nbjobs", "worker"], variables) as process:
        yield process


@contextlib.contextmanager
def arq_worker(url: str, queue: str, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a plain arq worker."""
    given = json.dumps({"redis_url": url, "queue_name": queue, **settings})
    with _process([sys.executable, "-m", "benchmarks.arq_peer", given], {}) as process:
        yield process


@contextlib.contextmanager
def _process(command: list[str], variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
            ended = process.poll()
            if ended is not None and ended != -signal.SIGKILL:
                log.seek(0)
                raise RuntimeError(f"{command} ended: {log.read().decode()[-2000:]}")
        except TimeoutError as error:
            log.seek(0)
            raise RuntimeError(f"{error}; the worker printed: {log.read().decode()[-2000:]}") from error
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
