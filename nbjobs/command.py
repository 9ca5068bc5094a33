"""What all commands have in common: the settings, how they log, and how they print."""

from __future__ import annotations

import io
import logging
import sys

from traitlets import Unicode
from traitlets.config import Application, Configurable

from . import __version__
from .errors import NbjobsError
from .settings import NbJobs, set_current

_CLASSES: list[type[Configurable]] = [NbJobs]
ALIASES = {
    "log-level": "Application.log_level",
    "user": "NbJobs.user",
    "redis-url": "NbJobs.redis_url",
    "queue": "NbJobs.queue",
    "children": "NbJobs.children",
    "async-runs": "NbJobs.async_runs",
    "workers": "NbJobs.workers",
}
_NO_FLAGS: dict[str, object] = {}


class Command(Application):
    """A command; its subclasses say what it does in `start`."""

    version = Unicode(__version__)
    classes = _CLASSES
    aliases = ALIASES
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

    def take_no_arguments(self) -> None:
        """Refuses what stands behind the command.

        Raises:
            NbjobsError: something does.
        """
        if self.extra_args:
            raise NbjobsError(f"`{self.name}` takes no arguments, found {self.extra_args[0]!r}; see {self.name} --help")

    def print_anything(self) -> None:
        """Lets a terminal without the characters of some text show stand-ins, and no error."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
