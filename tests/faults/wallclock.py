"""The wall clock of Redis, which a test may set: that of the scripts and of TIME, in all processes of a stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nbjobs.scripts import SCRIPTS

from ..model import changed_scripts
from .stage import Stage

_AHEAD = "test:ahead"
_TRUE = "local clock = redis.call('TIME')\n"
_SET = f"{_TRUE}clock[1] = clock[1] + (redis.call('GET', '{_AHEAD}') or 0)\n"
_PATCH = f"""
import pathlib

read = pathlib.Path.read_text

def read_text(path, *args, **options):
    text = read(path, *args, **options)
    if path.name != "_head.lua":
        return text
    assert {_TRUE!r} in text
    set_time()
    return text.replace({_TRUE!r}, {_SET!r})

def set_time():
    from redis.commands.core import AsyncManagementCommands

    async def time(client):
        seconds, micros = await client.execute_command("TIME")
        return seconds + int(await client.get({_AHEAD!r}) or 0), micros

    AsyncManagementCommands.time = time

pathlib.Path.read_text = read_text
"""


class WallClock:
    """Redis' clock as this test's process and the workers that have `folder` on their path see it."""

    def __init__(self, stage: Stage) -> None:
        self.folder = stage.folder / "wallclock"
        self.folder.mkdir()
        (self.folder / "sitecustomize.py").write_text(_PATCH)
        self._client = stage.client

    def step(self, seconds: int) -> None:
        """Set it so far forth or back at once, while the steady clocks of all processes go on."""
        self._client.incrby(_AHEAD, seconds)


@contextmanager
def wall_clock(stage: Stage) -> Iterator[WallClock]:
    """Begin with a clock that is right."""
    with changed_scripts((_TRUE, _SET)):
        stage.recorder.know({script.sha: name for name, script in SCRIPTS.items()})
        yield WallClock(stage)
