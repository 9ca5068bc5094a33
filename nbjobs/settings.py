"""The settings: one traitlets `Configurable`, filled from files, the environment and code.

The same trait can be set in ``nbjobs_config.py`` or a ``jupyter_config.py`` (``c.NbJobs.lease = 30``), by the
environment (``NBJOBS_LEASE=30``), on a command line (``--NbJobs.lease=30``) and by `configure`; what stands
later in this list wins. Times are in seconds. A password in a URL is shown by nothing here.

>>> NbJobs(lease=30, redis_url="redis://:hunter2@db:6379/1")
NbJobs(lease=30.0, redis_url='redis://:***@db:6379/1')
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from traitlets import Bool, Enum, Float, Int, List, TraitError, Unicode, default, validate
from traitlets.config import Config, Configurable
from traitlets.config.loader import LazyConfigValue

from . import forks
from .environment import Environment, default_user, environment
from .errors import SettingsError
from .keys import check_queue
from .plain import masked_url
from .sources import config_sections, similar, variables

_SCHEMES = ("redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://", "unix://")

__all__ = [
    "Environment",
    "NbJobs",
    "configure",
    "current",
    "default_user",
    "environment",
    "masked_url",
    "set_current",
]


class NbJobs(Configurable):
    """All settings of nbjobs.

    Args:
        **traits: values by name; what is not given has its default. Use `NbJobs.load` to look into files and
            the environment too.

    Raises:
        SettingsError: a name is unknown or a value cannot be used.
    """

    redis_url = Unicode(None, allow_none=True, help="Redis of the runs; none: the embedded one").tag(config=True)
    queue_redis_url = Unicode(None, allow_none=True, help="Redis of arq's queue; none: redis_url").tag(config=True)
    user = Unicode(help="owner of the runs; default: JUPYTERHUB_USER, else the OS user").tag(config=True)
    queue = Unicode(None, allow_none=True, help="queue of new runs; none: 'default', embedded one per environment").tag(
        config=True
    )
    adapter = Enum(["arq", "inline"], "arq", help="who runs: a worker, or the enqueuing process").tag(config=True)

    lease = Float(15.0, help="how long a worker holds a run without a sign").tag(config=True)
    renew = Float(5.0, help="time between two signs").tag(config=True)
    sweep = Float(5.0, help="at most this long until somebody looks for what is due").tag(config=True)
    commit_interval = Float(0.05, help="cadence of commits").tag(config=True)
    grace = Float(25.0, help="after SIGTERM, how long an item may take to end").tag(config=True)
    crash_wait = List(Float(), [0.0, 10.0, 60.0], help="waits after crashes; the last repeats").tag(config=True)
    release_wait = List(
        Float(), [0.0, 1.0, 10.0, 60.0], help="waits after attempts that were stopped without progress"
    ).tag(config=True)
    keep = Float(7 * 86400.0, help="how long ended runs are kept").tag(config=True)
    idle_exit = Float(600.0, help="how long the embedded daemon stays without work").tag(config=True)

    workers = Int(1, help="workers of an environment that the embedded daemon keeps").tag(config=True)
    children = Int(help="processes for sync bodies; default: the cores").tag(config=True)
    child_runs = Int(1000, help="runs after which a child is replaced").tag(config=True)
    async_runs = Int(100, help="async bodies at a time").tag(config=True)
    max_crashes = Int(3, help="crashes in a row without progress that a run survives").tag(config=True)
    run_events = Int(1000, help="events kept of a run").tag(config=True)
    user_events = Int(5000, help="state events kept of a user").tag(config=True)

    accept_code = Bool(help="load code from notebooks; default: only embedded").tag(config=True)
    data_dir = Unicode(help="directory of the embedded Redis' data").tag(config=True)
    runtime_dir = Unicode(help="directory of sockets and locks").tag(config=True)

    def __init__(self, **traits: Any) -> None:
        config = traits.pop("config", None)
        parent = traits.pop("parent", None)
        if config is None and parent is not None:
            config = parent.config
        given = {**_section(config, "the command line"), **traits}
        _check_names(given, "the call")
        self._given = set(given)
        try:
            super().__init__(**given)
        except TraitError as error:
            raise SettingsError(f"bad setting: {error}") from None
        if self.renew >= self.lease:
            raise SettingsError(
                f"renew is {self.renew:g} s and lease {self.lease:g} s, expected renew to be smaller, "
                "best a third: a run would be taken from a living worker"
            )

    @classmethod
    def load(cls, config: Config | None = None, /, **traits: Any) -> NbJobs:
        """Return the settings of config files, the environment, config and traits; the later ones win.

        Args:
            config: what an application has read from its command line.
            **traits: values by name.
        """
        values: dict[str, Any] = {}
        for path, section in config_sections("NbJobs"):
            values.update(_resolved(section, path))
        for name, text in variables("NBJOBS_", NAMES).items():
            values[name] = _parsed(name, text)
        values.update(_section(config, "the command line"))
        values.update(traits)
        return cls(**values)

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> NbJobs:
        """Return the settings that `to_wire` put into data; names of another version are left out."""
        return cls(**{name: value for name, value in data.items() if name in NAMES})

    def to_wire(self) -> dict[str, Any]:
        """Return all values as JSON-able data, secrets included: for a process that we start."""
        return {name: getattr(self, name) for name in NAMES}

    @property
    def embedded(self) -> bool:
        """Whether runs live in the embedded Redis."""
        return self.redis_url is None

    @property
    def queue_name(self) -> str:
        """The queue of new runs where `enqueue` names none."""
        if self.queue is not None:
            return self.queue
        return environment().hash if self.embedded else "default"

    @property
    def queue_url(self) -> str | None:
        """URL of the Redis that holds arq's queue."""
        return self.queue_redis_url if self.queue_redis_url is not None else self.redis_url

    def wait_after_crash(self, crashes: int) -> float:
        """Return the seconds to wait after so many crashes in a row.

        >>> [NbJobs().wait_after_crash(k) for k in (1, 2, 3, 4)]
        [0.0, 10.0, 60.0, 60.0]
        """
        waits = self.crash_wait
        return waits[min(max(crashes, 1), len(waits)) - 1] if waits else 0.0

    @default("user")
    def _default_user(self) -> str:
        return default_user()

    @default("children")
    def _default_children(self) -> int:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    @default("accept_code")
    def _default_accept_code(self) -> bool:
        return self.embedded

    @default("data_dir")
    def _default_data_dir(self) -> str:
        import platformdirs

        return platformdirs.user_data_dir("nbjobs", appauthor=False)

    @default("runtime_dir")
    def _default_runtime_dir(self) -> str:
        return str(Path(self.data_dir, "run"))  # XDG_RUNTIME_DIR is removed at logout, and cron jobs have none

    @validate("redis_url", "queue_redis_url")
    def _check_url(self, proposal: Any) -> str | None:
        value: str | None = proposal.value
        if value is None or value.startswith(_SCHEMES):
            return value
        raise _bad(proposal, masked_url(value), f"{', '.join(_SCHEMES[:-1])} or {_SCHEMES[-1]} and an address")

    @validate("user")
    def _check_user(self, proposal: Any) -> str:
        if proposal.value:
            return str(proposal.value)
        raise _bad(proposal, "empty", "a name")

    @validate("queue")
    def _check_queue(self, proposal: Any) -> str | None:
        try:
            return None if proposal.value is None else check_queue(proposal.value)
        except ValueError as error:
            raise SettingsError(str(error)) from None

    @validate("lease", "renew", "sweep", "commit_interval", "keep", "idle_exit")
    def _check_seconds(self, proposal: Any) -> float:
        if math.isfinite(proposal.value) and proposal.value > 0:
            return float(proposal.value)
        raise _bad(proposal, proposal.value, "a number of seconds above 0")

    @validate("grace")
    def _check_grace(self, proposal: Any) -> float:
        if math.isfinite(proposal.value) and proposal.value >= 0:
            return float(proposal.value)
        raise _bad(proposal, proposal.value, "a number of seconds, 0 or more")

    @validate("crash_wait", "release_wait")
    def _check_waits(self, proposal: Any) -> list[float]:
        if all(math.isfinite(wait) and wait >= 0 for wait in proposal.value):
            return [float(wait) for wait in proposal.value]
        raise _bad(proposal, proposal.value, "a list of seconds, each 0 or more")

    @validate("workers", "children", "child_runs", "async_runs", "run_events", "user_events")
    def _check_count(self, proposal: Any) -> int:
        if proposal.value >= 1:
            return int(proposal.value)
        raise _bad(proposal, proposal.value, "1 or more")

    @validate("max_crashes")
    def _check_crashes(self, proposal: Any) -> int:
        if proposal.value >= 0:
            return int(proposal.value)
        raise _bad(proposal, proposal.value, "0 or more")

    def is_set(self, name: str) -> bool:
        """Return whether a setting was given, so that its default does not count."""
        return name in self._given

    def _notify_trait(self, name: str, old_value: Any, new_value: Any) -> None:
        self._given.add(name)
        super()._notify_trait(name, old_value, new_value)

    def __repr__(self) -> str:
        shown = []
        for name in sorted(self._given):
            value = getattr(self, name)
            shown.append(f"{name}={masked_url(value) if name.endswith('_url') and value else value!r}")
        return f"NbJobs({', '.join(shown)})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("settings are not pickled, since they may hold a password: use to_wire()")


