"""One of several processes that call the scripts of one run as fast as they can; prints what it did.

Run as ``python -m tests.racer URL SEED COUNT``; begins when a line comes on stdin.
"""

from __future__ import annotations

import json
import random
import sys

from nbjobs import connection
from nbjobs.calls import Call, Calls, Commit, Reply
from nbjobs.settings import NbJobs
from nbjobs.store import Store

from .model import counted_scripts

RUN = "r1"
LEASE = 25  # calls of all processes


class Racer:
    """Holds the run when it can, and says what it must not when it cannot."""

    def __init__(self, calls: Calls, seed: int) -> None:
        self.calls = calls
        self.random = random.Random(seed)
        self.owner = f"w{seed}"
        self.attempt = self.c = self.n = 0
        self.holds = False

    def learn(self, call: Call, reply: Reply) -> None:
        """Take note of an answer; a refusal is believed only half of the time, as by a zombie."""
        self.attempt, self.c, self.n = reply.attempt, reply.c, reply.n
        if call.script == "claim":
            self.holds = reply.ok
        elif reply.code == "FENCED" or call.script in ("finish", "lapse"):
            self.holds = self.holds and self.random.random() < 0.5

    def next(self) -> Call:
        """Choose a call by what this process knows, which may be old."""
        holding = {"commit": 12, "renew": 2, "finish": 2, "control": 2, "lapse": 1}
        others = {"claim": 6, "commit": 2, "finish": 1, "lapse": 3, "control": 3, "reopen": 3, "enqueue": 1}
        weights = holding if self.holds else others
        script = self.random.choices(list(weights), list(weights.values()))[0]
        call: Call = getattr(self, script)()
        return call

    def enqueue(self) -> Call:
        return self.calls.enqueue(RUN, {"job": "m.f", "args": "[]"}, "{}")

    def claim(self) -> Call:
        self.owner = f"{self.owner.partition(':')[0]}:{self.random.randrange(10**6)}"
        return self.calls.claim(RUN, self.owner, self.attempt + 1, "{}")

    def commit(self) -> Call:
        events = [("s", "job.step", "{}"), ("p", "job.progress", "{}")][: self.random.randrange(3)]
        done = self.c + self.random.choice([1, 1, 1, 0, 2])
        last = Commit(done, self.n, f"view {done}", True, "step", str(done), done, 100, [], events)
        return self.calls.commit(RUN, self.owner, last)

    def renew(self) -> Call:
        return self.calls.renew(RUN, self.owner)

    def finish(self) -> Call:
        outcome = self.random.choice(["released"] * 9 + ["retrying", "paused", "failed"])
        return self.calls.finish(RUN, self.owner, outcome, d="{}")

    def lapse(self) -> Call:
        return self.calls.lapse(RUN, self.random.choice(["", "", self.owner]), "{}")

    def control(self) -> Call:
        op = self.random.choice(["pause"] * 3 + ["unpause"] * 6 + ["cancel", "accept"])
        return self.calls.control(RUN, op, self.n, "{}")

    def reopen(self) -> Call:
        return self.calls.reopen(RUN, self.n, None, "{}")


def main(url: str, seed: int, count: int) -> None:
    limits = NbJobs(lease=LEASE / 1000, renew=0.01, max_crashes=3, crash_wait=[0.0, 0.03], run_events=100_000)
    store = Store(connection.sync_client(url), "ada", limits)
    racer = Racer(store.calls, seed)
    store.read(RUN, "state")
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(count):
        call = racer.next()
        for _ in range(racer.random.choice([1, 1, 2])):  # twice: the answer was lost
            reply = store.send(call)
            print(
                json.dumps(
                    [reply.now, call.script, list(call.args), reply.code, [reply.state, reply.c, reply.n, reply.fence]]
                )
            )
        racer.learn(call, reply)


if __name__ == "__main__":
    with counted_scripts():
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
