"""``python -m nbjobs``: the same as the command ``nbjobs``."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line and returns its exit code."""
    from .cli import main as run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
