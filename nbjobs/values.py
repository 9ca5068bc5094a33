"""What steps return, as far as it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import codec
from .errors import NotData, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .progress import Saved

VALUES_LIMIT = 4 * 1024 * 1024  # bytes of remembered values in a run


class Values:
    """The remembered values of a run's steps: data of at most 64 KiB each, 4 MiB together."""

    def __init__(self, saved: Iterable[Saved]) -> None:
        self._bytes = sum(len(one.value or "") for one in saved)

    def keep(self, name: str, value: Any) -> tuple[str | None, str]:
        """Return the text of the step's value, or None and why it cannot be kept."""
        if value is None:
            return "null", ""
        try:
            text = codec.encode(value, what=f"value of step {name!r}", limit=codec.VALUE_LIMIT)
        except (NotData, TooLarge) as error:
            return None, str(error)
        if self._bytes + len(text) > VALUES_LIMIT:
            return None, f"the values of this run's steps would have more than {VALUES_LIMIT:,} bytes"
        self._bytes += len(text)
        return text, ""
