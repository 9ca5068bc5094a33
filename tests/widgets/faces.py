"""Views of every state, as a run of a tutorial would have them, and their faces."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec.structs import replace

from nbjobs.details import Output, details
from nbjobs.face import face
from nbjobs.view import AttemptView, RunView, StepView

PREPARED = StepView(name="prepare", state="done", ms=420)
LOADED = StepView(name="load_rows", state="done", ms=95_000, done=20_000, total=20_000)
FINAL = StepView(name="finalize", state="done", ms=12)
RESUMED = {"attempt": 2, "n": 7, "resumptions": 1, "resumed_at": 8000, "resumed_total": 20_000}
LOADING = {
    "step": "load_rows",
    "in_step": True,
    "ended_steps": 1,
    "steps": (PREPARED, StepView(name="load_rows", total=20_000)),
    "total": 20_000,
    "attempt": 1,
    "n": 4,
}
HALF = {**LOADING, **RESUMED, "done": 12_431, "earlier": 8000}
ERROR = {"error_type": "ValueError", "error_message": "row 12,432: expected 14 columns, found 13"}
AWAY = {"error_type": "ConnectionError", "error_message": "the warehouse did not answer"}
LONG = {
    "job": "shop.rebuild_the_whole_customer_recommendation_index_for_every_region",
    "step": "write_the_recommendations_of_the_north_western_sales_region",
    "ended_steps": 11,
    "attempt": 15,
    "resumptions": 14,
    "resumed_at": 1_190_004_000,
    "earlier": 1_190_004_000,
    "done": 1_204_431_112,
    "total": 20_000_000_000,
}


def views(now: int) -> dict[str, RunView]:
    """Name → view, in the order in which a page shows them; `now` is in ms."""

    def run(state: str, **fields: Any) -> RunView:
        begun = {"enqueued": now - 97_000, "started": now - 96_000, "began": now - 60_000}
        base: dict[str, Any] = {"job": "shop.imports.import_orders", "since": now - 3000, "updated": now}
        return RunView(run=f"r-{state}", state=state, **{**begun, **base, **fields})

    def stopped(state: str, **fields: Any) -> RunView:
        steps = (PREPARED, StepView(name="load_rows", state="stopped", ms=60_000, done=12_431, total=20_000))
        return run(state, **{**HALF, "in_step": False, "earlier": 12_431, "steps": steps, **fields})

    def samples(done: int, each: int) -> tuple[tuple[int, int], ...]:
        return tuple((done - each * ago, now - 500 * ago) for ago in range(9, -1, -1))

    fast = samples(12_431, 105)
    return {
        "scheduled": run("scheduled", n=1, at=now + 754_000),
        "queued": run("queued", n=1),
        "no worker": run("queued", n=1, no_worker=True, queue="gpu", since=now - 9000),
        "starting": run("running", n=2, attempt=1, since=now - 800),
        "plain step": run("running", n=3, attempt=1, step="prepare", in_step=True, step_began=now - 2000),
        "running": run("running", **LOADING, done=6204, samples=samples(6204, 104), step_began=now - 30_000),
        "no total": run("running", **{**LOADING, "total": None}, done=12_431, samples=fast, step_began=now - 59_000),
        "resuming": stopped("running", resumed_at=12_431, after="child_died", signal="SIGKILL"),
        "resumed": run("running", **HALF, samples=fast, step_began=now - 21_000),
        "stuck": run("running", **HALF, samples=fast, gaps=(900,) * 8, committed=now - 15_000),
        "newer code": run("running", **HALF, samples=fast, newer="orders.py"),
        "away": run("running", **HALF, samples=fast, away=now - 90_000),
        "requeued": stopped("queued", after="worker_died"),
        "retrying": stopped("retrying", at=now + 8000, failures=2, after="error", **AWAY),
        "pausing": run("pausing", **HALF),
        "paused": stopped("paused", after="paused"),
        "changed": stopped("paused", marks=("changed",), after="code changed"),
        "cancelling": run("cancelling", **HALF),
        "cancelled": stopped("cancelled", ended=now),
        "completed": run("completed", **RESUMED, ended=now, ended_steps=3, steps=(PREPARED, LOADED, FINAL)),
        "completed, plain": run("completed", n=3, attempt=1, ended=now, result="{'rows': 7888}"),
        "failed": stopped("failed", ended=now, after="error", **ERROR),
        "dead": stopped("dead", ended=now, crashes=4, attempt=5, after="child_died", signal="SIGSEGV"),
        "lost": run("lost"),
        "long": run("running", **{**HALF, **LONG}, samples=samples(1_204_431_112, 50_000)),
    }


def gallery() -> dict[str, dict[str, Any]]:
    """Name → face, as the card's trait holds it."""
    faces = {name: face(view) for name, view in views(int(time.time() * 1000)).items()}
    return {name: msgspec.to_builtins(one) for name, one in faces.items()}


TRACEBACK = """Traceback (most recent call last):
  File "/home/ada/orders.py", line 12, in load_rows
    check(row)
  File "/usr/lib/python3.11/csv.py", line 99, in check
    raise ValueError(f"row {number}: expected 14 columns, found {found}")
ValueError: row 12,432: expected 14 columns, found 13"""


def with_past(name: str) -> RunView:
    """The view of that name, with what an opened card shows besides: a killed attempt, costs, a traceback."""
    view = views(int(time.time() * 1000))[name]
    begun, held = view.enqueued, view.state in ("running", "pausing", "cancelling")
    first = AttemptView(
        no=1, began=begun + 1200, first=begun + 2600, ended=begun + 30_000, reason="child_died", signal="SIGKILL"
    )
    second = AttemptView(
        no=2,
        began=begun + 34_000,
        first=begun + 34_800,
        ended=0 if held else view.ended or view.updated - 3000,
        step="load_rows",
        done=8000,
        cursor="8000",
        reason="" if held else view.after or view.state,
    )
    attempts = tuple(replace(one, worker="thor-4711") for one in (first, second))
    costs = {"cpu": 12.25, "memory": 123_456_789} if view.ended else {}
    told = {"traceback": TRACEBACK} if view.state == "failed" else {}
    result = {"result": "{'rows': 20000}"} if view.state == "completed" else {}
    return replace(view, queue="default", worker="thor-4711", attempts=attempts, **costs, **told, **result)


def opened(name: str, lines: int = 40) -> tuple[dict[str, Any], dict[str, Any]]:
    """Face and details of `with_past`, with so many lines of output."""
    view = with_past(name)
    output = Output(0, tuple(printed(0, lines)))
    return msgspec.to_builtins(face(view)), msgspec.to_builtins(details(view, output))


def printed(first: int, until: int) -> list[tuple[str, str]]:
    """Lines of output; each fifth is of stderr."""
    return [("stderr" if i % 5 == 4 else "stdout", f"row {i} was imported") for i in range(first, until)]
