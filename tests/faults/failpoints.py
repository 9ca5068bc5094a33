"""Places where a process is to die, or to stand still, without any hook for it in the product.

The environment says where (`VARIABLE`): a list of `Point`. Whoever is to obey calls `install`, which wraps the one
method through which every call of a script goes: children by the module of the sample jobs, a worker by `launcher`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from nbjobs.calls import Call
from nbjobs.store import AsyncStore, Store

VARIABLE = "FAULT_POINTS"
_DONE, _MOVED = 12, 9  # of a commit's arguments


@dataclass(frozen=True)
class Point:
    """One fault, which happens once over all processes.

    Attributes:
        at: ``commit.before_send``, ``commit.after_send``, ``finish.…``, ``claim.…``.
        marker: a file that is made by whoever it happens to, with its process id.
        done: only the commit that says so many items are done.
        do: ``kill9`` or ``stop`` (SIGSTOP), of the own process.
    """

    at: str
    marker: str
    done: int | None = None
    do: str = "kill9"

    def meets(self, place: str, call: Call) -> bool:
        """Whether this is the place."""
        if self.at != f"{call.script}.{place}":
            return False
        return self.done is None or (call.args[_DONE] == str(self.done) and call.args[_MOVED] == "1")

    def fire(self) -> None:
        """Do it, unless it has been done."""
        try:
            marker = os.open(self.marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return
        os.write(marker, str(os.getpid()).encode())
        os.close(marker)
        os.kill(os.getpid(), signal.SIGKILL if self.do == "kill9" else signal.SIGSTOP)


def environment(points: list[Point]) -> dict[str, str]:
    """Return the variables that hand the points to a process."""
    return {VARIABLE: json.dumps([asdict(point) for point in points])}


def install() -> None:
    """Make this process obey the points that its environment names."""
    points = [Point(**fields) for fields in json.loads(os.environ.get(VARIABLE, "[]"))]
    if points and not hasattr(Store.send, "faulty"):
        Store.send = _faulty(Store.send, points)  # type: ignore[method-assign]
        AsyncStore.send = _afaulty(AsyncStore.send, points)  # type: ignore[method-assign]


def _pass(points: list[Point], place: str, call: Call) -> None:
    for point in points:
        if point.meets(place, call):
            point.fire()


def _faulty(send: Callable[[Any, Call], Any], points: list[Point]) -> Callable[[Any, Call], Any]:
    def faulty(store: Store, call: Call) -> Any:
        _pass(points, "before_send", call)
        reply = send(store, call)
        _pass(points, "after_send", call)
        return reply

    faulty.faulty = True  # type: ignore[attr-defined]
    return faulty


def _afaulty(send: Callable[[Any, Call], Awaitable[Any]], points: list[Point]) -> Callable[[Any, Call], Awaitable[Any]]:
    async def faulty(store: AsyncStore, call: Call) -> Any:
        _pass(points, "before_send", call)
        reply = await send(store, call)
        _pass(points, "after_send", call)
        return reply

    return faulty
