"""A home of its own for an embedded daemon, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from nbjobs.embedded import Places, ask, places
from nbjobs.settings import NbJobs

from .support import wait_until
from .workers import ROOT, bare_environment, gone


class Home:
    """Directories of one daemon; when the block ends, nothing that it started lives.

    Args:
        settings: of the daemon and its clients, by name.
    """

    def __init__(self, **settings: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nbjobs-home-", dir="/tmp"))
        self.work = self.folder / "work"
        self.work.mkdir()
        self.settings = NbJobs(
            runtime_dir=str(self.folder / "run"), data_dir=str(self.folder / "data"), user="ada", **settings
        )
        named = {name: getattr(self.settings, name) for name in ("runtime_dir", "data_dir", "user", *settings)}
        self.environment = bare_environment(**named) | {"PYTHONPATH": str(ROOT)}

    @property
    def places(self) -> Places:
        return places(self.settings)

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``nbjobs`` with these arguments in the working directory."""
        return self._run([sys.executable, "-m", "nbjobs", *arguments], check)

    def script(self, text: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a Python script in the working directory."""
        path = self.work / "script.py"
        path.write_text(text)
        return self._run([sys.executable, str(path)], check)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``nbjobs`` in the foreground."""
        return subprocess.Popen(
            [sys.executable, "-m", "nbjobs", *arguments],
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def status(self) -> dict[str, Any] | None:
        return ask(self.places, {"op": "status"})

    def daemon(self) -> psutil.Process:
        """Return the daemon, which must run."""
        status = self.status()
        assert status is not None, self.log()
        return psutil.Process(status["pid"])

    def family(self) -> list[psutil.Process]:
        """Return the daemon and all that it started."""
        return [self.daemon(), *self.daemon().children(recursive=True)]

    def member(self, name: str) -> psutil.Process:
        """Return the process of the daemon's family whose command contains the name."""
        return next(one for one in self.family()[1:] if name in " ".join(one.cmdline()))

    def log(self) -> str:
        log = self.folder / "data" / "daemon.log"
        return log.read_text() if log.exists() else ""

    def strays(self) -> list[psutil.Process]:
        """Return the living processes that belong to this home."""
        mark = f"NBJOBS_DATA_DIR={self.settings.data_dir}"
        return [one for one in psutil.process_iter() if mark in _variables(one) or _holds(one, str(self.folder))]

    def _run(self, command: Sequence[str], check: bool) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.work, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr + self.log()
        return done

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *exc: object) -> None:
        self.run("down", check=False)
        wait_until(lambda: gone(self.strays()), 5, "nothing of the daemon lives")
        shutil.rmtree(self.folder)


def _variables(process: psutil.Process) -> list[str]:
    try:
        return [f"{name}={value}" for name, value in process.environ().items()]
    except (psutil.Error, OSError):
        return []


def _holds(process: psutil.Process, folder: str) -> bool:
    try:
        return os.getpid() != process.pid and folder in " ".join(process.cmdline())
    except psutil.Error:
        return False
