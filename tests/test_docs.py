"""What the project says about itself is true: docstrings, examples, sizes, walls and commands."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbjobs

PACKAGE = Path(nbjobs.__file__).parent
ROOT = PACKAGE.parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/how-it-works.md", "docs/rails.md", "docs/reliability.md")
TEXTS = [ROOT / name for name in NAMES]
WALLS = {  # library: the modules that may import it
    "arq": {"worker"},
    "anywidget": {"widgets"},
    "ipywidgets": {"widgets"},
    "opentelemetry": {"sinks"},
    "tornado": set(),
    "jupyter_server": set(),
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [module_of(path) for path in SOURCES]


def members(thing: object) -> Iterator[str]:
    """Names of the public methods and properties that the package itself gives a class."""
    for name, value in vars(thing).items():
        if not name.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
            yield name


def test_the_package_names_what_is_public() -> None:
    """`__all__` is sorted and each of its names is there."""
    assert list(nbjobs.__all__) == sorted(nbjobs.__all__)
    assert [name for name in nbjobs.__all__ if not hasattr(nbjobs, name)] == []


@pytest.mark.parametrize("name", nbjobs.__all__)
def test_public_name_has_a_docstring(name: str) -> None:
    """Shift-Tab says something about each public name, and about each public method of a class."""
    thing = getattr(nbjobs, name)
    if name == "__version__":
        return
    assert (inspect.getdoc(thing) or "").strip(), f"nbjobs.{name} has no docstring"
    if inspect.isclass(thing) and thing.__module__.startswith("nbjobs"):
        silent = [member for member in members(thing) if not inspect.getdoc(getattr(thing, member))]
        assert not silent, f"nbjobs.{name}: no docstring on {silent}"


@pytest.mark.parametrize("name", MODULES)
def test_module_has_a_docstring(name: str) -> None:
    """Each module says in its first lines what it is for."""
    tree = ast.parse(Path(importlib.import_module(name).__file__ or "").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name} has no docstring"


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    """An example in a docstring gives what it shows."""
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_help_reads_like_a_guide() -> None:
    """`help(nbjobs)` begins with text that shows the words a user needs first."""
    guide = nbjobs.__doc__ or ""
    missing = [word for word in ("@job", "step.each", "enqueue", "attach", "notify") if word not in guide]
    assert not missing, f"the docstring of nbjobs does not mention {missing}"


def bodies() -> Iterator[tuple[str, int]]:
    """Each function, and the number of its lines without the docstring."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                yield (
                    f"{path.relative_to(ROOT)}:{node.lineno} {node.name}",
                    node.end_lineno - first.lineno + 1,
                )


def test_no_function_body_is_longer_than_50_lines() -> None:
    """A body that does not fit on a screen holds more than one idea."""
    assert [f"{name}: {lines} lines" for name, lines in bodies() if lines > 50] == []


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, lazily or not."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("library", WALLS)
def test_library_is_imported_in_one_place(library: str) -> None:
    """Each foreign library that could spread has one module or package that knows it."""
    users = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES if library in imported(path)}
    assert users <= WALLS[library]


def test_import_layers_hold() -> None:
    """A module imports only from layers below it."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_is_light() -> None:
    """`import nbjobs` loads neither the queue's library nor a notebook's."""
    heavy = ("arq", "opentelemetry", "anywidget", "ipywidgets", "tornado", "IPython", "jupyter_server")
    code = f"import sys, nbjobs; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_commands_in_the_texts_exist() -> None:
    """Each `make` command that a text names is a target of the Makefile that says what it does."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    named = {
        name for text in TEXTS for name in re.findall(r"`?(?:\$ |`)make ([a-z-]+)", text.read_text(encoding="utf-8"))
    }
    assert {"demo", "test", "lab"} <= named
    assert named <= targets


def test_links_between_the_texts_lead_somewhere() -> None:
    """A relative link names a file that is there."""
    broken = [
        f"{text.name}: {link}"
        for text in TEXTS
        for link in re.findall(r"\]\(([^)#:]+)\)", text.read_text(encoding="utf-8"))
        if not (text.parent / link).exists()
    ]
    assert broken == []


def test_example_of_the_readme_runs(tmp_path: Path) -> None:
    """The README's first program does, called as a plain function, what it says."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    called = program.replace("hash_all.enqueue(10_000)", "hash_all(10)")
    assert called != program
    (tmp_path / "readme.py").write_text(called, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "readme.py"], cwd=tmp_path, env=environment, check=True)
    assert len((tmp_path / "hashes.txt").read_text().splitlines()) == 10
