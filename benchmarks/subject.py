"""Measure one subject in this process: ``python -m benchmarks.subject NAME FILE [--quick]``."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from .figures import wire


def main() -> None:
    """Write the figures of a subject into a file."""
    name, file, *rest = sys.argv[1:]
    module = importlib.import_module(f"benchmarks.{name}")
    figures = module.measure(quick="--quick" in rest)
    Path(file).write_text(json.dumps(wire(figures)))


if __name__ == "__main__":
    main()
