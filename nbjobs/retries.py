"""When an error is tried again, when it is given up, and how long to wait: ``retry_on`` and ``discard_on``.

As in Rails' Active Job: the number of attempts includes the first, and each declaration counts for itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Wait = float | Literal["exponential", "polynomial"] | Callable[[int], float]
Errors = type[BaseException] | tuple[type[BaseException], ...]

WAIT: Final = 3.0
ATTEMPTS: Final = 5
JITTER: Final = 0.15


@dataclass(frozen=True)
class Retry:
    """Try a run again after certain errors.

    Args:
        errors: a class of errors, or a tuple of them.
        wait: seconds; ``"exponential"``: 3, 6, 12, 24 …; ``"polynomial"``: failures⁴ + 2, as Rails' waits grow; or a
            function of the number of failures.
        attempts: how often the run is tried for these errors, the first time included; None is without limit.
        jitter: up to this share of the wait is added by chance, so that many runs do not come back at once.

    >>> Retry(OSError, wait="exponential", jitter=0).delay(3)
    12.0
    """

    errors: Errors
    wait: Wait = WAIT
    attempts: int | None = ATTEMPTS
    jitter: float = JITTER

    def __post_init__(self) -> None:
        _check_errors(self.errors, "Retry")
        if isinstance(self.wait, str) and self.wait not in ("exponential", "polynomial"):
            raise ValueError(f"Retry(wait={self.wait!r}): expected seconds, 'exponential', 'polynomial' or a function.")
        if isinstance(self.wait, (int, float)) and not 0 <= self.wait < float("inf"):
            raise ValueError(f"Retry(wait={self.wait!r}): expected seconds, from 0 on.")
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"Retry(attempts={self.attempts!r}): expected a whole number from 1 on, or None.")

    @property
    def name(self) -> str:
        """What its failures are counted under.

        >>> Retry((OSError, KeyError)).name
        'OSError, KeyError'
        """
        errors = self.errors if isinstance(self.errors, tuple) else (self.errors,)
        return ", ".join(error.__qualname__ for error in errors)

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after so many failures."""
        if callable(self.wait):
            return max(0.0, float(self.wait(failures)))
        if self.wait == "exponential":
            base = WAIT * 2.0 ** min(failures - 1, 30)
        elif self.wait == "polynomial":
            base = float(failures**4 + 2)
        else:
            base = float(self.wait)
        return base * (1 + random.random() * self.jitter)


def declared(retry_on: Iterable[Retry | type[BaseException]]) -> tuple[Retry, ...]:
    """Return what ``@job(retry_on=...)`` was given; a bare class means 3 s and 5 attempts.

    Raises:
        TypeError: something in it is no class of errors.
    """
    return tuple(one if isinstance(one, Retry) else Retry(one) for one in _listed(retry_on, "retry_on"))


def discarded(discard_on: Iterable[type[BaseException]]) -> tuple[type[BaseException], ...]:
    """Return what ``@job(discard_on=...)`` was given.

    Raises:
        TypeError: something in it is no class of errors.
    """
    classes = tuple(_listed(discard_on, "discard_on"))
    for one in classes:
        _check_errors(one, "discard_on")
    return classes


def first_match(retries: Sequence[Retry], error: BaseException) -> Retry | None:
    """Return the first declaration that is meant for this error, as ``except`` clauses are read."""
    return next((retry for retry in retries if isinstance(error, retry.errors)), None)


def _listed(value: Any, name: str) -> list[Any]:
    if isinstance(value, (type, Retry)):
        return [value]
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return list(value)
    raise TypeError(f"@job({name}={value!r}): expected a class of errors, or a list of them.")


def _check_errors(errors: object, name: str) -> None:
    classes = errors if isinstance(errors, tuple) else (errors,)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise TypeError(f"{name}({one!r}): expected a class of errors such as OSError.")
