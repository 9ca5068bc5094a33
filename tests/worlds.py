"""A world of a continuation's own: it keeps what a checkpoint makes durable, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nbjobs.continuation import Continuation, active
from nbjobs.progress import Progress, Saved
from nbjobs.steps import Cursor, pack_cursor, unpack_cursor

NOTHING = Progress()


class Died(BaseException):
    """The process is gone: nothing more is written."""


class World:
    """What carries one attempt. ``progress`` is what the next attempt would begin with.

    Args:
        progress: what the attempt begins with.
        stop: asked at each checkpoint, after what happened was kept: why to stop, or None. May raise `Died`.
    """

    def __init__(self, progress: Progress = NOTHING, stop: Callable[[], str | None] = lambda: None) -> None:
        self.progress = progress
        self.maps: dict[int, dict[str, str]] = {}
        self.checkpoints = 0
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.value: Any = None
        self.error: BaseException | None = None
        self.stop = stop
        self.run: Continuation

    def checkpoint(self) -> str | None:
        self.keep()
        self.checkpoints += 1
        return self.stop()

    def is_time(self, now: float) -> bool:
        return False

    def is_due(self, now: float, share: float) -> bool:
        return False

    def happened(self, name: str, payload: dict[str, Any]) -> None:
        self.events.append((name, payload))

    def kept(self, ordinal: int) -> dict[str, str]:
        return self.maps.get(ordinal, {})

    def keep(self) -> None:
        """Keep what has happened, as text where the store keeps text."""
        with self.run.lock:
            ended, self.run.ended = self.run.ended, []
            results, self.run.results = self.run.results, []
            for name, text in results:
                k, _, index = name.partition(":")
                if index:
                    self.maps[int(k)][index] = text
                else:
                    self.maps[int(k)] = {"name": text}
            step = self.run.current
            cursor, done = step.standing() if step is not None else (Cursor(None), None)
            self.progress = Progress(
                ended=(*self.progress.ended, *(Saved(one.name, one.value) for one in ended)),
                step=step.name if step is not None else "",
                cursor=unpack_cursor(pack_cursor(cursor)),
                done=done or 0,
                total=step.total if step is not None else None,
            )

    def close(self, error: BaseException | None) -> None:
        """The attempt is over: its last commit goes with its end, unless the process died."""
        self.error = error
        if not isinstance(error, Died):
            if error is not None:
                self.run.fail(error)
            self.keep()

    def told(self, name: str) -> list[dict[str, Any]]:
        """The payloads of the events of this name."""
        return [payload for told, payload in self.events if told == name]

    @property
    def names(self) -> list[str]:
        """Names of the events, each with its step."""
        return [f"{name.removeprefix('job.')} {payload['step']}" for name, payload in self.events]

    @property
    def steps(self) -> list[str]:
        """Names of the steps that are durable."""
        return [saved.name for saved in self.progress.ended]


def prepared(
    progress: Progress | World | None,
    stop: Callable[[], str | None],
    fence: int,
    kind: type[World] = World,
    *,
    is_async: bool = False,
    accepted: bool = False,
) -> World:
    """A world with its continuation."""
    world = kind((progress.progress if isinstance(progress, World) else progress) or NOTHING, stop)
    if isinstance(progress, World):
        world.maps = {k: dict(kept) for k, kept in progress.maps.items()}
    world.run = Continuation(world, world.progress, run_id="r1", fence=fence, is_async=is_async, accepted=accepted)
    return world


def attempt(
    body: Callable[[], Any],
    progress: Progress | World | None = None,
    *,
    stop: Callable[[], str | None] = lambda: None,
    fence: int = 1,
    kind: type[World] = World,
    accepted: bool = False,
) -> World:
    """One attempt of ``body``: what came of it, in ``value`` or ``error``, and what is durable."""
    world = prepared(progress, stop, fence, kind, accepted=accepted)
    with active(world.run):
        try:
            world.value = body()
            world.run.finish()
        except BaseException as error:
            world.close(error)
        else:
            world.close(None)
    return world


async def aattempt(
    body: Callable[[], Any],
    progress: Progress | World | None = None,
    *,
    stop: Callable[[], str | None] = lambda: None,
    fence: int = 1,
    kind: type[World] = World,
    accepted: bool = False,
) -> World:
    """Do as `attempt`, for an async body, in a task of its own."""
    world = prepared(progress, stop, fence, kind, is_async=True, accepted=accepted)

    async def perform() -> None:
        with active(world.run):
            world.value = await body()
            await world.run.afinish()

    (error,) = await asyncio.gather(perform(), return_exceptions=True)
    world.close(error)
    return world


def done(*names: str, step: str = "", cursor: Any = None, items: int = 0) -> Progress:
    """Progress in which these steps ended, and one is under way."""
    return Progress(tuple(Saved(name, "null") for name in names), step, Cursor(cursor), items)
