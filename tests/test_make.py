"""What `make` prepares, and what it says where it cannot."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "environment.py"


@pytest.fixture
def script() -> ModuleType:
    """The script, as a module of its own."""
    spec = importlib.util.spec_from_file_location("ci_environment", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def commands(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The commands that the script runs; none is really run, all go well."""
    ran: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, b"")

    monkeypatch.setattr(script.subprocess, "run", run)
    yield ran


def stamped(script: ModuleType, path: Path, **changes: Any) -> Any:
    """An environment that the script has made, save for the changes."""
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").touch()
    environment = script.Environment(path)
    environment.stamp.write_text(json.dumps({**environment.wanted, "extras": ["demo"], **changes}))
    return environment


def test_unsupported_python_is_refused(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that is too old is told so, with what was found, expected and to be done."""
    monkeypatch.setattr(script.sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(script, "VERSION", "3.9")
    with pytest.raises(SystemExit, match=r"(?s)found Python 3\.9 .*expected 3\.10 to 3\.13.*make PYTHON="):
        script.check_python()


def test_missing_programs_are_named_all_at_once(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing may be installed, one message names all that is missing and the command that installs it."""
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"(?s)not on PATH: chromium, redis-server.*apt-get install chromium redis-"):
        script.check_programs(["chromium", "redis-server"])


def test_missing_programs_are_installed_by_root(
    script: ModuleType, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root on Debian the packages are installed without asking."""
    monkeypatch.setattr(script, "debian_may_install", lambda: True)
    monkeypatch.setattr(script.shutil, "which", lambda name: "/usr/bin/chromium" if commands else None)
    script.check_programs(["chromium"])
    assert [command[:2] for command in commands] == [["apt-get", "update"], ["apt-get", "install"]]
    assert "chromium" in commands[1]


def test_missing_venv_module_is_told(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python whose venv module Debian ships apart is told which package has it."""
    monkeypatch.setattr(script, "has_venv", lambda: False)
    monkeypatch.setattr(script, "debian_may_install", lambda: False)
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    with pytest.raises(SystemExit, match=f"(?s)no venv module.*apt-get install {package}"):
        script.check_venv_module()


@pytest.mark.parametrize("held", [["demo"], ["dev"]])
def test_what_is_there_is_left_alone(
    script: ModuleType, commands: list[list[str]], tmp_path: Path, held: list[str]
) -> None:
    """A second `make demo` installs nothing, also where all was installed for the tests."""
    stamped(script, tmp_path / "venv", extras=held).ensure(["demo"])
    assert commands == []


def test_changed_project_is_installed_again(script: ModuleType, commands: list[list[str]], tmp_path: Path) -> None:
    """A new pyproject.toml installs again what was there and what is wanted now."""
    stamped(script, tmp_path / "venv", pyproject="before").ensure(["lab"])
    (pip,) = [command for command in commands if "pip" in command]
    assert pip[-1].endswith("[demo,lab]")
    assert json.loads((tmp_path / "venv" / "nbjobs-installed.json").read_text())["extras"] == ["demo", "lab"]


def test_environment_of_another_python_is_made_anew(
    script: ModuleType, commands: list[list[str]], tmp_path: Path
) -> None:
    """Another Python makes the environment afresh, and installs only what is wanted now."""
    stamped(script, tmp_path / "venv", python="3.9").ensure(["lab"])
    venv, pip = (command for command in commands if "-c" not in command)
    assert venv[1:4] == ["-m", "venv", "--clear"]
    assert pip[-1].endswith("[lab]")


@pytest.fixture
def npm(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The npm packages of a checkout, beside an environment that holds all of the tests'."""
    web = tmp_path / "labextension"
    (web / "node_modules").mkdir(parents=True)
    (web / "package-lock.json").write_text("{}")
    environment = stamped(script, tmp_path / "venv", extras=["dev"])
    monkeypatch.setattr(script, "ROOT", tmp_path)
    environment.wanted["root"] = str(SCRIPT.parent.parent)
    return script.NodeModules(environment)


@pytest.mark.parametrize("node", ["/usr/bin/node", None])
def test_npm_packages_are_installed_once(
    script: ModuleType, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, npm: Any, node: str | None
) -> None:
    """Those of the lock file, with Node.js from PyPI only where there is none; a second time nothing is done."""
    monkeypatch.setattr(script.shutil, "which", lambda name, path=None: node)
    npm.ensure()
    *before, install = commands
    pip = [command for command in before if "pip" in command]
    assert install == [node or "npm", "ci"]
    assert [command[-1].endswith("[dev,node]") for command in pip] == ([] if node else [True])
    commands.clear()
    npm.ensure()
    assert commands == []
    npm.stamp.write_text("another lock file")
    npm.ensure()
    assert commands[-1][1] == "ci"


def test_lock_file_names_no_registry() -> None:
    """Each package has its hash; where it comes from is for the machine's own configuration to say."""
    lock = json.loads((SCRIPT.parent.parent / "labextension" / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]
    assert packages
    assert all("integrity" in package and "resolved" not in package for package in packages)
