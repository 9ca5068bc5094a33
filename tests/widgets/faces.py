"""Faces of every state, as a run of the tutorial would show them."""

from __future__ import annotations

import time
from typing import Any

Face = dict[str, Any]


def face(state: str, **changes: Any) -> Face:
    """A face with the fields every card has, and `changes` over it."""
    now = int(time.time() * 1000)
    base: Face = {
        "schema": 1, "run": "r-" + state, "job": "imports.import_orders", "name": "import_orders",
        "state": state, "icon": "○", "word": state, "headline": state, "step": "", "step_no": None,
        "attempt": 1, "resumed": 0, "marks": [], "n": 3, "bar": None, "percent": "", "facts": [],
        "aria": state, "error": "", "clock": None, "thresholds": [], "updated": now, "ended": False, "steps": [],
    }  # fmt: skip
    return {**base, **changes}


def facts(**texts: str) -> list[dict[str, str]]:
    return [{"kind": kind, "text": text} for kind, text in texts.items()]


def bar(done: float | None, earlier: float = 0, notch: float | None = None) -> Face:
    return {"done": done, "earlier": earlier, "notch": notch}


def gallery() -> dict[str, Face]:
    """Name → face, in the order in which a page shows them."""
    now = int(time.time() * 1000)
    loading = {"step": "load_rows", "step_no": 2, "headline": "Step 2 · load rows"}
    half = {"bar": bar(0.62, 0.4, 0.4), "percent": "62 %", "resumed": 1, "attempt": 2, "marks": ["resumed"]}
    resumed = {"resumed": "resumed once at 8,000"}
    count = {"count": "12,431 of 20,000"}
    return {
        "scheduled": face("scheduled", headline="scheduled for 14:30", clock={"since": now - 4000, "prefix": "queued for "}),
        "queued": face("queued", clock={"since": now - 3000, "prefix": "queued for "}),
        "no worker": face(
            "queued",
            clock={"since": now - 9000, "prefix": "queued for "},
            thresholds=[{"at": now - 4000, "mark": "no-worker", "text": "waiting for a worker: none alive on queue gpu"}],
        ),
        "starting": face("running", headline="running", clock={"since": now - 800, "prefix": "running for "}),
        "running": face(
            "running", **loading, bar=bar(0.31), percent="31 %",
            facts=facts(count="6,204 of 20,000", rate="208/s", remaining="about 1 min left"),
        ),
        "resumed": face("running", **loading, **half, facts=facts(**count, rate="210/s", remaining="about 36 s left", **resumed)),
        "no total": face("running", **loading, bar=None, facts=facts(count="12,431", rate="210/s"),
                         clock={"since": now - 59000, "prefix": "for "}),
        "plain step": face("running", step="prepare", step_no=1, headline="Step 1 · prepare", bar=bar(None),
                           clock={"since": now - 2000, "prefix": "for "}),
        "stuck": face("running", **loading, **half, facts=facts(**count, **resumed),
                      thresholds=[{"at": now - 1000, "mark": "stuck", "text": "no progress for more than 14 s"}]),
        "retrying": face("retrying", headline="retrying, attempt 3 at 14:03:10", **half,
                         error="ConnectionError: warehouse did not answer",
                         facts=facts(**count, attempt="attempt 2 of 5", note="ConnectionError: warehouse did not answer")),
        "pausing": face("pausing", headline="pausing after this item", **half, step="load_rows", facts=facts(**count, **resumed)),
        "paused": face("paused", headline="paused in step 2 · load rows", **half, facts=facts(**count, **resumed)),
        "cancelling": face("cancelling", headline="cancelling", **half, facts=facts(**count, **resumed)),
        "cancelled": face("cancelled", headline="cancelled in step 2 · load rows", **half, ended=True, facts=facts(**count, **resumed)),
        "completed": face("completed", headline="done in 1 min 36 s", bar=bar(1, 0.4, 0.4), percent="100 %", resumed=1, ended=True,
                          attempt=2, facts=facts(count="20,000 of 20,000", **resumed)),
        "completed, plain": face("completed", headline="done in 1 min 36 s", ended=True, facts=facts(elapsed="3 steps")),
        "failed": face("failed", headline="failed in step 2 · load rows", **half, ended=True,
                       error="ValueError: row 12,432: expected 14 columns, found 13",
                       facts=facts(**count, attempt="attempt 2", **resumed)),
        "dead": face("dead", headline="dead: crashed 4 times without progress", **half, ended=True,
                     error="child died of SIGSEGV", facts=facts(**count, attempt="attempt 5", **resumed)),
        "lost": face("lost", headline="lost: Redis no longer has it"),
        "long": face("running", name="rebuild_the_whole_customer_recommendation_index_for_every_region", **half,
                     step="x", headline="Step 12 · write the recommendations of the north-western sales region",
                     facts=facts(count="1,204,431,112 of 20,000,000,000", rate="12,300/s", remaining="about 18 d left",
                                 resumed="resumed 14 times, last at 1,190,004,000", attempt="attempt 15")),
    }  # fmt: skip
