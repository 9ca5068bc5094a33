"""The stage that each test of a fault plays on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .stage import Stage, staged


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A Redis that forgets nothing as long as it lives, and nobody on it yet."""
    with staged(tmp_path) as found:
        yield found
