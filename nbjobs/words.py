"""Numbers and times as people say them: rounded once, here, for every surface.

>>> count(12431), rate(210.4), left(36.2), lasted(125.0)
('12,431', '210/s', 'about 35 s left', '2 min 5 s')
"""

from __future__ import annotations

__all__ = ["count", "lasted", "left", "plural", "rate", "size", "spoken", "ticked", "times", "title"]

_RATES = ((1.0, 1.0, "/s"), (1 / 60, 60.0, "/min"), (1 / 3600, 3600.0, "/h"))
_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_LEFT = (  # below so many seconds: in which unit, by how many of it, and its name
    (19.5, 1, 1, "s"),
    (57.5, 1, 5, "s"),
    (115.0, 1, 10, "s"),
    (59.5 * 60, 60, 1, "min"),
    (36 * 3600.0, 3600, 1, "h"),
)
_SIZES = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB"))


def count(number: int) -> str:
    """A whole number with thousands marked; beyond 15 digits as a power of ten."""
    return f"{number:,}" if -(10**15) < number < 10**15 else f"about 10^{len(str(abs(number))) - 1}"


def plural(number: int, noun: str) -> str:
    """The number with its noun.

    >>> plural(1, "attempt"), plural(2500, "attempt")
    ('1 attempt', '2,500 attempts')
    """
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def times(number: int) -> str:
    """How often: once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(number) or f"{count(number)} times"


def rate(per_second: float) -> str:
    """A rate to three figures, in the unit that keeps it at 1 or above.

    >>> rate(12431.0), rate(3.14159), rate(0.25), rate(0)
    ('12,400/s', '3.14/s', '15/min', '')
    """
    for least, factor, unit in _RATES:
        if least <= per_second < 1e15:
            return _figures(per_second * factor) + unit
    return ""


def _figures(number: float) -> str:
    if number >= 1000:
        scale = 10 ** (len(str(int(number))) - 3)
        return f"{round(number / scale) * scale:,}"
    return f"{number:.3g}" if number < 999.5 else "1,000"


def left(seconds: float) -> str:
    """The time that is left, only as exact as it can be known, so that it does not waver.

    >>> left(14.2), left(43), left(87), left(118), left(5000)
    ('about 14 s left', 'about 45 s left', 'about 90 s left', 'about 2 min left', 'about 1 h left')
    """
    if seconds < 3:
        return "a few seconds left"
    for below, unit, by, name in _LEFT:
        if seconds < below:
            return f"about {round(seconds / unit / by) * by} {name} left"
    days = round(seconds / 86400)
    return f"about {days} days left" if days < 1000 else ""


def lasted(seconds: float) -> str:
    """How long something took.

    >>> lasted(0.0042), lasted(8.43), lasted(75), lasted(4000), lasted(200000)
    ('4 ms', '8.4 s', '1 min 15 s', '1 h 6 min', '2 d 7 h')
    """
    if seconds < 0.9995:
        return f"{round(max(0.0, seconds) * 1000)} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else ticked(round(seconds))


def ticked(seconds: int) -> str:
    """A duration as a clock shows it while it runs: whole seconds, the two largest units.

    >>> ticked(0), ticked(3), ticked(75)
    ('0 s', '3 s', '1 min 15 s')
    """
    for unit, name, part, small in _UNITS:
        if seconds >= unit:
            rest = seconds % unit // part
            return f"{seconds // unit} {name}" + (f" {rest} {small}" if rest else "")
    return f"{max(0, seconds)} s"


def size(number: int) -> str:
    """Bytes in the largest unit that fits."""
    for unit, name in _SIZES:
        if number >= unit:
            return f"{_figures(number / unit)} {name}"
    return f"{number} B"


def title(name: str) -> str:
    """A step's name in words: `load_rows` is read as "load rows"."""
    return name.replace("_", " ").strip() or name


def spoken(text: str) -> str:
    """Short units written out, for a screen reader."""
    for short, word in (
        (" %", " percent"),
        (" s left", " seconds left"),
        (" min left", " minutes left"),
        (" h left", " hours left"),
    ):
        text = text.replace(short, word)
    return text
