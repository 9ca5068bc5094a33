"""What became of a run that has ended: its value, or the error that says why there is none."""

from __future__ import annotations

from typing import Any

import msgspec

from . import codec
from .errors import ResultNotKept, RunCancelled, RunFailed, RunLost


def outcome(run: str, state: str, result: str, error: str) -> Any:
    """Return what a run's job returned.

    Args:
        run: its id.
        state: its state, one of the ends.
        result: the stored value.
        error: the JSON that its last attempt has left beside.

    Raises:
        RunFailed, RunCancelled, ResultNotKept: there is none.
        RunLost: it has not ended; Redis fell back behind its end.

    >>> outcome("r1", "completed", "[1,2]", "")
    [1, 2]
    """
    told = _told(error)
    if state == "completed":
        if result:
            return codec.decode(result)
        why = told.get("not_kept") or "it was not stored"
        raise ResultNotKept(f"Run {run} completed, but its result was not kept: {why}", run=run, reason=why)
    if state in ("failed", "dead"):
        kind, message = told.get("type", ""), told.get("message", "")
        said = f"{kind}: {message}" if kind else "its process died again and again, without progress"
        raise RunFailed(
            f"Run {run} is {state}. {said}", run=run, type=kind, error=message, traceback=told.get("traceback", "")
        )
    if state == "cancelled":
        raise RunCancelled(f"Run {run} was cancelled.", run=run)
    raise RunLost(f"Run {run} is {state}, though it had ended: Redis has lost what came last.", run=run)


def _told(error: str) -> dict[str, str]:
    """Return the texts of the stored error; what something else has written there tells nothing."""
    try:
        told = msgspec.json.decode(error) if error else {}
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return {}
    return {name: text for name, text in told.items() if isinstance(text, str)} if isinstance(told, dict) else {}
