"""Every exception that nbjobs raises.

Each message says what was found, what was expected and what to do. The tree::

    NbjobsError
    ├── NotData                     a value that the codec refuses (also a TypeError)
    ├── TooLarge                    data above its limit (also a ValueError)
    ├── BadData                     stored text that nbjobs did not write (also a ValueError)
    ├── SettingsError               an unknown setting or a bad value (also a ValueError)
    ├── RedisUnavailable            no Redis answers, or it does not let us in
    ├── RedisNotPrepared            no worker has loaded its scripts into this Redis
    ├── EmbeddedError               the embedded Redis could not be started or found
    ├── JobNotFound                 the function of a run cannot be imported
    │   └── CodeRefused             code by value that may not or cannot be loaded
    ├── RunError                    something about one run, named by `.run`
    │   ├── RunExists               the id is taken by another job or other arguments
    │   ├── RunNotFound             no run of this user has the id
    │   ├── RunLost                 Redis no longer has a run that it had
    │   ├── RunFailed               the run ended as failed or dead
    │   ├── RunCancelled            the run ended as cancelled
    │   ├── ResultNotKept           the run completed, its result was not stored
    │   └── RunEnded                the run has ended, so this cannot be done to it
    └── ContinuationError           wrong use of steps and cursors
        ├── InvalidStepError        a step repeated, nested or out of order
        ├── CheckpointError         a checkpoint where none can be made
        ├── UnadvanceableCursorError   `advance` from a value without a successor
        ├── CursorError             a cursor that is not data, or is too big (also a ValueError)
        ├── ResumeLimitError        resumed more often than `max_resumptions`
        └── StepsChanged            code or data no longer fit the stored progress

`Interrupt` and its subclass `Fenced` stand outside: they derive from `BaseException`, so that a
body's ``except Exception`` does not swallow the request to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class NbjobsError(Exception):
    """Base of all errors of nbjobs.

    Attributes:
        runs: of an ``enqueue_all`` that ended in the middle, those runs that are enqueued.
    """

    runs: Sequence[Any] = ()


class NotData(NbjobsError, TypeError):
    """A value is of no type that can be stored and read back unchanged.

    Attributes:
        path: where the value was found, for instance ``args[0].rows[3]``.
        found: the name of its type.
    """

    def __init__(self, message: str, *, path: str = "", found: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.found = found


class TooLarge(NbjobsError, ValueError):
    """Data is larger than Redis shall hold in this place.

    Attributes:
        what: what was too large, for instance ``args``.
        size: its size in bytes.
        limit: the size allowed.
    """

    def __init__(self, message: str, *, what: str = "", size: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.what = what
        self.size = size
        self.limit = limit


class BadData(NbjobsError, ValueError):
    """Stored text was not written by the codec of nbjobs, or its classes are gone."""


class SettingsError(NbjobsError, ValueError):
    """A setting is unknown or has a value that cannot be used."""


class RedisUnavailable(NbjobsError):
    """Redis does not answer, or refuses the connection."""


class RedisNotPrepared(NbjobsError):
    """No worker has prepared this Redis yet: its scripts are not loaded."""


class EmbeddedError(NbjobsError):
    """The embedded Redis could not be started or found."""


class JobNotFound(NbjobsError):
    """The function of a run cannot be imported where the run was to begin."""


class CodeRefused(JobNotFound):
    """Code by value is not accepted here, or belongs to another version of Python.

    Attributes:
        reason: which of the two, in one word: ``not_accepted`` or ``other_python``.
    """

    def __init__(self, message: str, *, reason: str = "not_accepted") -> None:
        super().__init__(message)
        self.reason = reason


class RunError(NbjobsError):
    """Something about one run.

    Attributes:
        run: the run's id.
    """

    def __init__(self, message: str, *, run: str = "") -> None:
        super().__init__(message)
        self.run = run


class RunExists(RunError):
    """A run with this id exists and has another job or other arguments."""


class RunNotFound(RunError):
    """No run of this user has the id."""


class RunLost(RunError):
    """Redis no longer has this run: it lost data, or the run was kept no longer."""


class RunFailed(RunError):
    """The run ended as failed or dead.

    Attributes:
        type: name of the error's class in the body.
        message: its message.
        traceback: its traceback as text.
    """

    def __init__(self, message: str, *, run: str = "", type: str = "", error: str = "", traceback: str = "") -> None:
        super().__init__(message, run=run)
        self.type = type
        self.message = error
        self.traceback = traceback


class RunCancelled(RunError):
    """The run ended as cancelled."""


class ResultNotKept(RunError):
    """The run completed, but its result was not stored.

    Attributes:
        reason: why, for instance that it was too large.
    """

    def __init__(self, message: str, *, run: str = "", reason: str = "") -> None:
        super().__init__(message, run=run)
        self.reason = reason


class RunEnded(RunError):
    """The run has ended, so what was asked for can no longer be done to it."""


class ContinuationError(NbjobsError):
    """Steps or cursors were used in a way that cannot be continued from."""


class InvalidStepError(ContinuationError):
    """A step was declared twice, inside another one, or out of order."""


class CheckpointError(ContinuationError):
    """A checkpoint was asked for where none can be made."""


class UnadvanceableCursorError(ContinuationError):
    """`advance` was called from a value that has no successor."""


class CursorError(ContinuationError, ValueError):
    """A cursor is not data, is NaN, or is too big."""


class ResumeLimitError(ContinuationError):
    """The run was resumed more often than `max_resumptions` allows."""


class StepsChanged(ContinuationError):
    """Code or data no longer fit the stored progress, so the run is paused.

    Attributes:
        stored: names of the steps that earlier attempts have ended or begun.
        found: names of the steps that the code asks for now.
    """

    def __init__(self, message: str, *, stored: Sequence[str] = (), found: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.stored = tuple(stored)
        self.found = tuple(found)


class Interrupt(BaseException):
    """Ends an attempt at a checkpoint; the run goes on later from its cursor.

    Attributes:
        reason: one word, for instance ``stopping``, ``isolating``, ``paused``.
        description: a sentence for the card.
    """

    def __init__(self, reason: str = "stopping", description: str = "") -> None:
        super().__init__(description or reason)
        self.reason = reason
        self.description = description

    def __reduce__(self) -> tuple[type[Interrupt], tuple[str, str]]:
        return type(self), (self.reason, self.description)


class Fenced(Interrupt):
    """The attempt no longer holds the run: another one does, or the run has ended."""

    def __init__(self, reason: str = "fenced", description: str = "") -> None:
        super().__init__(reason, description or "this attempt no longer holds the run")
