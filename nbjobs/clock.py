"""Redis time, which is what all deadlines are written in, as a process knows it between two answers."""

from __future__ import annotations

import math
import time

_FOREVER = 2**53 - 1  # ms: later than any time that Redis can tell; the scripts take no larger number


class Clock:
    """Redis time as last heard of; before the first answer this machine's, which is good enough for hints."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def heard(self, now: int) -> None:
        """Take note of Redis time in ms."""
        if now:
            self._ahead = now / 1000 - time.monotonic()

    def now(self) -> int:
        """Return Redis time in ms."""
        return round((time.monotonic() + self._ahead) * 1000)


class SteadyClock(Clock):
    """Redis time for whoever takes runs from others: it notices when that time has jumped.

    Redis goes by a wall clock, which somebody may set, and which runs on while a machine sleeps. The steady clocks of
    the workers do neither. So after a jump all leases look as if they had ended, or as if they lasted for hours, until
    their holders have had the time to renew them. For that long, this clock answers between which `bounds` the time
    lies: a lease is over when it is so by both. A new clock has not seen whether there was a jump just before.

    Args:
        patience: seconds in which a living holder renews its lease for certain.
        tolerance: seconds by which two readings may differ without a jump.
    """

    def __init__(self, *, patience: float, tolerance: float) -> None:
        super().__init__()
        self.jumps = 0
        self._patience = patience
        self._tolerance = tolerance
        self._former: list[tuple[float, float]] = []  # how far ahead it was before a jump, and when that was noticed

    def heard(self, now: int) -> None:
        """Take note of Redis time in ms."""
        if not now:
            return
        noticed, before = time.monotonic(), self._ahead
        super().heard(now)
        if not self.jumps:
            self._former = [(-math.inf, noticed), (math.inf, noticed)]
        elif abs(self._ahead - before) > self._tolerance:
            self._former.append((before, noticed))
        else:
            return
        self.jumps += 1

    @property
    def settled(self) -> bool:
        """Whether no jump was noticed for so long that each living holder has renewed its lease since."""
        until = time.monotonic() - self._patience
        self._former = [(ahead, noticed) for ahead, noticed in self._former if noticed > until]
        return bool(self.jumps) and not self._former

    def bounds(self) -> tuple[int, int]:
        """Return the earliest and the latest that it may be, in ms."""
        if not self.jumps:
            return 0, _FOREVER
        possible = [self._ahead] if self.settled else [self._ahead, *(ahead for ahead, _ in self._former)]
        now = time.monotonic()
        return _ms(now + min(possible)), _ms(now + max(possible))


def _ms(seconds: float) -> int:
    return round(min(max(seconds * 1000, 0.0), _FOREVER))
