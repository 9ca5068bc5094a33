"""Long work from a Jupyter notebook that survives, with a live progress card.

Write a job as a plain function, and say where its steps are::

    from nbjobs import job, notify, step

    @job
    def import_contacts(path: str):
        rows = read_rows(path)                            # outside a step: runs on every attempt
        step("prepare", notify, "import.prepared", total=len(rows))
        for row in step.each("process_records", rows):    # cursor, count, rate and time left for nothing
            save(row)
        step("finalize", notify, "import.finalized")

Put it into the queue; as a cell's last line this shows the live card::

    import_contacts.enqueue("contacts.csv")

Restart the kernel, reload the page, kill the worker: the run goes on from its cursor.

Defining work
    job         declare a function as a job; a job that is called is the plain function
    Retry       which errors are tried again, how often and when: @job(retry_on=[Retry(OSError)])
    interrupt   end this attempt here and go on in a new one
    step        split a job into steps: step(name, fn), @step, step.each(name, items), step.current

Following it
    Run         what ``enqueue`` returns: id, state, wait(), result(), events(), logs(), cancel(), pause(), card()
    Runs        what ``enqueue_all`` returns: wait(), results(), as_completed(), card()
    attach      find a run by its id, from any kernel
    runs        list my runs, by state, job or time
    LogLine     one line of what a run has printed: run.logs()
    Gap         stands in run.events() and run.logs() where something is missing

Telling what happens
    notify      report an event; inside a run it goes into the run's stream, in step with its cursor
    subscribe   be called with events, by name
    tagged      put tags on the events inside a with block
    set_context put something on every event from here on

The command line: ``nbjobs up``, ``down``, ``worker``, ``demo``; for runs ``nbjobs runs``, ``watch``, ``cancel``,
``pause``, ``unpause``, ``retry``, ``logs``, ``events``. Settings: ``help(nbjobs.settings.NbJobs)``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from . import run as _run
from .errors import (
    Interrupt,
    InvalidStepError,
    NbjobsError,
    NotData,
    RedisUnavailable,
    ResultNotKept,
    RunCancelled,
    RunExists,
    RunFailed,
    RunLost,
    RunNotFound,
    StepsChanged,
    TooLarge,
)
from .events import (
    Event,
    EventReporter,
    clear_context,
    get_context,
    notify,
    reporter,
    set_context,
    subscribe,
    tagged,
    unsubscribe,
)
from .history import Gap, LogLine
from .jobs import Job, job
from .listing import attach, runs
from .retries import Retry
from .run import Run
from .runset import Runs
from .settings import configure
from .sinks.stream import StreamSink as _StreamSink
from .stepping import interrupt, step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .widgets.card import Card
    from .widgets.runs import RunsCard

__version__ = "0.1.0"

__all__ = [
    "Event",
    "EventReporter",
    "Gap",
    "Interrupt",
    "InvalidStepError",
    "Job",
    "LogLine",
    "NbjobsError",
    "NotData",
    "RedisUnavailable",
    "ResultNotKept",
    "Retry",
    "Run",
    "RunCancelled",
    "RunExists",
    "RunFailed",
    "RunLost",
    "RunNotFound",
    "Runs",
    "StepsChanged",
    "TooLarge",
    "attach",
    "clear_context",
    "configure",
    "get_context",
    "interrupt",
    "job",
    "notify",
    "runs",
    "set_context",
    "step",
    "subscribe",
    "tagged",
    "unsubscribe",
]


class _Surface:
    """How runs are shown: loaded when some are."""

    def card(self, run: Run) -> Card:
        from .widgets.display import card

        return card(run)

    def card_of_all(self, runs: Sequence[Run]) -> RunsCard:
        from .widgets.display import card_of_all

        return card_of_all(runs)

    def show(self, run: Run) -> None:
        if _in_kernel():
            from .widgets.display import show

            show(run)
        else:
            self._print([run])

    def show_all(self, runs: Sequence[Run]) -> None:
        if _in_kernel():
            from .widgets.display import show_all

            show_all(runs)
        else:
            self._print(runs)

    def _print(self, runs: Sequence[Run]) -> None:
        from . import terminal

        terminal.show(*(run.view for run in runs))

    def watch(self, runs: Sequence[Run]) -> None:
        from . import terminal

        if runs:
            terminal.watch(*(run.id for run in runs), user=runs[0].user)


def _in_kernel() -> bool:
    """Whether this process is a notebook's kernel."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


_run.surface = _Surface()
reporter.subscribe(_StreamSink())


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Card":
        from .widgets.card import Card

        return Card
    raise AttributeError(f"module 'nbjobs' has no attribute {name!r}")
