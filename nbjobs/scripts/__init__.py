"""The eight Lua scripts of the run store, as Redis gets them."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

NAMES = ("enqueue", "claim", "commit", "renew", "finish", "lapse", "control", "reopen")


class Script(NamedTuple):
    """A script and the name that Redis gives it."""

    name: str
    text: str
    sha: str

    @classmethod
    def of(cls, name: str, text: str) -> Script:
        """Return the script with this text."""
        return cls(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _load(name: str) -> Script:
    folder = files(__name__)
    shebang, _, body = folder.joinpath(f"{name}.lua").read_text("utf-8").partition("\n")
    # The shebang must be the first bytes: it makes Redis refuse the script whole where memory is full.
    return Script.of(name, f"{shebang}\n{folder.joinpath('_head.lua').read_text('utf-8')}\n{body}")


SCRIPTS = {name: _load(name) for name in NAMES}
