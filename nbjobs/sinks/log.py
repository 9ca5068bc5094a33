"""The sink that writes events to the standard `logging`, one readable line for each.

>>> from nbjobs.events import Event
>>> line(Event("job.step", {"job": "shop.load", "job_id": "r1", "step": "read", "done": 3}, {}, {}, 0))
'job.step load run=r1 step=read done=3'
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from .. import shown
from ..events import reporter
from ..plain import clean_text, preview

if TYPE_CHECKING:
    from ..events import Event

LOGGER = "nbjobs.jobs"

_LEVELS = {
    "job.failed": logging.ERROR,
    "job.dead": logging.ERROR,
    "job.interrupt": logging.WARNING,
    "job.retry_scheduled": logging.WARNING,
    "job.retry_stopped": logging.WARNING,
    "job.discarded": logging.WARNING,
    "job.progress": logging.DEBUG,
}
_VALUE = 120
_LINE = 1000


class LogSink:
    """Writes each event that it gets to a logger, at the level that fits it.

    A run that failed or died is an error, an interrupt or a retry a warning, progress (up to ten a second) is
    for debugging, all else is information. A record points at the line that notified, and has the whole
    event as its attribute ``event``.

    Args:
        logger: where to; ``nbjobs.jobs`` unless given.
        levels: other levels by name of the event, with ``*`` for any characters; the first that fits counts.

    >>> import logging
    >>> from nbjobs import subscribe, unsubscribe
    >>> sink = subscribe(LogSink(levels={"job.step*": logging.DEBUG}), names="job.*")
    >>> unsubscribe(sink)
    """

    def __init__(self, logger: logging.Logger | None = None, levels: Mapping[str, int] | None = None) -> None:
        self.logger = logger if logger is not None else logging.getLogger(LOGGER)
        self.levels = dict(levels or {})

    def emit(self, event: Event) -> None:
        """Write one line."""
        level = self._level(event.name)
        if not self.logger.isEnabledFor(level):
            return
        source = event.source_location or {}
        record = self.logger.makeRecord(
            self.logger.name,
            level,
            str(source.get("filepath", "(nbjobs)")),
            source.get("lineno", 0),
            "%s",
            (line(event),),
            None,
            func=str(source.get("label", "")) or None,
            extra={"event": event},
        )
        self.logger.handle(record)

    def _level(self, name: str) -> int:
        given = next((level for pattern, level in self.levels.items() if fnmatchcase(name, pattern)), None)
        return _LEVELS.get(name, logging.INFO) if given is None else given


def line(event: Event) -> str:
    """Return the event as one line of safe text: name, job, run, payload and tags."""
    payload = event.payload
    values: Mapping[str, Any] = reporter.filtered(payload) if isinstance(payload, dict) else {"payload": payload}
    run = values.get("job_id") or event.context.get("job_id")
    parts = [_word(event.name)]
    if isinstance(values.get("job"), str):
        parts.append(_word(values["job"].rpartition(".")[2]))
    if run is not None:
        parts.append(f"run={_shown(run)}")
    parts += _pairs((key, value) for key, value in values.items() if key not in ("job", "job_id"))
    if event.tags:
        parts.append(f"[{' '.join(_pairs(reporter.filtered(dict(event.tags)).items()))}]")
    text = " ".join(parts)
    return text if len(text) <= _LINE else text[: _LINE - 1] + "…"


def _pairs(items: Iterable[tuple[str, Any]]) -> Iterable[str]:
    for key, value in items:
        if value is True:
            yield _word(key)
        elif value is not None:
            yield f"{_word(key)}={_shown(value)}"


def _shown(value: Any) -> str:
    """Return a value without more quotes than it needs; of an exception its type and message."""
    if isinstance(value, dict) and "type" in value and "message" in value:
        return preview(f"{value['type']}: {value['message']}", _VALUE)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and value.isprintable() and value and " " not in value:
        return _word(value)
    return shown.value(value, _VALUE)


def _word(text: str) -> str:
    """Return a word as it is, without control characters, cut to a length that fits a line."""
    text = " ".join(clean_text(str(text)).split())
    return text if len(text) <= _VALUE else text[: _VALUE - 1] + "…"
