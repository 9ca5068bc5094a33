"""Every error with which Redis 7.0 to 8.2, Valkey and their sentinels answer, and what each one means.

An answer of an error begins with a word, such as ``READONLY``; many of older date begin with ``ERR`` and a sentence.
`find` tells them apart whatever stands around the word: redis-py leaves the word out where it has a class for it, a
pipeline puts the command before it, and a script its name behind it.

What an error concerns says what is to be done about it:

==========  ==========================================  ==========================  =================================
`concerns`  a client, such as a notebook                a body, at its commit       a service of a worker or a daemon
==========  ==========================================  ==========================  =================================
server      `RedisUnavailable`: it passes               waits                       waits
settings    `RedisUnavailable`: the address, the user   waits: they were right      ends at its start; later it waits
            or the kind of Redis is not right           when it began
call        raised as it is                             raised as it is             waits: others may go on
unknown     raised as it is                             waits a while, then raised  waits
==========  ==========================================  ==========================  =================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    ExecAbortError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

__all__ = ["ERRORS", "Meaning", "concerns_call", "find", "text_of"]


@dataclass(frozen=True)
class Meaning:
    """What one error of Redis means.

    Attributes:
        word: with which it begins; a sentence where ``ERR`` is all that stands before that.
        concerns: ``server``, ``settings`` or ``call``.
        told: goes on after "Redis at host:port/0": what was found, and what to do.
        anew: whether another server may be meant by now, so that the connection is to be made anew.
    """

    word: str
    concerns: Literal["server", "settings", "call"]
    told: str
    anew: bool = False


_FULL = "is full (maxmemory): free some memory or raise its limit. Runs wait, and go on then."
_LOGIN = "refuses the user or the password: check those in NBJOBS_REDIS_URL."
_CLUSTER = "is a node of a Redis Cluster, expected a single primary: give the address of one in NBJOBS_REDIS_URL."
_OLD = "is too old, or no Redis: expected Redis 7.0 or later, or Valkey."
_NUMBER = "has no database of that number: check the one at the end of NBJOBS_REDIS_URL."
_RIGHTS = (
    "does not let this user do what is needed ({found}): give the user the right, with ACL SETUSER, "
    "or name another one in NBJOBS_REDIS_URL."
)
_SENTINEL = "has no primary at the moment: its sentinels have not agreed on one. Look at their logs."
_KILL = "was asked to end a script: that does not concern a run."

ERRORS: tuple[Meaning, ...] = (
    # It passes, by itself or by the hand of whoever runs this Redis.
    Meaning("LOADING", "server", "is still loading its data: try again in a moment.", anew=True),
    Meaning(
        "BUSY",
        "server",
        "is busy with a long script of another client: wait, or end that with SCRIPT KILL or FUNCTION KILL.",
    ),
    Meaning(
        "MASTERDOWN",
        "server",
        "is a replica that has lost its primary: look at that, or give the address of the primary.",
        anew=True,
    ),
    Meaning("READONLY", "server", "is a replica and takes no writes: give the address of its primary.", anew=True),
    Meaning("UNBLOCKED", "server", "became a replica just now: try again in a moment.", anew=True),
    Meaning(
        "NOREPLICAS",
        "server",
        "refuses writes, since fewer replicas are connected than min-replicas-to-write asks for: look at those.",
        anew=True,
    ),
    Meaning(
        "MISCONF", "server", "cannot save to its disk, so it refuses writes: look at its log and the disk's space."
    ),
    Meaning("OOM", "server", _FULL),
    Meaning("NOSCRIPT", "server", "forgot its scripts just now (SCRIPT FLUSH): try again."),
    Meaning("EXECABORT", "server", "refused a transaction as a whole: try again, and look at its log."),
    Meaning("IOERR", "server", "could not reach another Redis: look at its log."),
    Meaning("CLUSTERDOWN", "server", "is a node of a Redis Cluster that is down: look at its other nodes.", anew=True),
    Meaning("TRYAGAIN", "server", "is a node of a Redis Cluster that moves data: try again in a moment."),
    Meaning(
        "max number of clients",
        "server",
        "has as many clients as its maxclients allows: raise that, or close some of them.",
        anew=True,
    ),
    Meaning("Script killed by user", "server", "ended a script, as SCRIPT KILL asked it to: try again."),
    Meaning("INPROG", "server", "is in the middle of a fail-over: try again in a moment.", anew=True),
    Meaning("NOGOODSLAVE", "server", "has no replica that could become its primary: look at those.", anew=True),
    Meaning("NOQUORUM", "server", _SENTINEL, anew=True),
    Meaning("IDONTKNOW", "server", _SENTINEL, anew=True),
    Meaning("NOMASTERLINK", "server", "is a replica without a link to its primary: look at that.", anew=True),
    # The address, the user or the kind of Redis is not right; a connection made anew logs in anew.
    Meaning("NOAUTH", "settings", _LOGIN, anew=True),
    Meaning("WRONGPASS", "settings", _LOGIN, anew=True),
    Meaning("invalid password", "settings", _LOGIN, anew=True),
    Meaning("operation not permitted", "settings", _LOGIN, anew=True),
    Meaning("AUTH <password> called without any password", "settings", _LOGIN, anew=True),
    Meaning("Client sent AUTH, but no password is set", "settings", _LOGIN, anew=True),
    Meaning("NOPERM", "settings", _RIGHTS),
    Meaning("ACL failure in script", "settings", _RIGHTS),
    Meaning("The user executing the script", "settings", _RIGHTS),
    Meaning(
        "DENIED",
        "settings",
        "is in protected mode and takes no connections from other machines: give it a password.",
        anew=True,
    ),
    Meaning("DB index", "settings", _NUMBER),
    Meaning("invalid DB index", "settings", _NUMBER),
    Meaning("SELECT is not allowed in cluster mode", "settings", _CLUSTER),
    Meaning("MOVED", "settings", _CLUSTER, anew=True),
    Meaning("ASK", "settings", _CLUSTER, anew=True),
    Meaning("REDIRECT", "server", "sends its clients to another server: try again in a moment.", anew=True),
    Meaning("No such master with that name", "settings", "is unknown to its sentinels: check the name in the URL."),
    Meaning("unknown command", "settings", _OLD),
    Meaning("Error compiling script", "settings", _OLD),
    Meaning("NOPROTO", "settings", _OLD),
    Meaning("Protocol error", "settings", "does not understand what it is sent: check the port in NBJOBS_REDIS_URL."),
    # They say something of this one call and the keys that it names.
    Meaning("WRONGTYPE", "call", "holds another kind of value under a key of nbjobs than nbjobs writes."),
    Meaning("CROSSSLOT", "call", "is a Redis Cluster, and the keys of one call lie on several of its nodes."),
    Meaning("INVALIDOBJ", "call", "holds a value that is damaged."),
    Meaning("BUSYKEY", "call", "has a key already that was to be made."),
    Meaning("BUSYGROUP", "call", "has a group of consumers already that was to be made."),
    Meaning("NOGROUP", "call", "has no such group of consumers."),
    Meaning("NOTBUSY", "call", _KILL),
    Meaning("UNKILLABLE", "call", _KILL),
)
"""The table: one entry a word."""

_OF_CLASSES: tuple[tuple[type[Exception], str], ...] = (
    (BusyLoadingError, "LOADING"),
    (ReadOnlyError, "READONLY"),
    (OutOfMemoryError, "OOM"),
    (NoScriptError, "NOSCRIPT"),
    (ExecAbortError, "EXECABORT"),
    (NoPermissionError, "NOPERM"),
    (AuthenticationError, "WRONGPASS"),
    (AuthorizationError, "WRONGPASS"),
)
_WORDS = {one.word: one for one in ERRORS}
_SENTENCES = tuple(one for one in ERRORS if not one.word.isupper())
_PIPELINED = "of pipeline caused error: "
_OF_SCRIPT = re.compile(r"user_script:\d+:|\bscript: [0-9a-f]{40}\b|Error running script")
_WITHIN = re.compile(r"[:'] ?-?(" + "|".join(one.word for one in ERRORS if one.word.isupper()) + r")\b")
_SCRIPT_FAILED = Meaning("script", "call", "ended a script over what it found under its keys.")


def find(error: BaseException) -> Meaning | None:
    """Return what an error of Redis means; None where it is no answer of Redis, or one that nobody knows."""
    if isinstance(error, ConnectionError) and isinstance(error.__cause__, ResponseError):
        error = error.__cause__  # met by asyncio's client while it connects
    found = next((word for kind, word in _OF_CLASSES if isinstance(error, kind)), None)
    if found is not None:
        return _WORDS[found]
    text = text_of(error)
    meaning = _WORDS.get(text.partition(" ")[0])
    if meaning is not None:
        return meaning
    text = text.removeprefix("ERR ")
    for one in _SENTENCES:
        if text.startswith(one.word):
            return one
    if _OF_SCRIPT.search(text):  # before Redis 7.0 it stands somewhere within
        within = _WITHIN.search(text)
        killed = _WORDS["Script killed by user"]
        return _WORDS[within[1]] if within else killed if killed.word in text else _SCRIPT_FAILED
    return None


def concerns_call(error: BaseException) -> bool:
    """Return whether an error says something of one call and its keys, so that others may go on."""
    meaning = find(error)
    return meaning is not None and meaning.concerns == "call"


def text_of(error: BaseException) -> str:
    """Return what Redis said, without the command that a pipeline of redis-py puts before it."""
    text = str(error)
    if text.startswith("Command # "):
        text = text.rpartition(_PIPELINED)[2]
        if text.startswith(("('", '("')):  # the client for asyncio puts a tuple's text there
            return text[2:].rstrip(",)")[:-1]
    return text
