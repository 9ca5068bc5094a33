"""What bodies leave behind in a process."""

from __future__ import annotations

import os
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from nbjobs.upkeep import LOOK, CodeWatch, Lookout, Upkeep


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


@pytest.mark.weather("M6")
def test_a_module_is_not_asked_for_its_file(watch: CodeWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that would load, or raise, where it is asked for an attribute is left alone."""
    module, asked = types.ModuleType("lazy_module"), []

    def missing(name: str) -> None:
        asked.append(name)
        raise ImportError(name)

    vars(module)["__getattr__"] = missing
    monkeypatch.setitem(sys.modules, "lazy_module", module)
    monkeypatch.setitem(sys.modules, "no_module_at_all", 3)
    assert watch.learn(0) == [] and watch.changed() == ""
    assert not asked


@pytest.mark.timeout(method="thread")  # else it has a timer of its own
@pytest.mark.weather("M6")
def test_what_cannot_be_looked_at_costs_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever raises where a body's process is looked at, it is replaced, and its run is told."""

    class Broken(threading.Thread):
        @property
        def name(self) -> str:
            raise SystemExit(3)

        @name.setter
        def name(self, name: str) -> None:
            pass

    upkeep = Upkeep(1)
    go_on = threading.Event()
    thread = Broken(target=go_on.wait)
    thread.start()
    try:
        assert upkeep.after(time.time_ns()) == ["SystemExit where it was looked at"]
    finally:
        go_on.set()
        thread.join()
