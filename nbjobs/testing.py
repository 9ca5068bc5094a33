"""Helpers for the tests of those who write jobs.

A job that is called is a plain function, so most tests need nothing from here. What is left are tests of how a job
behaves when it is interrupted, and they run on the ``inline`` adapter: the real scripts on a real Redis, in the
process of the test.
"""

from __future__ import annotations

from typing import Any

from . import code, connection
from .enqueue import perform_inline
from .run import Run
from .settings import current
from .store import Store


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
