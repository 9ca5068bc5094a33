"""Entries of a run's stream as the scripts write them, and the story of a run told with them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from nbjobs.view import RunView, empty, fold

T = 1_790_000_000_000  # ms, when each story begins

Entry = dict[str, str]


def d(payload: dict[str, Any] | None = None, ms: int = T) -> str:
    """The JSON that the caller of a script gives."""
    return json.dumps({"p": {"job": "shop.import_orders", "job_id": "r1", **(payload or {})}, "ts": ms * 1_000_000})


class Story:
    """Writes entries one after the other; `n` and the time go on by themselves."""

    def __init__(self) -> None:
        self.n = 0
        self.ms = T
        self.attempt = 0
        self.entries: list[Entry] = []

    def state(self, name: str, state: str, *, wait: int = 100, at: int = 0, k: int = 0, **payload: Any) -> Story:
        """A numbered event; `wait` is the time since the one before."""
        self.n += 1
        self.ms += wait
        self.attempt += name == "job.started"
        self._add(name, payload, n=str(self.n), s=state, at=str(at), k=str(k))
        return self

    def bare(self, name: str, state: str, *, at: int = 0, k: int = 0) -> Story:
        """A numbered event without a payload, as `lapse` writes it."""
        self.state(name, state, at=at, k=k)
        self.entries[-1]["d"] = ""
        return self

    def progress(self, *done: int, every: int = 500, step: str = "load_rows", total: int | None = 20_000) -> Story:
        """One progress event for each count."""
        for number in done:
            self.ms += every
            self._add("job.progress", {"step": step, "cursor": number, "done": number, "total": total})
        return self

    def own(self, name: str, **payload: Any) -> Story:
        """An event of the body."""
        self._add(name, payload)
        return self

    def _add(self, name: str, payload: dict[str, Any], **fields: str) -> None:
        payload = {"attempt": self.attempt, **payload}
        self.entries.append({"e": name, "id": "r1", "a": str(self.attempt), "d": d(payload, self.ms), **fields})

    # chapters

    def queued(self) -> Story:
        return self.state("job.enqueued", "queued", queue="default", adapter="arq", wait=0)

    def started(self, resumptions: int = 0) -> Story:
        return self.state("job.started", "running", queue="default", worker="w-1", resumptions=resumptions)

    def prepared(self) -> Story:
        self.state("job.step_started", "running", step="prepare", resumed=False, total=None)
        return self.state("job.step", "running", step="prepare", duration=41.6, interrupted=False)

    def loading(self, done: int | None = None, total: int | None = 20_000) -> Story:
        resumed = (
            {"resumed": True, "cursor": done, "done": done} if done is not None else {"resumed": False, "cursor": None}
        )
        return self.state("job.step_started", "running", step="load_rows", total=total, **resumed)

    def killed(self) -> Story:
        return self.state("job.interrupt", "queued", k=1, reason="child_died", signal="SIGKILL")

    def resumed(self, done: int = 8000) -> Story:
        self.started(resumptions=1)
        self.state("job.resume", "running", description="at 'load_rows'", resumptions=1, after="child_died")
        return self.loading(done)

    def loaded(self) -> Story:
        self.progress(20_000)
        return self.state("job.step", "running", step="load_rows", done=20_000, total=20_000, duration=9000)

    def completed(self, **payload: Any) -> Story:
        return self.state("job.completed", "completed", duration=9500, **payload)

    def failed(self) -> Story:
        error = {
            "type": "ValueError",
            "message": "row 7: no date",
            "traceback": "Traceback\n  line\nValueError: row 7: no date",
        }
        self.state("job.step", "running", step="load_rows", done=8000, total=20_000, duration=90, exception=error)
        return self.state("job.failed", "failed", reason="exception", exception=error)

    @property
    def view(self) -> RunView:
        return told(self.entries)


def told(entries: Iterable[Entry], view: RunView | None = None) -> RunView:
    """The view after the entries."""
    view = view or empty("r1")
    for entry in entries:
        view = fold(view, entry)
    return view


def midway() -> Story:
    """Killed at 8,000 of 20,000, resumed, now at 12,431."""
    story = Story().queued().started().prepared().loading().progress(4000, 8000).killed().resumed()
    return story.progress(*range(8431, 12_432, 400), every=1900)