NAMES: tuple[str, ...] = tuple(sorted(NbJobs.class_own_traits(config=True)))
"""Names of all settings."""


_lock = forks.lock()
_current: NbJobs | None = None


def current() -> NbJobs:
    """Return the settings of this process, loaded from files and the environment at the first call."""
    global _current
    with _lock:
        if _current is None:
            _current = NbJobs.load()
        return _current


def set_current(settings: NbJobs | None) -> None:
    """Make settings those of this process; None: load them anew at the next `current`."""
    global _current
    with _lock:
        _current = settings


def configure(**traits: Any) -> NbJobs:
    """Change settings of this process and return them all; what is not named stays as it is.

    >>> configure(redis_url="redis://localhost:6379", lease=20).lease
    20.0
    >>> set_current(None)
    """
    settings = current()
    kept = {name: value for name, value in settings.to_wire().items() if settings.is_set(name)}
    settings = NbJobs(**{**kept, **traits})
    set_current(settings)
    return settings


def _check_names(names: Iterable[str], source: str) -> None:
    for name in names:
        if name not in NAMES:
            guess = similar(name, NAMES) or f"there are {', '.join(NAMES)}"
            raise SettingsError(f"unknown setting {name!r} in {source}: {guess}")


def _section(config: Config | None, source: str) -> dict[str, Any]:
    section = None if config is None else config.get("NbJobs")
    return _resolved(section, source) if section else {}


