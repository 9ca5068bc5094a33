"""How often something may happen: a token bucket."""

from __future__ import annotations

import time


class Allowance:
    """Lets things happen so often on average, and many at once after a quiet time.

    Args:
        rate: how many a second.
        burst: how many at once.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._left = burst
        self._refilled = time.monotonic()

    @property
    def left(self) -> float:
        """How many more may happen now."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._refilled) * self._rate)
        self._refilled = now
        return self._left

    def take(self, count: int = 1) -> bool:
        """Answer whether so many more may happen now, and count them if so."""
        if self.left < count:
            return False
        self._left -= count
        return True
