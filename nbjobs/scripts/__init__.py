"""The eight Lua scripts of the run store, as Redis gets them."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

NAMES = ("enqueue", "claim", "commit", "renew", "finish", "lapse", "control", "reopen")


class Script(NamedTuple):
    """A script and the name Redis gives it."""

    name: str
    text: str
    sha: str


def _read(name: str) -> Script:
    folder = files(__name__)
    shebang, _, body = folder.joinpath(f"{name}.lua").read_text("utf-8").partition("\n")
    # The shebang must be the first bytes: it makes Redis refuse the script whole where memory is full.
    text = f"{shebang}\n{folder.joinpath('_head.lua').read_text('utf-8')}\n{body}"
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


SCRIPTS = {name: _read(name) for name in NAMES}
