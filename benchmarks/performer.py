"""What children perform where only the processes are measured, without Redis."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec


class Claim(msgspec.Struct, frozen=True):
    """A claim that says which body it is for."""

    owner: str
    body: str = "stamp"
    kind: str = "sync"
    user: str = "bench"
    run: str = "r1"


class Performance:
    """An attempt without a run."""

    def __init__(self, claim: dict[str, Any]) -> None:
        self._claim = claim

    def stop(self, reason: str) -> None:
        """Never asked."""

    def perform(self) -> dict[str, Any]:
        """Say when the body began, or never end."""
        at = time.monotonic_ns()
        if self._claim["body"] == "endless":
            print(os.getpid(), flush=True)
            time.sleep(600)
        return {"code": "completed", "at": at, "pid": os.getpid()}


def make(claim: dict[str, Any], usage: Any) -> Performance:
    """Make the attempt."""
    return Performance(claim)
