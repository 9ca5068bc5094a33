"""The commands about runs: list, watch, control and read them.

With ``--json`` each prints one JSON object a line. Their exit code is 1 where something did not work, and what did
not is one line on stderr.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from rich.console import Console
from traitlets import Bool, Int, Unicode

from . import words
from .command import ALIASES, Command
from .errors import NbjobsError
from .history import Gap, LogLine
from .listing import attach, rows
from .run import Run
from .settings import current
from .sinks.log import line
from .terminal import table, watch

__all__ = ["COMMANDS"]

_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400}
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")
_SHORT = {"f": "follow"}
_PIPED = 200  # columns where the output is no terminal, so that nothing is cut


def _flags(command: str, **flags: str) -> dict[str, Any]:
    """Return the flags of a command: that of all about runs, and its own."""
    found = {name: ({command: {_SHORT.get(name, name): True}}, what) for name, what in flags.items()}
    return {"json": ({"AboutRuns": {"json": True}}, "print one JSON object a line"), **found}


def _aliases(command: str, *names: str) -> dict[str, Any]:
    """Return the aliases of a command: its own, and those of all about runs."""
    own = {name: f"{command}.{name.replace('-', '_')}" for name in names}
    return {**own, **{name: ALIASES[name] for name in ("user", "redis-url", "log-level")}}


def _say(value: Any) -> None:
    print(msgspec.json.encode(value).decode(), flush=True)


class AboutRuns(Command):
    """A command about runs."""

    json = Bool(False, help="print one JSON object a line").tag(config=True)
    aliases = _aliases("AboutRuns")
    flags = _flags("AboutRuns")


class RunsCommand(AboutRuns):
    """Lists your runs, the one that changed last first."""

    name = "nbjobs runs"
    description = Unicode(__doc__)
    examples = Unicode(
        "nbjobs runs\nnbjobs runs --state failed,dead --since 2h\nnbjobs runs --job import_contacts --json"
    )
    state = Unicode("", help="only runs in these states, separated by commas").tag(config=True)
    job = Unicode("", help="only runs of this job: its name or full name").tag(config=True)
    since = Unicode("", help="only runs that have changed since: 90s, 15min, 2h, 7d, or a time in ISO 8601").tag(
        config=True
    )
    limit = Int(20, min=1, help="how many at most").tag(config=True)
    aliases = _aliases("RunsCommand", "state", "job", "since", "limit")

    def start(self) -> None:
        """Prints the list."""
        self.take_no_arguments()
        self.settings()
        self.print_anything()
        states = [state.strip() for state in self.state.split(",") if state.strip()]
        try:
            found = rows(state=states or None, since=_moment(self.since), job=self.job or None, limit=self.limit)
        except ValueError as error:
            raise NbjobsError(str(error)) from error
        if self.json:
            for row in found:
                _say(row)
        elif found:
            console = Console(highlight=False)
            console.width = console.width if console.is_terminal else _PIPED
            console.print(table(found))
        else:
            asked = self.state or self.job or self.since
            print("no such runs" if asked else f"{current().user} has no runs")


class WatchCommand(AboutRuns):
    """Shows runs, or all of yours, in this terminal until they end; the exit code says whether all completed."""

    name = "nbjobs watch"
    description = Unicode(__doc__)
    examples = Unicode("nbjobs watch\nnbjobs watch 0mij3p5k2x8q9fzt")

    def start(self) -> None:
        """Shows it."""
        self.settings()
        self.print_anything()
        self.exit(0 if watch(*map(_checked, self.extra_args), json=self.json) else 1)


class ControlCommand(AboutRuns):
    """Asks something of each run that is named."""

    def ask(self, run: Run) -> str:
        """Asks it; returns the state that comes of it."""
        raise NotImplementedError

    def start(self) -> None:
        """Asks it of one after the other; what one run refuses stops no other."""
        names = _some_run(self)
        self.settings()
        failed = False
        for name in names:
            try:
                state = self.ask(attach(_checked(name)))
            except NbjobsError as error:
                print(f"nbjobs: {error}", file=sys.stderr)
                failed = True
            else:
                _say({"run": name, "state": state}) if self.json else print(f"{name} {state}", flush=True)
        self.exit(1 if failed else 0)


class CancelCommand(ControlCommand):
    """Ends runs; their progress is kept, and `nbjobs retry` goes on with it."""

    name = "nbjobs cancel"
    description = Unicode(__doc__)
    examples = Unicode("nbjobs cancel 0mij3p5k2x8q9fzt\nnbjobs cancel --now 0mij3p5k2x8q9fzt")
    now = Bool(False, help="end the process at once, and not after the item in hand").tag(config=True)
    flags = _flags("CancelCommand", now="end the process at once, and not after the item in hand")

    def ask(self, run: Run) -> str:
        """Cancels it."""
        return run.cancel(now=self.now)


class PauseCommand(ControlCommand):
    """Stops runs after the item in hand and keeps their progress."""

    name = "nbjobs pause"
    description = Unicode(__doc__)

    def ask(self, run: Run) -> str:
        """Pauses it."""
        return run.pause()


class UnpauseCommand(ControlCommand):
    """Lets paused runs go on."""

    name = "nbjobs unpause"
    description = Unicode(__doc__)

    def ask(self, run: Run) -> str:
        """Lets it go on."""
        return run.unpause()


class RetryCommand(ControlCommand):
    """Opens runs that failed, died or were cancelled, and lets them go on where they were."""

    name = "nbjobs retry"
    description = Unicode(__doc__)
    examples = Unicode("nbjobs retry 0mij3p5k2x8q9fzt\nnbjobs retry --from-step load_rows 0mij3p5k2x8q9fzt")
    from_step = Unicode("", help="begin again at this step, forgetting its progress and that of all after it").tag(
        config=True
    )
    aliases = _aliases("RetryCommand", "from-step")

    def ask(self, run: Run) -> str:
        """Opens it."""
        return run.retry(self.from_step or None)


class ReadCommand(AboutRuns):
    """Prints what is kept of a run."""

    follow = Bool(False, help="go on until the run has ended").tag(config=True)
    flags = _flags("ReadCommand", follow="go on until the run has ended", f="the same")

    def read(self, run: Run) -> Iterable[tuple[str, Any]]:
        """Yields what to print: as text, and as an object."""
        raise NotImplementedError

    def start(self) -> None:
        """Prints it."""
        names = _some_run(self)
        if len(names) > 1:
            raise NbjobsError(f"`{self.name}` reads one run, found {len(names)}")
        self.settings()
        self.print_anything()
        for text, value in self.read(attach(_checked(names[0]))):
            if self.json:
                _say(value)
            else:
                print(text, flush=self.follow)


class LogsCommand(ReadCommand):
    """Prints what a run has printed and logged."""

    name = "nbjobs logs"
    description = Unicode(__doc__)
    examples = Unicode("nbjobs logs 0mij3p5k2x8q9fzt\nnbjobs logs --follow 0mij3p5k2x8q9fzt")

    def read(self, run: Run) -> Iterable[tuple[str, Any]]:
        """Yields its lines."""
        for found in run.logs(follow=self.follow):
            yield found.text, found if isinstance(found, LogLine) else {"missed": found.missed}


class EventsCommand(ReadCommand):
    """Prints the events of a run."""

    name = "nbjobs events"
    description = Unicode(__doc__)
    examples = Unicode("nbjobs events 0mij3p5k2x8q9fzt\nnbjobs events --json --follow 0mij3p5k2x8q9fzt")

    def read(self, run: Run) -> Iterable[tuple[str, Any]]:
        """Yields its events."""
        for found in run.events(follow=self.follow):
            if isinstance(found, Gap):
                many = f"at least {words.plural(found.missed, 'event')}" if found.missed else "some events"
                yield f"({many} missing here)", {"missed": found.missed}
            else:
                moment = datetime.fromtimestamp(found.timestamp / 1e9)
                yield f"{moment:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f"  {line(found)}", found


def _some_run(command: Command) -> list[str]:
    if not command.extra_args:
        raise NbjobsError(f"`{command.name}` needs the id of a run; `nbjobs runs` lists yours")
    return list(command.extra_args)


def _checked(run: str) -> str:
    """Return an id that can be one."""
    try:
        return Run(run).id
    except ValueError as error:
        raise NbjobsError(str(error)) from error


def _moment(since: str) -> datetime | timedelta | None:
    if not since:
        return None
    found = _AGO.fullmatch(since.strip())
    if found:
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    try:
        return datetime.fromisoformat(since)
    except ValueError:
        raise NbjobsError(
            f"--since is {since!r}, expected for instance 90s, 15min, 2h, 7d or 2026-07-31T18:00"
        ) from None


COMMANDS: dict[str, tuple[type[Command], str]] = {
    "runs": (RunsCommand, "list your runs"),
    "watch": (WatchCommand, "show runs in this terminal"),
    "cancel": (CancelCommand, "end runs"),
    "pause": (PauseCommand, "stop runs after the item in hand"),
    "unpause": (UnpauseCommand, "let paused runs go on"),
    "retry": (RetryCommand, "open runs that have ended without success"),
    "logs": (LogsCommand, "print what a run has printed"),
    "events": (EventsCommand, "print a run's events"),
}
"""The commands about runs by their names, each with what it does."""
