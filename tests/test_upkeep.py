"""What bodies leave behind in a process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nbjobs.upkeep import LOOK, Baseline, CodeWatch, Lookout
from nbjobs.vitals import MIB

LIMIT = 1 << 50


def test_a_process_as_it_was_has_nothing_left_behind() -> None:
    """Nothing is found where nothing changed."""
    assert Baseline(LIMIT).left_behind() == []


def test_threads_that_live_on_are_named() -> None:
    """A thread is left behind where it does not end within a moment."""
    baseline = Baseline(LIMIT)
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, name="poller")
    thread.start()
    assert baseline.left_behind() == ["thread poller"]
    go_on.set()
    assert baseline.left_behind() == []


def test_threads_of_progress_bars_are_none_of_the_body_s() -> None:
    """The one thread that tqdm keeps for the process does not cost a child."""
    tqdm = pytest.importorskip("tqdm")
    baseline = Baseline(LIMIT)
    with Path(os.devnull).open("w") as nowhere:
        for _ in tqdm.tqdm(range(2), file=nowhere):
            pass
    assert baseline.left_behind() == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list the children of a process")
def test_programs_that_live_on_are_named() -> None:
    """A program is left behind while it runs, not when it has ended and nobody asked for its code."""
    baseline = Baseline(LIMIT)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as program:
        try:
            assert baseline.left_behind() == [f"process {program.pid}"]
        finally:
            program.kill()
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        assert baseline.left_behind() == []


def test_directory_environment_and_memory_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed directory or environment, and memory out of bounds, are named."""
    baseline = Baseline(memory_limit=MIB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEW", "1")
    found = baseline.left_behind()
    assert found[:2] == ["changed directory", "changed environment"]
    assert sys.platform != "linux" or found[2].endswith("MiB")


def test_a_deleted_directory_is_a_changed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that deletes the directory it stands in harms nobody."""
    baseline = Baseline(LIMIT)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert baseline.left_behind() == ["changed directory"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module's file, not imported yet."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "watched_module", raising=False)
    file = tmp_path / "watched_module.py"
    file.write_text("VALUE = 1")
    return file


@pytest.fixture
def watch(module: Path) -> CodeWatch:
    made = CodeWatch()
    made.open()
    return made


def test_a_changed_file_of_a_loaded_module_is_found(watch: CodeWatch, module: Path) -> None:
    """A module's file counts from its import on; a change or its loss is seen."""
    assert watch.changed() == ""
    __import__("watched_module")
    assert watch.learn(time.time_ns()) == []
    assert watch.changed() == ""
    module.write_text("VALUE = 22")
    assert watch.changed() == str(module)
    module.unlink()
    assert watch.changed() == str(module)


def test_a_file_written_since_the_body_began_is_unsure(watch: CodeWatch, module: Path) -> None:
    """Which version was loaded cannot be told where the file changed in the meantime."""
    __import__("watched_module")
    os.utime(module, ns=(0, 5 * 10**9))
    assert watch.learn(4 * 10**9) == [str(module)]
    assert watch.learn(9 * 10**9) == [str(module)] == [watch.changed()], "it stays so in this process"


def test_a_change_while_a_body_runs_is_told_once(watch: CodeWatch, module: Path) -> None:
    """By the name of the file, and the child still knows of it when the body has ended."""
    told: list[str] = []
    __import__("watched_module")
    lookout = Lookout(watch, time.time_ns(), told.append)
    soon = time.monotonic() + LOOK
    lookout.tick(soon - LOOK / 2)
    os.utime(module, ns=(0, time.time_ns() + 10**9))
    lookout.tick(soon + 1)
    lookout.tick(soon + 1 + 2 * LOOK)
    assert told == [module.name]
    assert watch.learn(0) == [str(module)], "which version was loaded, nobody knows"


def test_modules_loaded_before_are_not_watched(module: Path) -> None:
    """What the nursery has loaded a new child would have as well, so a change of it replaces nobody."""
    __import__("watched_module")
    watch = CodeWatch()
    watch.open()
    module.write_text("VALUE = 333")
    assert watch.learn(0) == [] and watch.changed() == ""


def test_an_installation_is_seen_by_its_folder(
    watch: CodeWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that is installed or removed changes the folder that all packages stand in."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    watch = CodeWatch()
    watch.open()
    assert watch.changed() == ""
    (site / "new_package").mkdir()
    os.utime(site, ns=(0, 10**9))
    assert watch.changed() == str(site)
