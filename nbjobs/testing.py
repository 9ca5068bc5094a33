"""Helpers for the tests of those who write jobs.

A job that is called is a plain function, so most tests need nothing from here. What is left are two things: which
events something reports, and how a job behaves when it is interrupted. The latter run on the ``inline`` adapter: the
real scripts on a real Redis, in the process of the test.

>>> from nbjobs import notify
>>> with assert_event_reported("import.prepared", {"total": 3}):
...     notify("import.prepared", total=3, path="contacts.csv")
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import code, connection, events, journal
from .assertions import (
    Expected,
    Reported,
    assert_event_reported,
    assert_events_reported,
    assert_no_event_reported,
    capture_events,
)
from .enqueue import perform_inline
from .errors import SettingsError
from .plain import preview
from .run import Run
from .settings import current
from .store import Store

if TYPE_CHECKING:
    from .continuation import Continuation
    from .events import Event
    from .jobs import Job

__all__ = [
    "ANYWHERE",
    "Expected",
    "Reported",
    "assert_event_reported",
    "assert_events_reported",
    "assert_no_event_reported",
    "capture_events",
    "interrupt_after_step",
    "interrupt_during_step",
    "perform",
]

ANYWHERE: Any = object()
"""The cursor of `interrupt_during_step` where none is given."""


def interrupt_during_step(
    job: Job[..., Any], step: str, cursor: Any = ANYWHERE
) -> contextlib.AbstractContextManager[None]:
    """Interrupt each run of a job once in a ``with`` block, as a deploy would: inside a step.

    The run goes on at once in a second attempt, so after the block it has ended, and a test can compare what it did
    with what it does undisturbed::

        with interrupt_during_step(import_contacts, "process_records", cursor=3):
            run = import_contacts.enqueue("contacts.csv")
        assert run.state == "completed"

    Args:
        job: the job.
        step: the name of the step.
        cursor: interrupt at the checkpoint at which the cursor is this; in a `step.each` over a list, after so many
            items. Without it, at the step's first checkpoint, which a loop makes after its first item.

    Raises:
        SettingsError: the adapter is not ``inline``.
        AssertionError: at the block's end, where no run got there.
    """

    def is_there(run: Continuation) -> bool:
        at = run.current
        if at is None or at.name != step:
            return False
        at.flag = True  # the next item makes a checkpoint too
        return cursor is ANYWHERE or bool(at.cursor == cursor)

    where = f"in step {step!r}" + ("" if cursor is ANYWHERE else f" at cursor {preview(cursor, 60)}")
    return _interrupting(job, is_there, where)


def interrupt_after_step(job: Job[..., Any], step: str) -> contextlib.AbstractContextManager[None]:
    """Interrupt each run of a job once in a ``with`` block, as a deploy would: between a step and the one behind it.

    Raises and goes on as `interrupt_during_step`. Behind the last step a run is not interrupted: it ends.
    """
    return _interrupting(job, lambda run: run.description == f"after {step!r}", f"between step {step!r} and the next")


@contextlib.contextmanager
def _interrupting(job: Job[..., Any], is_there: Callable[[Continuation], bool], where: str) -> Iterator[None]:
    adapter = current().adapter
    if adapter != "inline":
        raise SettingsError(
            f"The adapter is {adapter!r}, and runs are interrupted on 'inline' only, which performs them in this "
            'process: nbjobs.settings.configure(adapter="inline").'
        )
    answered: set[str] = set()  # not heard yet: a step's beginning and end are checkpoints that do not interrupt
    interrupted: set[str] = set()
    passed: dict[str, None] = {}

    def asked(name: str, run: Continuation) -> str | None:
        if outer is not None and (reason := outer(name, run)) is not None:
            return reason
        if name != job.name or run.run_id in interrupted:
            return None
        passed[run.description] = None
        if not is_there(run):
            answered.discard(run.run_id)
            return None
        answered.add(run.run_id)
        return "stopping"

    def once(event: Event) -> None:
        if event.payload["job_id"] in answered and event.payload.get("reason") in ("stopping", "resume limit"):
            interrupted.add(event.payload["job_id"])

    events.subscribe(once, names=("job.interrupt", "job.failed"))
    outer = journal.stopping.get()
    journal.stopping.set(asked)
    try:
        yield
    finally:
        journal.stopping.set(outer)
        events.unsubscribe(once)
    if not interrupted:
        met = ", ".join(list(passed)[-20:]) or "none"
        raise AssertionError(f"no run of {job.name} was interrupted {where}; its checkpoints were: {met}")


def perform(run: Run, job: Any = None) -> Run:
    """Run here, now, the attempts of a run that is queued, as its worker would; return the run.

    For a run that was paused or has failed on the ``inline`` adapter, and was then unpaused or opened again.

    Args:
        run: the run.
        job: its job, where that cannot be imported by its name.
    """
    settings = current()
    store = Store(connection.client(), run.user, settings)
    (name,) = store.read(run.id, "job")
    perform_inline(job if job is not None else code.find(name or ""), run, store, settings)
    return run
