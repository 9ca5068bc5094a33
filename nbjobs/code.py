"""How a job's function gets to the process that runs it.

A job of an importable module travels by its name. A job that was defined in a notebook cell travels *by value*: its
function is pickled with what it refers to (cloudpickle), stored once per hash, and pinned to the run, so that editing
the cell never changes a run that has begun. Only a worker that was told to accept code from this user loads it.
"""

from __future__ import annotations

import hashlib
import io
import linecache
import platform
import sys
import types
from collections import ChainMap
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle
import msgspec

from . import modules, shown
from .errors import BadData, CodeRefused, JobNotFound, NotData, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CODE_LIMIT = 1024 * 1024  # bytes
SOURCE_LIMIT = 64 * 1024  # characters of one file; longer ones are shown without their lines
PYTHON = ".".join(platform.python_version_tuple()[:2])

_UNNAMED = "<dynamic-code>"  # what cloudpickle calls every file


class Code(NamedTuple):
    """Code by value: the hash it is stored under, and the bytes."""

    sha: str
    data: bytes


class _Packed(msgspec.Struct):
    python: str
    name: str
    pickle: bytes
    sources: dict[str, str]  # file name → text, for tracebacks


def name_of(fn: Callable[..., Any]) -> str:
    """Return the full name of a job's function.

    >>> import textwrap
    >>> name_of(textwrap.dedent)
    'textwrap.dedent'
    """
    return f"{fn.__module__}.{fn.__qualname__}"


def by_value(fn: Callable[..., Any]) -> bool:
    """Whether the function has to travel by value: no other process can import it."""
    return fn.__module__ == "__main__" or "<locals>" in fn.__qualname__


def pack(job: Any) -> Code:
    """Return a job's code by value.

    Raises:
        NotData: it cannot be pickled.
        TooLarge: it has more than 1 MiB, mostly because it refers to data.
    """
    name = name_of(job.fn)
    written = io.BytesIO()
    try:
        pickler = _Pickler(written)
        pickler.dump(job)
    except Exception as error:
        raise NotData(
            f"The job {name} cannot be sent to a worker: {error}. It is defined in a notebook, so it travels with all "
            "that it refers to. Open files and connections inside it, or move it to a module."
        ) from error
    data = msgspec.msgpack.encode(_Packed(PYTHON, name, written.getvalue(), _sources(pickler.files)))
    if len(data) > CODE_LIMIT:
        raise TooLarge(
            f"The job {name} has {len(data):,} bytes with all that it refers to, {CODE_LIMIT:,} are allowed. "
            "Pass data as a file's name and read it inside the job, or move the job to a module.",
            what="code",
            size=len(data),
            limit=CODE_LIMIT,
        )
    return Code(hashlib.sha256(data).hexdigest()[:32], data)


def find(name: str) -> Any:
    """Return the job of this full name, importing its module where that defines one; see `modules.imported`.

    Raises:
        JobNotFound: there is no such module, no such name in it, or the name is no job.
    """
    module_name, _, qualname = name.rpartition(".")
    try:
        found: Any = modules.imported(module_name, qualname)
    except Exception as error:
        raise JobNotFound(
            f"The module {module_name!r} of the job {name} cannot be imported by the worker: "
            f"{type(error).__name__}: {shown.message(error)}. "
            "Install or deploy it there with this job, or start the worker where it is importable."
        ) from error
    found = getattr(found, qualname, None)
    if found is None:
        raise JobNotFound(
            f"The module {module_name!r} has no {qualname!r} in the worker's copy of the code, expected the job that "
            "was enqueued. Deploy the code that has it, or enqueue under the new name."
        )
    if not hasattr(found, "enqueue") or not hasattr(found, "fn"):
        raise JobNotFound(f"{name} is a {type(found).__name__}, expected a job: decorate it with @nbjobs.job.")
    return found


def load(data: bytes) -> Any:
    """Return the job of :func:`pack`'s bytes, in a fresh ``__main__`` module.

    Only for a process that runs jobs: its ``__main__`` is replaced.

    Raises:
        BadData: they are none of those.
        CodeRefused: the code was packed by another version of Python.
        JobNotFound: it cannot be loaded here.
    """
    try:
        packed = msgspec.msgpack.decode(data, type=_Packed)
    except msgspec.MsgspecError as error:
        raise BadData(f"The code that is stored for this run is none that nbjobs wrote: {error}.") from error
    if packed.python != PYTHON:
        raise CodeRefused(
            f"The job {packed.name} was sent by value from Python {packed.python}, this worker has Python {PYTHON}. "
            f"Start a worker with Python {packed.python}, or move the job to a module that both can import.",
            reason="other_python",
        )
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main  # before: pickle and the spawn pools of a body look names up in it
    for filename, text in packed.sources.items():
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    try:
        job = cloudpickle.loads(packed.pickle)
    except Exception as error:
        raise JobNotFound(
            f"The job {packed.name} cannot be loaded by the worker: {type(error).__name__}: {shown.message(error)}. "
            "Install there what it imports."
        ) from error
    vars(main).update({key: value for key, value in job.fn.__globals__.items() if not key.startswith("__")})
    return job


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles functions with the files that they were defined in.

    cloudpickle calls them all the same, and a traceback would show no line of them.
    """

    def __init__(self, file: io.BytesIO) -> None:
        self.files: set[str] = set()
        known = cloudpickle.Pickler.dispatch_table
        self._reduce = known[types.CodeType]
        self.dispatch_table = ChainMap({types.CodeType: self._code}, known)
        super().__init__(file)

    def _code(self, code: types.CodeType) -> tuple[Any, ...]:
        make, args = self._reduce(code)
        self.files.add(code.co_filename)
        return make, tuple(code.co_filename if type(one) is str and one == _UNNAMED else one for one in args)


def _sources(files: Iterable[str]) -> dict[str, str]:
    found = {name: "".join(linecache.getlines(name)) for name in sorted(files)}
    return {name: text for name, text in found.items() if 0 < len(text) < SOURCE_LIMIT}
