"""Who and where this process is: the user, and the environment that an embedded worker must share."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple


class Environment(NamedTuple):
    """What a job of an importable module needs to be found again.

    Attributes:
        python: the interpreter.
        cwd: the working directory.
        path: ``sys.path``, relative entries made absolute.
        hash: 12 hex digits of it all, the embedded default of the queue's name. ``python`` and ``python3.11`` of one
            environment have the same.
    """

    python: str
    cwd: str
    path: tuple[str, ...]
    hash: str


def environment() -> Environment:
    """Return the environment of this process as it is now."""
    try:
        cwd = str(Path.cwd())
    except FileNotFoundError:  # the directory was deleted under us
        cwd = ""
    path = tuple(dict.fromkeys(str(Path(cwd, entry)) for entry in sys.path if isinstance(entry, str)))
    # Virtual environments differ by their prefix, though they may share an interpreter; Pythons of one prefix by tag.
    installed = os.path.realpath(sys.prefix), sys.implementation.cache_tag, getattr(sys, "abiflags", "")
    text = json.dumps([installed, cwd, path])
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Environment(sys.executable, cwd, path, digest[:12])


def default_user() -> str:
    """Return the owner of the runs of this process.

    ``NBJOBS_USER`` if set, else ``JUPYTERHUB_USER``, else the user of the operating system.
    """
    for name in ("NBJOBS_USER", "JUPYTERHUB_USER"):
        if user := os.environ.get(name):
            return user
    return _os_user()


def _os_user() -> str:
    """The account that the process runs as, whatever LOGNAME says."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):  # Windows; or a container's number without a name
        pass
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return f"uid{os.getuid()}" if hasattr(os, "getuid") else "user"
