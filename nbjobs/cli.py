"""The command ``nbjobs``, a traitlets application as every ``jupyter`` command is.

Each setting can be given on the command line: ``nbjobs worker --NbJobs.lease=30``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from traitlets import Bool, Unicode
from traitlets.config import Application, Configurable

from . import __version__, embedded
from .errors import NbjobsError
from .settings import NbJobs, set_current

_CLASSES: list[type[Configurable]] = [NbJobs]
_ALIASES = {
    "log-level": "Application.log_level",
    "user": "NbJobs.user",
    "redis-url": "NbJobs.redis_url",
    "queue": "NbJobs.queue",
    "children": "NbJobs.children",
    "workers": "NbJobs.workers",
}
_UP_FLAGS: dict[str, object] = {
    "detach": ({"Up": {"detach": True}}, "run without this terminal; come back when all is ready"),
    "no-worker": ({"Up": {"worker": False}}, "start no worker: each client asks for its own"),
}
_NO_FLAGS: dict[str, object] = {}


class Command(Application):
    """What all commands have in common: the settings, and how they log."""

    version = Unicode(__version__)
    classes = _CLASSES
    aliases = _ALIASES
    flags = _NO_FLAGS

    def settings(self) -> NbJobs:
        """Returns the settings of config files, environment and this command line; they become the current ones."""
        found = NbJobs.load(self.cli_config)
        set_current(found)
        return found

    def log_to_stderr(self) -> None:
        """Shows what nbjobs logs, and of others only warnings."""
        logging.basicConfig(
            format="%(asctime)s %(name)s[%(process)d] %(message)s", datefmt="%Y-%m-%d %H:%M:%S", level=logging.WARNING
        )
        logging.getLogger("nbjobs").setLevel(logging.INFO)


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

    def start(self) -> None:
        """Ends it and says so."""
        embedded.check_platform()
        from . import launch

        print("nbjobs is down" if launch.down(self.settings()) else "nbjobs is not up: nothing to end")


class WorkerCommand(Command):
    """Runs a worker. Modules that are named are imported once, in another process, as a check."""

    name = "nbjobs worker"
    description = Unicode(__doc__)
    examples = Unicode("nbjobs worker\nnbjobs worker --queue gpu my_project.jobs")

    def start(self) -> None:
        """Runs until SIGTERM."""
        from . import worker

        settings = self.settings()
        self.log_to_stderr()
        worker.run(settings, modules=self.extra_args)


class Watch(Command):
    """Shows runs, or all of yours, in this terminal until they end; the exit code says whether all completed."""

    name = "nbjobs watch"
    description = Unicode(__doc__)
    examples = Unicode("nbjobs watch\nnbjobs watch 0mij3p5k2x8q9fzt")

    def start(self) -> None:
        """Shows it."""
        from . import terminal

        self.settings()
        self.exit(0 if terminal.watch(*self.extra_args) else 1)


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
    "down": (Down, "end them"),
    "worker": (WorkerCommand, "run a worker"),
    "watch": (Watch, "show a run in this terminal"),
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
    finally:
        for command in commands:
            command.clear_instance()
    return 0


def _stand_here() -> None:
    """Puts the working directory where ``python -m`` has it, so that both commands mean the same environment."""
    here, script = str(Path.cwd()), str(Path(sys.argv[0]).absolute().parent)
    if sys.path and sys.path[0] == script != here:
        sys.path[0] = here
