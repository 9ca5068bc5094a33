"""Following runs: one thread and one connection for all that a process watches of a user.

    with follower("ada").watch(run_id, callback) as watch:
        watch.wait_for(lambda view: view.state == "completed", timeout=60)

The thread reads the streams of the watched runs in one blocking call of at most a second. It never prints
and never raises: where Redis is away it connects again, with growing pauses, and loads each run anew;
likewise where an event is missing in between.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from . import connection, keys
from .errors import NbjobsError
from .intake import whole
from .reading import Entry, Loaded, aload, load
from .redis_connections import renew_all
from .runview import ENDED, lost
from .settings import NbJobs, current
from .view import fold
from .watches import Callback, Followed, Watch

__all__ = ["Follower", "Loaded", "Watch", "aload", "follower", "load", "stir"]

BLOCK = 1.0
LINGER = 1.0  # s that thread and connection stay without a watch
LOOK = 5.0  # s between two looks whether Redis still has what is watched, and opened again what rests
PATIENCE = 3.0  # s that a run may be queued before anybody asks whether a worker is alive
AWAY = 1500  # ms without Redis before anybody says so
ALIVE = 15_000  # ms: a worker without a younger sign counts as gone

_log = logging.getLogger("nbjobs.stream")
_FAILURES = (connection.RedisError, OSError, NbjobsError)


class Follower:
    """Follows runs of one user for this process. `follower` gives the one that all share.

    Args:
        user: whose runs.
        settings: which Redis; by default those of the process.
    """

    def __init__(self, user: str, settings: NbJobs | None = None) -> None:
        self._settings = settings or current()
        self._keys = keys.Keys(user)
        self._followed: dict[str, Followed] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._url: str | None = None
        self._client: Any = None
        self._client_id = 0
        self._reading = 0  # the number that Redis gave the connection that waits in a read; 0 where none does
        self._ahead = 0.0
        self._looked = self._asked = 0.0
        self._away = 0

    @property
    def connected(self) -> bool:
        """Whether the last thing that was tried with Redis went well."""
        return self._client is not None

    def now(self) -> int:
        """Redis' time in ms, as far as it is known here."""
        return round((time.time() + self._ahead) * 1000)

    def watch(self, run: str, callback: Callback | None = None, *, rests: bool = False) -> Watch:
        """Show each new view of a run to callback, from now on; the first one comes at once.

        A run that Redis does not have gives a view with the state ``lost``.

        Args:
            run: its id.
            callback: is called in the follower's thread.
            rests: after the run's end hold no connection for it. The watch goes on where the run is opened again by
                this process, or, while others are watched, by any.
        """
        return self.watch_all((run,), callback, rests=rests)[0]

    def watch_all(self, runs: Iterable[str], callback: Callback | None = None, *, rests: bool = False) -> list[Watch]:
        """As `watch`, for several runs at once."""
        watches = [Watch(run, callback, self._forget, rests=rests, following=self._is_this) for run in runs]
        with self._changed:
            for watch in watches:
                followed = self._followed.setdefault(watch.run, Followed(watch.run))
                if followed.resting:
                    followed.loaded = False  # nobody has followed it since its end
                followed.watches.append(watch)
                followed.fresh.append(watch)
            self._begin()
        if self._is_this():
            self._show_known(watches)
        elif watches:
            self._wake(watches[-1])
        return watches

    def _is_this(self) -> bool:
        """Whether the caller is the thread itself: a callback that goes on to ask."""
        return threading.current_thread() is self._thread

    def _show_known(self, watches: list[Watch]) -> None:
        """Show the watches what is known now, where the thread cannot wait for itself."""
        for watch in watches:
            followed = self._followed[watch.run]
            if followed.loaded and watch in followed.fresh:
                followed.fresh.remove(watch)
                watch.see(followed.view)

    def stir(self, run: str) -> None:
        """Look anew at a run that has ended: it was opened again.

        Also where its end is only being shown: who has seen it in a callback may open the run before the others rest.
        """
        with self._changed:
            followed = self._followed.get(run)
            if followed is None:
                return
            followed.stirred += 1
            followed.loaded = False
            followed.fresh.extend(followed.watches)
            watch = followed.watches[-1]
            self._begin()
        self._wake(watch)

    def _begin(self) -> None:
        """Have the thread; the lock is held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="nbjobs-follower", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _forget(self, watch: Watch) -> None:
        with self._changed:
            followed = self._followed.get(watch.run)
            if followed is None or watch not in followed.watches:
                return
            followed.watches.remove(watch)
            if not followed.watches:
                del self._followed[watch.run]
                self._changed.notify_all()

    def _wake(self, watch: Watch) -> None:
        """End the read under way, so that a new run is not a second late."""
        for _ in range(5):
            followed, reading = self._followed.get(watch.run), self._reading
            if not reading or not followed or watch not in followed.fresh:
                return
            try:
                client: Any = connection.sync_client(self._url or "", name="nbjobs-client", retry=False)
                with client:
                    if client.client_unblock(reading):
                        return
            except _FAILURES:
                return  # the thread sees for itself that Redis is away
            with self._changed:  # the read had been sent for, but not begun
                self._changed.wait(0.002)

    # -- the thread --------------------------------------------------------------------------------------

    def _follow(self) -> None:
        failures = 0
        while self._wanted():
            try:
                self._connect()
                self._load()
                self._look()
                self._ask_for_workers()
                self._read()
                failures, self._away = 0, 0
            except Exception as error:  # whatever it is, the watches of this process hang on this thread
                if not isinstance(error, _FAILURES):
                    _log.debug("The follower stumbled.", exc_info=True)
                self._disconnect()
                failures += 1
                self._tell_away()
                with self._changed:
                    self._changed.wait(min(5.0, 0.05 * 2**failures) * (0.5 + random.random() / 2))

    def _tell_away(self) -> None:
        """Say of all that is followed that Redis is out of reach, once that lasts; loading them anew takes it back."""
        self._away = self._away or self.now()
        if self.now() - self._away < AWAY:
            return
        for one in self._snapshot():
            if one.view.n and not one.view.away and one.view.state not in ENDED:
                one.show(replace(one.view, away=self._away))

    def _wanted(self) -> bool:
        """Whether anything is watched that does not rest; after a while without, the thread is told to leave."""
        with self._changed:
            if self._changed.wait_for(self._awake, LINGER):
                return True
            self._thread = None
            self._disconnect()
            return False

    def _awake(self) -> list[Followed]:
        return [one for one in self._followed.values() if not one.resting]

    def _connect(self) -> None:
        if self._client is not None:
            return
        if self._url is None:  # once: a card that looks again must not start a Redis that was ended
            self._url = connection.resolve_url(self._settings)
        # one thread uses it, so its pool never has more than one connection
        client: Any = connection.sync_client(self._url, name="nbjobs-follower", retry=False)
        self._client_id = client.client_id()
        self._set_clock(client)
        self._client = client
        self._looked = time.monotonic() - LOOK
        for followed in self._snapshot():
            followed.loaded = False

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _set_clock(self, client: Any) -> int:
        seconds, micros = client.time()
        self._ahead = seconds + micros / 1e6 - time.time()
        return int(seconds * 1000 + micros // 1000)

    def _snapshot(self) -> list[Followed]:
        with self._changed:
            return self._awake()

    def _resting(self) -> list[Followed]:
        with self._changed:
            return [one for one in self._followed.values() if one.resting]

    def _load(self) -> None:
        """Load what is new or was in doubt, and show it."""
        for followed in self._snapshot():
            run = followed.view.run
            if not followed.loaded:
                followed.fresh.clear()
                stirred = followed.stirred
                loaded = load(self._client, self._keys, run)
                followed.loaded = followed.stirred == stirred  # else it was opened again in the meantime
                followed.last_id = loaded.last_id if loaded else self._end(run)
                followed.show(loaded.view if loaded else lost(followed.view))
            while followed.fresh:
                followed.fresh.pop(0).see(followed.view)  # the oldest first: who waits finds the cards drawn

    def _end(self, run: str) -> str:
        """The last id of a run that is lost, though its stream may be there."""
        last = self._client.xrevrange(self._keys.events(run), count=1)
        return str(last[0][0]) if last else "0-0"

    def _read(self) -> None:
        positions = {self._keys.events(one.view.run): one.last_id for one in self._snapshot() if one.loaded}
        if not positions:
            return
        by_key = {self._keys.events(one.view.run): one for one in self._snapshot()}
        self._reading = self._client_id
        try:
            if any(one.fresh for one in by_key.values()):
                return
            answer = self._client.xread(positions, count=200, block=round(BLOCK * 1000))
        finally:
            self._reading = 0
        for key, entries in answer:
            followed = by_key.get(key)
            if followed is not None:
                self._take(followed, entries)

    def _take(self, followed: Followed, entries: list[Entry]) -> None:
        """Fold what came. Each state is shown, of the progress in between only the last."""
        view = followed.view
        for id, entry in entries:
            if view.state == "lost":
                followed.loaded = False
                return
            numbered, before = whole(entry.get("n")), view.n
            view = fold(view, entry)
            followed.last_id = id
            if numbered and numbered > before:
                if numbered != before + 1 or view.n == before:
                    followed.loaded = False  # a hole, or what cannot be: look at the run itself
                    return
                followed.show(view)
        if view is not followed.view:
            followed.show(view)

    def _look(self) -> None:
        """Find runs that Redis has lost, or that went on without us, though nothing was read of it."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        if not connection.is_primary(self._client):  # it would show what is old
            renew_all()
            raise connection.ConnectionError("a replica answers")
        resting = self._resting()
        followed = [one for one in self._snapshot() if one.view.state not in ENDED and one.view.state != "lost"]
        if not followed and not resting:
            return
        pipe = self._client.pipeline(transaction=False)
        for one in (*followed, *resting):
            pipe.hget(self._keys.run(one.view.run), "n")
        numbers = pipe.execute()
        for one, n in zip(resting, numbers[len(followed) :], strict=True):
            if (whole(n) or 0) > one.view.n:
                one.loaded = False
        for one, n in zip(followed, numbers, strict=False):
            if n is None:
                one.last_id = self._end(one.view.run)
                one.show(lost(one.view))
            elif (whole(n) or 0) < one.view.n or ((whole(n) or 0) > one.view.n == one.seen):
                one.loaded = False
            one.seen = one.view.n

    def _ask_for_workers(self) -> None:
        """Say of runs that are queued for a while whether a worker of their queue is alive."""
        if time.monotonic() - self._asked < 1.0:
            return
        self._asked = time.monotonic()
        waiting = [
            one
            for one in self._snapshot()
            if one.view.state == "queued" and one.view.queue and self.now() - one.view.since > PATIENCE * 1000
        ]
        if not waiting:
            return
        now = self._set_clock(self._client)
        queues = sorted({one.view.queue for one in waiting})
        pipe = self._client.pipeline(transaction=False)
        for queue in queues:
            pipe.zrevrange(keys.workers(queue), 0, 0, withscores=True)
        signs = {queue: sign[0][1] if sign else 0 for queue, sign in zip(queues, pipe.execute(), strict=True)}
        for one in waiting:
            alone = now - signs[one.view.queue] > ALIVE
            if alone != one.view.no_worker:
                one.show(replace(one.view, no_worker=alone))


_lock = threading.Lock()
_followers: dict[tuple[str, str], Follower] = {}


def follower(user: str) -> Follower:
    """Return the follower of a user's runs that this process shares, for the current settings."""
    settings = current()
    with _lock:
        place = (user, settings.redis_url or settings.data_dir)
        if place not in _followers:
            _followers[place] = Follower(user, settings)
        return _followers[place]


def stir(user: str, run: str) -> None:
    """Tell those who watch a run in this process, and rest since its end, that it was opened again."""
    with _lock:
        found = [one for (owner, _), one in _followers.items() if owner == user]
    for one in found:
        one.stir(run)


def _drop_followers() -> None:
    """After a fork: the threads are not there, and the connections are the parent's."""
    global _lock, _followers
    dropped, _lock, _followers = _followers, threading.Lock(), {}
    for one in dropped.values():
        one.__init__(one._keys.user, one._settings)  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_followers)
