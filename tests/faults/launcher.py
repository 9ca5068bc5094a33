"""A worker that obeys the fail points: ``python -m tests.faults.launcher worker``."""

from __future__ import annotations

import sys

from nbjobs.cli import main

from . import failpoints

if __name__ == "__main__":
    failpoints.install()
    sys.exit(main(sys.argv[1:]))
