"""Where settings come from: jupyter's config files and environment variables, unparsed."""

from __future__ import annotations

import difflib
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from traitlets.config import Config
from traitlets.config.loader import JSONFileConfigLoader, PyFileConfigLoader

from .errors import SettingsError

_log = logging.getLogger("nbjobs.settings")
_OWN = "nbjobs_config"
_SHARED = "jupyter_config"


def config_sections(name: str) -> Iterator[tuple[str, Config]]:
    """Yield the section of that name of each config file that has one, the strongest last.

    Files are ``jupyter_config`` and then ``nbjobs_config``, both as ``.py`` and ``.json``, in the config
    directories that ``jupyter --paths`` lists.

    Yields:
        the file's path and the section.

    Raises:
        SettingsError: an ``nbjobs_config`` cannot be read. A ``jupyter_config`` that cannot is left out with
            a warning in the log: it may be meant for another environment.
    """
    directories = [Path(entry) for entry in reversed(_config_path())]
    for base in (_SHARED, _OWN):
        for directory in directories:
            for path in (directory / f"{base}.py", directory / f"{base}.json"):
                config = _read(path, name)
                if config is not None and name in config:
                    yield str(path), config[name]


def _config_path() -> Sequence[str]:
    try:
        from jupyter_core.paths import jupyter_config_path
    except ImportError:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return jupyter_config_path()


def _read(path: Path, name: str) -> Config | None:
    try:
        if name not in path.read_text(encoding="utf-8"):
            return None
        loader: Any = PyFileConfigLoader if path.suffix == ".py" else JSONFileConfigLoader
        config: Config = loader(path.name, str(path.parent)).load_config()
        return config
    except OSError:
        return None
    except Exception as error:  # a config file is foreign code
        message = f"{path} cannot be read: {type(error).__name__}: {error}"
        if path.stem == _OWN:
            raise SettingsError(f"{message}; correct it or move it away") from error
        _log.warning("%s; its settings for nbjobs are left out", message)
        return None


def variables(prefix: str, names: Iterable[str]) -> dict[str, str]:
    """Return the environment's text for each name that it sets; an empty variable sets nothing.

    Raises:
        SettingsError: a variable with the prefix looks like a misspelt name.
    """
    known = {prefix + name.upper(): name for name in names}
    found = {}
    for variable, text in os.environ.items():
        if variable in known:
            if text:
                found[known[variable]] = text
        elif variable.startswith(prefix):
            guess = similar(variable, known)
            if guess:
                raise SettingsError(f"unknown environment variable {variable}: {guess}")
    return found


def similar(name: str, names: Iterable[str]) -> str:
    """Return a question that offers the name that was probably meant, or nothing.

    >>> similar("leese", ["lease", "renew"])
    'did you mean lease?'
    """
    close = difflib.get_close_matches(name, list(names), 1, 0.8)
    return f"did you mean {close[0]}?" if close else ""
