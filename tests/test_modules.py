"""Which modules stored data may have imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from nbjobs import code, codec
from nbjobs.errors import BadData, JobNotFound
from nbjobs.keys import arq_queue
from nbjobs.modules import imported
from nbjobs.store import Store

from .support import wait_until
from .workers import Worker

RAN = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
GOOD = """
from dataclasses import dataclass
import msgspec
from nbjobs import job

@job
def work(): ...

@job(queue="gpu")
async def awork(): ...

def late(): ...
late, other = job(late), 5

try:
    import no_such_module
except ImportError:
    @dataclass
    class Point:
        x: int

class Row(msgspec.Struct):
    x: int

class Outer:
    @dataclass
    class Inner:
        x: int

Made = msgspec.defstruct("Made", [("x", int)])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the path; what is imported from it is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__path__", getattr(sys.modules[name], "__file__", ""))):
            del sys.modules[name]


@pytest.mark.weather("M9")
@pytest.mark.parametrize("module", ["good", "package.good", "space.inner.good"])
@pytest.mark.parametrize("name", ["work", "awork", "late", "Point", "Row", "Outer.Inner", "Made"])
def test_a_module_that_defines_the_job_or_the_data_is_imported(folder: Path, module: str, name: str) -> None:
    """Wherever it lies, and however it defines it."""
    path = folder.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(GOOD)
    if module.startswith("package"):
        (path.parent / "__init__.py").write_text(RAN)
    assert imported(module, name) is sys.modules[module]


@pytest.mark.weather("M9")
@pytest.mark.parametrize(
    "source",
    [
        "",
        "X = 5",
        "def X(): ...",
        "class X: ...",
        "import X",
        "@job\ndef Y(): ...",
        "def f():\n    @job\n    def X(): ...",
    ],
)
@pytest.mark.parametrize("module", ["evil", "package.evil", "package"])
def test_a_module_that_defines_none_is_not_run(folder: Path, module: str, source: str) -> None:
    """Nor are its packages: that data names it is no reason."""
    (folder / "package").mkdir()
    for path in ("evil.py", "package/__init__.py", "package/evil.py"):
        (folder / path).write_text(f"{RAN}{source}\n")
    with pytest.raises(JobNotFound, match="its source defines no job"):
        code.find(f"{module}.X")
    with pytest.raises(BadData, match="its source defines no job"):
        codec.decode(f'{{"$data":["{module}:X",{{}}]}}')
    assert not list(folder.rglob("ran")) and module not in sys.modules


@pytest.mark.weather("M9")
@pytest.mark.parametrize("module", ["unittest.__main__", "this", "antigravity", "idlelib.idle"])
def test_programs_of_python_are_not_run(module: str) -> None:
    """Though every worker can import them."""
    with pytest.raises(JobNotFound):
        code.find(f"{module}.main")
    assert module not in sys.modules


@pytest.mark.weather("M9")
@pytest.mark.parametrize("error", ["SystemExit(3)", "GeneratorExit()", "BaseException('bye')", "ValueError('bye')"])
def test_a_module_that_ends_itself_is_an_error_like_others(folder: Path, error: str) -> None:
    """It takes nothing with it."""
    (folder / "ends.py").write_text(f"@job\ndef X(): ...\nraise {error}\n".replace("@job", "@str"))
    for find in (lambda: code.find("ends.X"), lambda: codec.decode('{"$data":["ends:X",{}]}')):
        with pytest.raises((JobNotFound, BadData), match=error.partition("(")[0]):
            find()


@pytest.mark.parametrize(
    "name", [".", "..x", "a..b", "no_such_module", "no.such.module", "json.nope", "\x00", "é\udcff"]
)
def test_names_of_no_module_are_told(name: str) -> None:
    """As what they are."""
    with pytest.raises(JobNotFound, match="cannot be imported by the worker"):
        code.find(f"{name}.X")


@pytest.mark.weather("M9")
def test_a_worker_runs_no_module_because_a_run_names_it(
    folder: Path, store: Store, redis_url: str, redis_client: redis.Redis
) -> None:
    """Neither as the job's, nor as that of a class in the arguments; the runs say what is wrong with them."""
    (folder / "evil.py").write_text(f"{RAN}X = 5\n")
    usual = {"kind": "sync", "queue": "test", "user": "ada", "tags": "{}"}
    data = '[[{"$data":["evil:X",{}]}],{}]'
    with Worker(redis_url, path=str(folder)):
        store.enqueue("job", {**usual, "job": "evil.X", "args": "[[],{}]"}, "{}", queue="test")
        store.enqueue("data", {**usual, "job": "tests.workjobs.add", "args": data}, "{}", queue="test")
        wait_until(
            lambda: store.read("data", "state") == ["paused"] or store.read("data", "error")[0], 20, "it is told"
        )
        wait_until(lambda: store.read("job", "missing_since")[0], 20, "the job is looked for")
        assert store.read("job", "attempt") != ["0"]
        store.control("job", "now", 99, "{}")
        wait_until(lambda: store.read("job", "state") == ["cancelled"], 20, "it is cancelled")
    assert not (folder / "ran").exists()
    redis_client.delete(arq_queue("test"))
