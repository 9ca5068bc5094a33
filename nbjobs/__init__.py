"""Long work from a Jupyter notebook that survives, with a live progress card."""

from __future__ import annotations

__version__ = "0.1.0"