def _resolved(section: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a section's values, with text from a command line parsed and appended lists worked out."""
    _check_names(section, source)
    values = {}
    for name, value in section.items():
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            value = ",".join(value)  # how a command line leaves a list
        if isinstance(value, str):
            values[name] = _parsed(name, str(value), source)
        elif isinstance(value, LazyConfigValue):
            values[name] = value.get_value(NbJobs.class_traits()[name].default())
        else:
            values[name] = value
    return values


def _parsed(name: str, text: str, source: str = "the environment") -> Any:
    """Return the value that text means for a trait."""
    trait = NbJobs.class_traits()[name]
    try:
        if isinstance(trait, List):
            return [float(part) for part in text.strip("[]() ").split(",") if part.strip()]
        if isinstance(trait, Bool):
            return _WORDS[text.strip().lower()]
        if isinstance(trait, Float):
            return float(text)
        return int(text) if isinstance(trait, Int) else text
    except (ValueError, KeyError):
        expected = "true or false" if isinstance(trait, Bool) else f"{_KINDS[type(trait)]}"
        raise SettingsError(f"setting {name} is {text!r} in {source}, expected {expected}") from None


_WORDS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
_KINDS: dict[type, str] = {List: "numbers separated by commas", Float: "a number", Int: "a whole number"}


def _bad(proposal: Any, found: object, expected: str) -> SettingsError:
    return SettingsError(f"setting {proposal.trait.name} is {found}, expected {expected}")
