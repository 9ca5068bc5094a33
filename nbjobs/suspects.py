"""Runs whose bodies were running when the nursery died: one of them may have killed it.

A nursery dies of what kills it from outside, or of a body (``kill -9 $PPID``), and takes all bodies with it. Nobody can
tell which it was. So a run is suspected the more, the more often it was there:

=======  ==========================================================================
deaths   the run
=======  ==========================================================================
first    goes on at once, beside the others
second   is in quarantine: of such runs this worker performs one at a time, so that
         those that have done nothing come to their end
third    the same, and each death counts as a crash: at last it is dead
=======  ==========================================================================
"""

from __future__ import annotations

_QUARANTINE, _BLAME = 2, 3
_REMEMBERED = 10_000


class Suspects:
    """The runs of one worker that were there when its nurseries died; a run goes by its user's keys and its id."""

    def __init__(self) -> None:
        self._deaths: dict[str, int] = {}
        self._performed: set[str] = set()

    def add(self, run: str) -> None:
        """Take note that a nursery died while this run's body ran."""
        self._deaths[run] = self._deaths.pop(run, 0) + 1
        if len(self._deaths) > _REMEMBERED:
            del self._deaths[next(iter(self._deaths))]

    def clear(self, run: str) -> None:
        """Forget a run, which has ended."""
        self._deaths.pop(run, None)

    def blames(self, run: str) -> bool:
        """Return whether the death of a nursery counts as this run's crash."""
        return self._deaths.get(run, 0) >= _BLAME

    def puts_off(self, run: str) -> bool:
        """Return whether a run has to wait because another suspect is performed."""
        return self._is_in_quarantine(run) and any(map(self._is_in_quarantine, self._performed - {run}))

    def begin(self, run: str) -> None:
        """Take note that a run is claimed and performed from now on."""
        self._performed.add(run)

    def end(self, run: str) -> None:
        """Take note that an attempt of the run is over and given back."""
        self._performed.discard(run)

    def _is_in_quarantine(self, run: str) -> bool:
        return self._deaths.get(run, 0) >= _QUARANTINE
