"""The peer: a plain arq worker, as its documentation shows one. ``python -m benchmarks.arq_peer SETTINGS``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from arq.connections import RedisSettings
from arq.worker import func, run_worker

from .jobs import send


async def stamp(ctx: dict[str, Any], path: str) -> None:
    """Say when the body began."""
    send(path, time.monotonic_ns())


async def nothing(ctx: dict[str, Any]) -> None:
    """Do nothing."""


class WorkerSettings:
    """What arq reads."""

    functions = (func(stamp), func(nothing))


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    redis_settings = RedisSettings.from_dsn(given.pop("redis_url"))
    run_worker(WorkerSettings, redis_settings=redis_settings, **given)  # type: ignore[arg-type]
