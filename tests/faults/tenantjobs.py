"""Jobs of users who share workers."""

from __future__ import annotations

from nbjobs.jobs import job


@job
def nothing(number: int) -> int:
    """Return at once."""
    return number


@job
async def anothing(number: int) -> int:
    """Return at once, on the loop of all async bodies."""
    return number
