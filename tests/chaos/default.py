"""The embedded default: a daemon in directories of its own, which keeps Redis and a worker for this process."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from random import Random

import psutil
import redis

from nbjobs import connection, embedded
from nbjobs.errors import EmbeddedError
from nbjobs.settings import set_current

from ..homes import Home
from ..support import wait_until
from ..workers import gone
from .totals import Totals
from .worlds import ORPHANS, PATIENCE, USER_EVENTS, Fault, World, bodies, kill


class Default(World):
    """See the module."""

    name = "the embedded default"
    pause = (1.0, 5.0)
    places_for_runs = 3

    def __init__(self, folder: Path, dice: Random, totals: Totals) -> None:
        super().__init__(folder, dice, totals)
        os.environ["NBJOBS_USER_EVENTS"] = str(USER_EVENTS)  # the worker has the environment of its first client
        self.home = Home()
        set_current(self.home.settings)
        embedded.url(self.home.settings)
        self.socket = self.home.places.redis_socket
        self.client = redis.Redis.from_url(self.home.places.redis_url, decode_responses=True, socket_timeout=10)

    def begin(self, number: int) -> None:
        self.calm()
        super().begin(number)
        self.recorder.follow()
        self.later(self.dice.uniform(5, 40), self.kill_redis)

    def faults(self) -> dict[str, tuple[int, Fault]]:
        return {
            "worker killed": (3, self.kill_worker),
            "child killed": (6, self.kill_child),
            "nursery killed": (1, self.kill_nursery),
            "guard killed": (1, self.kill_guard),
            "daemon killed": (1, self.kill_daemon),
            "worker ended by SIGTERM": (2, self.end_worker),
            "down and up": (1, self.deploy),
        }

    def _family(self) -> list[psutil.Process]:
        with suppress(AssertionError, EmbeddedError):
            return self.home.family()
        return []

    def _member(self, name: str) -> psutil.Process:
        return next(one for one in self._family()[1:] if name in " ".join(one.cmdline()))

    def kill_worker(self) -> None:
        worker = self._member("worker")
        below = worker.children(recursive=True)
        kill(worker)
        self.must_end(below, f"worker {worker.pid}, which was killed")

    def kill_child(self) -> None:
        kill(self.dice.choice(bodies(self._family())))

    def kill_nursery(self) -> None:
        kill(self._member("nbjobs.nursery"))

    def kill_guard(self) -> None:
        family = self._family()
        kill(next(one for one in family[1:] if "guard.py" in " ".join(one.cmdline())))
        self.must_end(family[1:], "the guard, which was killed")

    def kill_daemon(self) -> None:
        family = self._family()
        kill(family[0])
        self.must_end(family, "the daemon, which was killed")
        self.later(self.dice.uniform(0, 2), self.up)

    def kill_redis(self) -> None:
        self.later(self.dice.uniform(5, 40), self.kill_redis)
        with suppress(StopIteration, psutil.NoSuchProcess):
            kill(self._member("redis-server"))
            self.totals.strike("Redis killed")

    def end_worker(self) -> None:
        worker = self._member("worker")
        worker.send_signal(signal.SIGTERM)

    def deploy(self) -> None:
        family = self._family()
        self.home.run("down")
        self.must_end(family, "a daemon that has ended")
        self.up()

    def up(self) -> None:
        """Do what each client does that wants a worker."""
        connection.drop_client()
        embedded.url(self.home.settings)

    def calm(self) -> None:
        self.forget(self.kill_redis)
        super().calm()

        def ready() -> bool:
            with suppress(EmbeddedError, redis.RedisError, OSError):
                self.up()
                return bool(self.client.ping())
            return False

        wait_until(ready, PATIENCE, lambda: f"the daemon answers: {self.home.log()[-3000:]}", every=0.2)

    def close(self) -> None:
        super().close()
        self.client.close()
        family = self._family()
        self.home.run("down", check=False)
        with suppress(AssertionError):
            wait_until(lambda: gone(family), ORPHANS)
        self.find_strays(str(self.home.folder))
        del os.environ["NBJOBS_USER_EVENTS"]
        shutil.rmtree(self.home.folder, ignore_errors=True)
