"""Forgets what is no longer kept: expired runs in the list of their user, and users of whom nothing is left.

Each user has a turn once in an hour, a page of runs at a time, since one user may have very many. A user who gave no
sign for a day and of whom no run is unfinished is let go: the stream of events and the list of runs end a day after
the last run. A script that leaves a run in a state that is no end takes that back.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .connection import AsyncClient, ResponseError, translated
from .keys import USERS, Keys

logger = logging.getLogger("nbjobs.sweeper")

_DAY = 86_400_000
_HOUR = 3600.0
_PAGE = 200
_PAGES = 10  # in one sweep


@dataclass(frozen=True)
class _Turn:
    """How far a user's list has been read.

    Attributes:
        idle: whether the user has nothing due and gave no sign for long.
        longest: ms until the last of the runs that have ended expires.
        unfinished: whether a run was found that has no end.
    """

    keys: Keys
    idle: bool
    offset: int = 0
    longest: int = 0
    unfinished: bool = False


class Tidying:
    """Goes through the lists of all users.

    Args:
        client: of the run store.
        keep: seconds for which ended runs are kept.
    """

    def __init__(self, client: AsyncClient, keep: float) -> None:
        self._client = client
        self._keep = round(keep * 1000)
        self._users: deque[str] = deque()
        self._turn: _Turn | None = None
        self._began = -float("inf")

    async def some(self, users: Iterable[str], now: int) -> None:
        """Does a part of the work; begins again with these users once an hour."""
        if not self._users and self._turn is None and time.monotonic() - self._began >= _HOUR:
            self._began = time.monotonic()
            self._users.extend(users)
        for _ in range(_PAGES):
            if self._turn is None and not self._users:
                return
            try:
                with translated(self._client):
                    turn = self._turn or await self._begin(Keys.of(self._users.popleft()), now)
                    self._turn = None  # where a key of theirs cannot be read, the others have their turn all the same
                    self._turn = await self._page(turn, now)
            except ResponseError as error:
                if not is_of_one_user(error):
                    raise
                logger.warning("a user's list of runs is not tidied: %s", error)

    async def _begin(self, keys: Keys, now: int) -> _Turn:
        pipe = self._client.pipeline(transaction=False)
        pipe.exists(keys.due)
        pipe.zscore(USERS, keys.u)
        due, signed = await pipe.execute()
        return _Turn(keys, idle=not due and (signed or 0) < now - min(_DAY, self._keep))

    async def _page(self, turn: _Turn, now: int) -> _Turn | None:
        """Reads a page of a user's list; returns where the next one begins, if there is any."""
        runs = await self._client.zrangebyscore(
            turn.keys.runs, "-inf", "+inf" if turn.idle else now - self._keep, start=turn.offset, num=_PAGE
        )
        pipe = self._client.pipeline(transaction=False)
        for run in runs:
            pipe.pttl(turn.keys.run(run))
        left: Sequence[int] = await pipe.execute() if runs else []
        gone = [run for run, ms in zip(runs, left, strict=True) if ms == -2]
        if gone:
            await self._client.zrem(turn.keys.runs, *gone)
        longest, unfinished = max([turn.longest, *left]), turn.unfinished or -1 in left
        if len(runs) == _PAGE:
            offset = turn.offset + len(runs) - len(gone)
            return replace(turn, offset=offset, longest=longest, unfinished=unfinished)
        if turn.idle and not unfinished:
            await self._let_go(turn.keys, longest + _DAY)
        return None

    async def _let_go(self, keys: Keys, ms: int) -> None:
        """Has a user's keys end by themselves; whoever enqueues meanwhile keeps them."""
        (signed,) = await self._client.zmscore(USERS, [keys.u])
        pipe = self._client.pipeline(transaction=False)
        for key in (keys.user_events, keys.runs):
            pipe.pexpire(key, ms)
        pipe.zrem(USERS, keys.u)
        pipe.exists(keys.due)
        if (await pipe.execute())[-1]:
            for key in (keys.user_events, keys.runs):
                await self._client.persist(key)
            await self._client.zadd(USERS, {keys.u: signed or 0})


def is_of_one_user(error: Exception) -> bool:
    """Whether an error comes from what a user has put into a key, and so concerns nobody else."""
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")
