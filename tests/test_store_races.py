"""Processes that call the scripts of one run at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import redis

from nbjobs.keys import Keys

from .model import Model, differences
from .racer import RUN
from .support import RedisServer

ROOT = Path(__file__).parents[1]
PROCESSES = 8


def race(server: RedisServer, seed: int, count: int) -> list[list[object]]:
    """Let eight processes loose; return all calls in the order in which Redis did them."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.racer", server.url, str(seed * 100 + k), str(count)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for k in range(PROCESSES)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        done = [json.loads(line) for racer in racers for line in racer.communicate(timeout=60)[0].splitlines()]
        assert [racer.returncode for racer in racers] == [0] * PROCESSES
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    return sorted(done)


@pytest.mark.fault(9)
@pytest.mark.parametrize("seed", [1])
def test_processes_that_race_act_as_if_one_after_the_other(
    redis_server: RedisServer, redis_client: redis.Redis, seed: int
) -> None:
    """What eight processes do to one run at once is what a model does in the order of Redis: none is torn or lost."""
    calls = race(redis_server, seed, 100)
    model = Model()
    codes: Counter[str] = Counter()
    for now, script, args, code, (state, c, n, fence) in calls:
        assert model.apply(script, args, now) == code, (now, script, args[4:], code)
        if code != "GONE":
            run = model.fields
            assert (state, c, n, fence) == (run["state"], run["c"], run["n"], run["fence"])
        codes[code] += 1
    assert not differences(redis_client, Keys("ada"), RUN, model)
    assert codes["FENCED"] > 10, "no zombie was refused, so this has shown nothing"
    assert codes["HELD"] + codes["ATTEMPT"] > 10
    assert codes["OK"] > 40
    for script in ("claim", "commit", "control"):
        assert any(call[1] == script and call[3] == "OK" for call in calls), f"no {script} was done"
