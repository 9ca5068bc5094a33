"""The command ``nbjobs``, a traitlets application as every ``jupyter`` command is.

Each setting can be given on the command line: ``nbjobs worker --NbJobs.lease=30``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from traitlets import Bool, Unicode

from . import embedded
from .command import Command
from .commands import COMMANDS
from .errors import NbjobsError

_DOWN_FLAGS: dict[str, object] = {
    "embedded": ({"Down": {"embedded": True}}, "also where NBJOBS_REDIS_URL names a Redis of your own")
}
_UP_FLAGS: dict[str, object] = {
    "detach": ({"Up": {"detach": True}}, "run without this terminal; come back when all is ready"),
    "no-worker": ({"Up": {"worker": False}}, "start no worker: each client asks for its own"),
}
_DOCTOR_FLAGS: dict[str, object] = {"json": ({"DoctorCommand": {"json": True}}, "print one JSON object a line")}


class Up(Command):
    """Starts the embedded Redis and a worker for this environment; beside a running one, shows it."""

    name = "nbjobs up"
    description = Unicode(__doc__)
    detach = Bool(False, help="run without this terminal; come back when Redis and worker are ready").tag(config=True)
    worker = Bool(True, help="start a worker for this interpreter and directory").tag(config=True)
    flags = _UP_FLAGS

    def start(self) -> None:
        """Runs until the end, or detaches."""
        embedded.check_platform()
        from . import launch

        settings = self.settings()
        if settings.redis_url is not None:
            raise NbjobsError(
                "NBJOBS_REDIS_URL names a Redis, so nobody would use the embedded one that `nbjobs up` starts: "
                "unset it, or start a worker for that Redis with `nbjobs worker`"
            )
        self.log_to_stderr()
        if self.detach:
            print(launch.up_detached(settings, worker=self.worker))
        elif (status := launch.up(settings, worker=self.worker)) is not None:
            print(status)


class Down(Command):
    """Ends the embedded Redis and its workers. Runs under way keep their progress."""

    name = "nbjobs down"
    description = Unicode(__doc__)
    embedded = Bool(False, help="also where NBJOBS_REDIS_URL names a Redis of your own").tag(config=True)
    flags = _DOWN_FLAGS

    def start(self) -> None:
        """Ends it and says so."""
        embedded.check_platform()
        from . import launch

        settings = self.settings()
        own = "NBJOBS_REDIS_URL names a Redis of your own, which nbjobs does not end"
        if settings.redis_url is None or self.embedded:
            print("nbjobs is down" if launch.down(settings) else "nbjobs is not up: nothing to end")
        elif beside := launch.status(settings):
            raise NbjobsError(
                f"{own}. Beside it, the embedded {beside.splitlines()[0]}: `nbjobs down --embedded` ends that"
            )
        else:
            print(f"nbjobs is not up: nothing to end. {own}.")


class Status(Command):
    """Shows the embedded Redis and its workers; the exit code says whether they are up."""

    name = "nbjobs status"
    description = Unicode(__doc__)

    def start(self) -> None:
        """Shows it."""
        embedded.check_platform()
        from . import launch

        settings = self.settings()
        said = launch.status(settings)
        print(said or "nbjobs is not up")
        if settings.redis_url is not None:
            print("NBJOBS_REDIS_URL names a Redis of your own: runs are there, not in the embedded one")
        self.exit(0 if said else 1)


class WorkerCommand(Command):
    """Runs a worker. Modules that are named are imported once, in another process, as a check."""

    name = "nbjobs worker"
    description = Unicode(__doc__)
    examples = Unicode("nbjobs worker\nnbjobs worker --queue gpu --children 1 my_project.jobs")

    def start(self) -> None:
        """Runs until SIGTERM."""
        from . import worker

        settings = self.settings()
        self.log_to_stderr()
        worker.run(settings, modules=self.extra_args)


class DoctorCommand(Command):
    """Looks for what would hit this installation, and says what to do.

    The exit code is 1 where something loses runs or holds them up now, else 0.
    """

    name = "nbjobs doctor"
    description = Unicode(__doc__)
    examples = Unicode("nbjobs doctor\nnbjobs doctor --json\nnbjobs doctor --redis-url redis://db:6379")
    json = Bool(False, help="print one JSON object a line").tag(config=True)
    flags = _DOCTOR_FLAGS

    def start(self) -> None:
        """Prints what is found."""
        from . import doctor
        from .rendering import diagnosis

        self.take_no_arguments()
        settings = self.settings()
        self.print_anything()
        if self.json:
            found = []
            for finding in doctor.examine(settings):
                found.append(finding)
                print(msgspec.json.encode(finding).decode(), flush=True)
        else:
            found = list(doctor.examine(settings))
            Console(highlight=False).print(diagnosis(found))
        self.exit(1 if any(one.level == "error" for one in found) else 0)


class Demo(Command):
    """Imports a public table, kills the processes that do it, and shows that nothing is lost."""

    name = "nbjobs demo"
    description = Unicode(__doc__)

    def start(self) -> None:
        """Runs it; the exit code says whether all was true."""
        from . import demo

        self.exit(demo.main(self.extra_args))


_COMMANDS: dict[str, tuple[type[Command], str]] = {
    "up": (Up, "start the embedded Redis and a worker"),
    "status": (Status, "show whether they are up"),
    "down": (Down, "end them"),
    "worker": (WorkerCommand, "run a worker"),
    **COMMANDS,
    "doctor": (DoctorCommand, "find what would hit this installation"),
    "demo": (Demo, "see a run survive"),
}


class Main(Command):
    """Long work from a Jupyter notebook that survives, with a live progress card."""

    name = "nbjobs"
    description = Unicode(__doc__)
    subcommands = _COMMANDS

    def start(self) -> None:
        """Runs the subcommand; without one, shows what there is."""
        if self.subapp is not None:
            self.subapp.start()
            return
        names = ", ".join(self.subcommands)
        if self.extra_args:
            raise NbjobsError(f"{self.extra_args[0]!r} is no command, expected one of {names}")
        self.print_help()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code; what is wrong is one line on stderr."""
    _stand_here()
    commands: list[type[Command]] = [Main, *(command for command, _ in _COMMANDS.values())]
    try:
        app = Main()
        app.initialize(list(sys.argv[1:] if argv is None else argv))
        app.start()
    except NbjobsError as error:
        print(f"nbjobs: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    finally:
        for command in commands:
            command.clear_instance()
    return 0


def _stand_here() -> None:
    """Puts the working directory where ``python -m`` has it, so that both commands mean the same environment."""
    here, script = str(Path.cwd()), str(Path(sys.argv[0]).absolute().parent)
    if sys.path and sys.path[0] == script != here:
        sys.path[0] = here
