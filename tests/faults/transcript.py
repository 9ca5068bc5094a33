"""What somebody who follows a run is shown."""

from __future__ import annotations

from typing import Any, NamedTuple

from nbjobs.settings import NbJobs
from nbjobs.stream import Follower
from nbjobs.view import RunView

FACTS = ("state", "n", "attempt", "crashes", "failures", "resumptions", "ended_steps", "done", "total", "resumed_at")


class Seen(NamedTuple):
    """One view, and whether the run was looked at anew for it."""

    view: RunView
    loaded: bool


class Transcript(Follower):
    """A follower of one run that writes down each view."""

    def __init__(self, run: str, user: str, settings: NbJobs) -> None:
        super().__init__(user, settings)
        self.seen: list[Seen] = []
        self._anew = True
        self._watch = self.watch(run, self._see)

    def _load(self) -> None:
        self._anew = any(not one.loaded for one in self._snapshot())
        super()._load()
        self._anew = False

    def _see(self, view: RunView) -> None:
        self.seen.append(Seen(view, self._anew))

    def close(self) -> None:
        """Look no longer."""
        self._watch.close()

    @property
    def last(self) -> RunView:
        """The view that was shown last."""
        return self.seen[-1].view

    @property
    def states(self) -> list[str]:
        """The states in the order in which they were shown, each once in a row."""
        states: list[str] = []
        for one in self.seen:
            if not states or states[-1] != one.view.state:
                states.append(one.view.state)
        return states


def facts(view: Any) -> dict[str, Any]:
    """Return what two views of a run must agree on."""
    return {name: getattr(view, name) for name in FACTS}
