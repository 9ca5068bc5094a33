"""Every key, channel and id in Redis.

All keys of one user share the hash tag ``{u}`` with ``u = enc(user)``: one slot of a cluster, and one
prefix for an access rule. The encoding is injective and leaves no character that means something in a
pattern or a key.

>>> Keys("ada@example").run("2024")
'nbjobs:{ada-40example}:run:2024'
"""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
import time

USERS = "nbjobs:users"
"""Sorted set of all users by the time of their last enqueue or claim."""

SWEEPER = "nbjobs:sweeper"
"""Lock of the worker that looks for what is due."""

ENVIRONMENTS = "nbjobs:environments"
"""Hash of the embedded Redis: queue → the environment whose worker takes from it."""

_ENC_MAX = 64
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ESCAPE = re.compile(r"-([0-9a-f]{2})|([a-z0-9])")
_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUEUE = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_ARQ_ID = re.compile(r"\{([a-z0-9-]{1,64})\}:([A-Za-z0-9._-]{1,64}):([0-9]{1,12})")
_HASHED = "h--"


def enc(user: str) -> str:
    """Return a user's name as it stands in keys: 1 to 64 characters of ``a-z``, ``0-9`` and ``-``.

    Letters and digits are kept, every other byte becomes ``-`` and two hex digits. What would be longer
    than 64 characters becomes a hash behind ``h--``, which no escape can produce; so two users never
    share their keys.

    >>> enc("ada"), enc("Ada"), enc("*")
    ('ada', '-41da', '-2a')
    """
    if not isinstance(user, str):
        raise TypeError(f"user is a {type(user).__name__}, expected a str: pass the user's name")
    if not user:
        raise ValueError("user is empty, expected a name: set NBJOBS_USER or pass user=")
    return _enc(user)


@functools.lru_cache(maxsize=1000)
def _enc(user: str) -> str:
    data = user.encode("utf-8", "surrogatepass")
    if len(data) <= _ENC_MAX:
        text = "".join(chr(b) if b in _PLAIN else f"-{b:02x}" for b in data)
        if len(text) <= _ENC_MAX:
            return text
    return _HASHED + hashlib.sha256(data).hexdigest()[:40]


def dec(u: str) -> str | None:
    """Return the user whose `enc` is u, or None where u is a hash or no encoding at all.

    >>> dec("-41da")
    'Ada'
    """
    data = bytearray()
    end = 0
    for match in _ESCAPE.finditer(u):
        if match.start() != end:
            return None
        end = match.end()
        data += bytes.fromhex(match[1]) if match[1] else match[2].encode()
    if end != len(u):
        return None
    try:
        user = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return user if user and enc(user) == u else None


class Keys:
    """The keys of one user.

    Attributes:
        user: the user's name; empty where only the encoded name is known and it is a hash.
        u: the encoded name.
    """

    __slots__ = ("_base", "due", "runs", "u", "user", "user_events")

    def __init__(self, user: str) -> None:
        self._fill(user, enc(user))

    @classmethod
    def of(cls, u: str) -> Keys:
        """Return the keys of the user whose encoded name is u, as it stands in `USERS` and arq's ids."""
        keys = cls.__new__(cls)
        keys._fill(dec(u) or "", u)
        return keys

    def _fill(self, user: str, u: str) -> None:
        self.user = user
        self.u = u
        self._base = f"nbjobs:{{{u}}}:"
        self.user_events = self._base + "events"
        self.runs = self._base + "runs"
        self.due = self._base + "due"

    def __repr__(self) -> str:
        return f"Keys.of({self.u!r})"

    def run(self, id: str) -> str:
        """Hash of a run."""
        return f"{self._base}run:{id}"

    def events(self, id: str) -> str:
        """Stream of all events of a run."""
        return f"{self._base}run:{id}:events"

    def log(self, id: str) -> str:
        """Stream of a run's output and logging."""
        return f"{self._base}run:{id}:log"

    def map(self, id: str, k: int) -> str:
        """Hash of the results that a run's k-th step keeps while it maps."""
        return f"{self._base}run:{id}:map:{k}"

    def code(self, sha: str) -> str:
        """String that holds code by value."""
        return f"{self._base}code:{sha}"

    def script_keys(self, id: str) -> list[str]:
        """Return the six keys that each script is called with, in its order."""
        run = self.run(id)
        return [run, run + ":events", run + ":log", self.user_events, self.runs, self.due]


def workers(queue: str) -> str:
    """Sorted set of a queue's workers by their last sign of life."""
    return f"nbjobs:workers:{queue}"


def worker(id: str) -> str:
    """String in which a worker says what it is, for as long as it lives."""
    return f"nbjobs:worker:{id}"


def wake(queue: str) -> str:
    """Channel on which a queue's workers are woken."""
    return f"nbjobs:wake:{queue}"


def arq_queue(queue: str) -> str:
    """Sorted set in which arq keeps the queue's entries."""
    return f"arq:queue:{queue}"


def arq_id(user: str, id: str, attempt: int) -> str:
    """Return arq's id of one attempt.

    >>> arq_id("ada", "r1", 2)
    '{ada}:r1:2'
    """
    return f"{{{enc(user)}}}:{id}:{attempt}"


def parse_arq_id(text: str) -> tuple[str, str, int]:
    """Return the encoded user, the run's id and the attempt.

    >>> parse_arq_id("{ada}:r1:2")
    ('ada', 'r1', 2)
    """
    match = _ARQ_ID.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:200]!r} is no id of an attempt, expected {{user}}:run:attempt")
    return match[1], match[2], int(match[3])


def arq_job(id: str) -> str:
    """String that holds arq's entry."""
    return f"arq:job:{id}"


def arq_in_progress(id: str) -> str:
    """String with which arq marks an entry as taken."""
    return f"arq:in-progress:{id}"


def arq_retry(id: str) -> str:
    """String in which arq counts the tries of an entry."""
    return f"arq:retry:{id}"


def new_run_id() -> str:
    """Return a new id of 16 characters: 8 for the millisecond, so ids sort by time, and 8 random ones."""
    return _base36(time.time_ns() // 1_000_000 % 36**8) + _base36(secrets.randbelow(36**8))


def _base36(number: int) -> str:
    """Return a number's eight last digits."""
    text = ""
    for _ in range(8):
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text


def check_run_id(text: str) -> str:
    """Return text if it can be a run's id, else raise ValueError."""
    if isinstance(text, str) and _RUN_ID.fullmatch(text):
        return text
    raise ValueError(
        f"run id {_show(text)} cannot be used: expected 1 to 64 of the characters A-Z a-z 0-9 . _ - "
        "(leave the id out to get a new one)"
    )


def check_queue(text: str) -> str:
    """Return text if it can be the name of a queue, else raise ValueError."""
    if isinstance(text, str) and _QUEUE.fullmatch(text):
        return text
    raise ValueError(f"queue {_show(text)} cannot be used: expected 1 to 64 of the characters A-Z a-z 0-9 . _ : -")


def _show(text: object) -> str:
    return ascii(text[:100]) if isinstance(text, str) else f"of type {type(text).__name__}"
