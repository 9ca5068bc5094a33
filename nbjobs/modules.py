"""Importing a module because stored data names it.

Whoever may enqueue chooses the name of a job and of the classes in its arguments, and importing a module runs it. So
a module is imported for a name only where its source defines that name as a job or a class of data may be defined: by
a decorator, as a class with a base, or as what a call returns. One that the process has imported already is taken as
it is. The source is read before anything of the module runs; its packages are imported with it.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

__all__ = ["imported"]


def imported(module: str, qualname: str) -> ModuleType:
    """Return the module of this name, imported if need be.

    Args:
        module: its full name.
        qualname: of the job or the class that is wanted of it.

    Raises:
        ImportError: there is none, it defines no such job or class, or it ended itself while it was imported.
        Exception: whatever else is raised while it is imported.
    """
    if module not in sys.modules:
        _check(module, qualname)
    try:
        return importlib.import_module(module)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:  # such as SystemExit, of a module that is a program
        raise ImportError(f"{type(error).__name__} was raised while it was imported") from error


def _check(module: str, qualname: str) -> None:
    spec = _located(module)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {module!r}")
    source = _source(spec)
    if source is None:  # it is compiled
        if module.partition(".")[0] in sys.stdlib_module_names:
            raise ImportError(f"{module} belongs to Python, and defines no job and no data")
    elif not _defines(ast.parse(source).body, qualname.split(".")):
        raise ImportError(f"its source defines no job and no class of data that is called {qualname!r}")


def _located(module: str) -> ModuleSpec | None:
    """Return where a module is, without running any of its packages."""
    spec, path, name = None, None, ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        loaded = sys.modules.get(name)
        if loaded is not None:
            spec, path = loaded.__spec__, getattr(loaded, "__path__", None)
        else:
            spec = _found(name, path)
            if spec is not None and spec.submodule_search_locations is not None and spec.origin is None:
                importlib.import_module(name)  # a package without a file: nothing runs, and those below need it
            path = spec.submodule_search_locations if spec is not None else None
        if spec is None:
            return None
    return spec


def _found(name: str, path: Iterable[str] | None) -> ModuleSpec | None:
    if not name.rpartition(".")[2] or ("." in name and path is None):
        return None
    places = None if path is None else list(path)
    found = (finder.find_spec(name, places) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in found if spec is not None), None)


def _source(spec: ModuleSpec) -> str | bytes | None:
    get_source = getattr(spec.loader, "get_source", None)
    if get_source is not None:
        found: str | None = get_source(spec.name)
        return found
    return Path(spec.origin).read_bytes() if spec.origin and spec.origin.endswith(".py") else None


def _defines(body: list[ast.stmt], names: list[str]) -> bool:
    """Whether statements define a name, within the classes that are named before it."""
    first, *rest = names
    for node in _statements(body):
        if isinstance(node, ast.ClassDef) and node.name == first:
            if _defines(node.body, rest) if rest else node.decorator_list or node.bases:
                return True
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name == first and not rest and node.decorator_list:
                return True
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and not rest:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = any(isinstance(part, ast.Name) and part.id == first for to in targets for part in ast.walk(to))
            if named and any(isinstance(part, ast.Call) for part in ast.walk(node.value)):
                return True
    return False


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements, and those in the branches of `if`, `try` and `with`."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            inner = [node.body, getattr(node, "orelse", []), getattr(node, "finalbody", [])]
            for part in [*inner, *(handler.body for handler in getattr(node, "handlers", []))]:
                yield from _statements(part)
