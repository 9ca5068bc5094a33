"""Jobs that workers of two versions run: the older one is given this file and what it needs."""

from __future__ import annotations

import nbjobs
from nbjobs.jobs import job


@job
def where() -> str:
    """Return which nbjobs runs this."""
    return nbjobs.__file__
