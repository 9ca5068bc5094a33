"""A Redis of one's own with an append-only file, and workers that reach it through proxies."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from random import Random

import psutil

from nbjobs.settings import configure

from ..faults.processes import Worker
from ..faults.proxy import Proxy
from ..support import RedisServer, wait_until
from .totals import Totals
from .worlds import PATIENCE, USER_EVENTS, Fault, World, bodies, kill

STOPS = 20  # of workers, after which a write of one of them must have been refused
QUEUE, LEASE, RENEW, SWEEP, GRACE = "chaos", 2.5, 0.4, 0.5, 5.0


class Place:
    """Where one worker runs: its way to Redis, and the worker that is there now.

    Attributes:
        troubled: a fault is under way, so that no second one is added.
    """

    def __init__(self, socket: Path, folder: Path, name: str) -> None:
        self.proxy = Proxy(socket)
        self.folder, self.name = folder, name
        self.troubled = False
        self.started = 0
        self.start()

    def start(self) -> None:
        """Start a worker here."""
        self.started += 1
        settings = {"queue": QUEUE, "lease": LEASE, "renew": RENEW, "sweep": SWEEP, "grace": GRACE}
        self.worker = Worker(
            self.proxy.url,
            self.folder / f"worker-{self.name}-{self.started}.log",
            **settings,
            children=4,
            crash_wait="[0,0.4,0.8]",
            user_events=USER_EVENTS,
        )


class Own(World):
    """See the module.

    Args:
        workers: how many.
    """

    name = "a Redis of one's own"
    pause = (0.4, 2.0)  # seconds between two faults
    places_for_runs = 7

    def __init__(self, folder: Path, dice: Random, totals: Totals, workers: int = 2) -> None:
        super().__init__(folder, dice, totals)
        self.server = RedisServer(appendonly="yes").start()
        self.socket, self.client = self.server.socket, self.server.client()
        configure(redis_url=self.server.url, queue=QUEUE)
        self.places = [Place(self.socket, folder, str(n + 1)) for n in range(workers)]

    def begin(self, number: int) -> None:
        super().begin(number)
        self.calm()
        self.later(self.dice.uniform(5, 40), self.kill_redis)

    def faults(self) -> dict[str, tuple[int, Fault]]:
        return {
            "worker killed": (2, self.kill_worker),
            "worker and children killed": (1, self.kill_all),
            "child killed": (5, self.kill_child),
            "nursery killed": (1, self.kill_nursery),
            "worker stopped": (2, self.stop_worker),
            "deploy": (2, self.deploy),
            "connections cut": (3, self.cut),
            "answers lost": (4, self.lose),
            "partition": (2, self.part),
            "slow": (1, self.slow),
            "scripts forgotten": (1, self.flush_scripts),
        }

    def _calm_place(self) -> Place:
        return self.dice.choice([place for place in self.places if not place.troubled])

    # -- processes -----------------------------------------------------------------------------------

    def kill_worker(self, everybody: bool = False) -> None:
        place = self._calm_place()
        below = place.worker.below()
        place.worker.kill(everybody=everybody)
        self.must_end(below, f"worker {place.worker.pid}, which was killed")
        self._away(place)

    def kill_all(self) -> None:
        self.kill_worker(everybody=True)

    def _away(self, place: Place) -> None:
        place.troubled = True

        def again() -> None:
            place.start()
            place.troubled = False

        self.later(self.dice.uniform(0, 2), again)

    def kill_child(self) -> None:
        kill(self.dice.choice(bodies(self._calm_place().worker.below())))

    def kill_nursery(self) -> None:
        kill(next(one for one in self._calm_place().worker.below() if "nbjobs.nursery" in one.cmdline()))

    def stop_worker(self) -> None:
        """Longer than its lease; its children too, or they end by themselves."""
        place = self._calm_place()
        place.troubled = True
        worker, below = place.worker, place.worker.below()
        worker.send(signal.SIGSTOP, everybody=True)

        def wake() -> None:
            for one in [psutil.Process(worker.pid), *below]:
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(signal.SIGCONT)
            place.troubled = False

        self.later(self.dice.uniform(LEASE, LEASE + 4), wake)

    def deploy(self) -> None:
        """SIGTERM; the next one starts beside it."""
        place = self._calm_place()
        old, below = place.worker, place.worker.below()
        old.send(signal.SIGTERM)
        place.start()

        def look() -> None:
            try:
                wait_until(lambda: old.process.poll() is not None, GRACE + 10)
            except AssertionError:
                self.totals.find("left-over processes", f"worker {old.pid} outlives its grace: {old.said[-500:]}")
                old.close()
            self.must_end(below, f"worker {old.pid}, which has left")

        self.later(GRACE + 2, look)

    # -- the way to Redis ----------------------------------------------------------------------------

    def cut(self) -> None:
        self._calm_place().proxy.cut()

    def lose(self) -> None:
        self._calm_place().proxy.lose(
            self.dice.choice(["claim", "commit", "finish", "renew"]), self.dice.choice([1, 2])
        )

    def part(self) -> None:
        place = self._calm_place()
        place.troubled = True
        place.proxy.part()

        def heal() -> None:
            place.proxy.heal()
            place.troubled = False

        self.later(self.dice.uniform(0.5, LEASE + 3), heal)

    def slow(self) -> None:
        proxy = self._calm_place().proxy
        proxy.delay = self.dice.uniform(0.05, 0.4)
        self.later(self.dice.uniform(0.5, 2), lambda: setattr(proxy, "delay", 0.0))

    # -- Redis ---------------------------------------------------------------------------------------

    def flush_scripts(self) -> None:
        if self.server.process is not None:
            self.client.script_flush()

    def kill_redis(self) -> None:
        """SIGKILL, and a start after a while; what it remembers is looked at before anybody else asks it."""
        self.totals.strike("Redis killed")
        self.server.kill()
        for place in self.places:
            place.proxy.shut = True

        def again() -> None:
            self.recorder.close()
            self.server.start()
            self.recorder.listen(self._remembered())
            for place in self.places:
                place.proxy.shut = False

        self.later(self.dice.choice([0.0, self.dice.uniform(0, 2)]), again)
        self.later(self.dice.uniform(5, 40), self.kill_redis)

    def _remembered(self) -> dict[str, dict[str, str]]:
        """Return the hashes of all runs as they are now; each fits its last event."""
        runs = {run: self.client.hgetall(self.keys.run(run)) for run in self.client.zrange(self.keys.runs, 0, -1)}
        last = {entry["id"]: int(entry["n"]) for _, entry in self.client.xrange(self.keys.user_events)}
        for run, fields in runs.items():
            if fields and int(fields["n"]) != last.get(run):
                self.totals.find("torn", f"run {run}: the hash says n = {fields['n']}, its last event {last.get(run)}")
        return runs

    # -- the end -------------------------------------------------------------------------------------

    def tend(self, *, everything: bool = False) -> None:
        super().tend(everything=everything)
        for place in self.places:
            if not place.troubled and (code := place.worker.process.poll()) is not None:
                said = place.worker.said[-3000:]
                if not said.startswith("nbjobs: Redis at"):  # it was to start just when Redis was away
                    self.totals.find("a worker ended", f"{place.worker.pid} by itself, with code {code}: {said}")
                place.start()

    def calm(self) -> None:
        self.forget(self.kill_redis)
        super().calm()
        for place in self.places:
            wait_until(
                lambda p=place: self._takes_runs(p),
                PATIENCE,
                lambda p=place: f"worker {p.worker.pid} takes runs: {p.worker.said}",
            )

    def _takes_runs(self, place: Place) -> bool:
        self.tend()  # one that was to start while Redis was away has ended: a supervisor starts it again
        signs = self.client.zrange(f"nbjobs:workers:{QUEUE}", 0, -1)
        return any(f"-{place.worker.pid}-" in sign for sign in signs)

    def close(self) -> None:
        if self.totals.faults["worker stopped"] >= STOPS and not self.totals.refused:
            self.totals.find(
                "nothing shown", "no write of a worker that was stopped for longer than its lease was refused"
            )
        super().close()
        for place in self.places:
            place.worker.send(signal.SIGTERM)
        for place in self.places:
            with suppress(Exception):
                place.worker.process.wait(GRACE + 10)
            self.find_strays(place.proxy.url)
            place.worker.close()
            place.proxy.close()
        self.client.close()
        self.server.close()
