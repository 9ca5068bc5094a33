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

    def take(self) -> bool:
        """Answer whether one more may happen now, and count it if so."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._refilled) * self._rate)
        self._refilled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
