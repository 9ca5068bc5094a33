"""A run as the eight scripts must keep it, in plain Python: what machine and races compare Redis with.

It takes a call's arguments as Redis gets them. Time is what Redis said it was: `counted_scripts` makes that the
number of the call, so calls of many processes can be put into the order in which Redis did them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from nbjobs.keys import Keys
from nbjobs.scripts import SCRIPTS, Script

END = ("completed", "failed", "cancelled", "dead")
CLOCK = "test:clock"
_TIME = "local clock = redis.call('TIME')"
_COUNT = f"local clock = {{0, redis.call('INCR', '{CLOCK}') * 1000}}"


@contextmanager
def changed_scripts(*changes: tuple[str, str]) -> Iterator[None]:
    """Replace text in all scripts that have it, as a mutant or another clock does; each text must be found."""
    kept = dict(SCRIPTS)
    try:
        for old, new in changes:
            assert any(old in script.text for script in SCRIPTS.values()), f"no script has the text {old!r}"
            for name, script in SCRIPTS.items():
                SCRIPTS[name] = Script.of(name, script.text.replace(old, new))
        yield
    finally:
        SCRIPTS.update(kept)


@contextmanager
def counted_scripts() -> Iterator[None]:
    """Let Redis time be the number of calls so far, in ms. Whoever adds to the key `CLOCK` lets time pass."""
    with changed_scripts((_TIME, _COUNT)):
        yield


class Model:
    """One run."""

    def __init__(self) -> None:
        self.exists = False
        self.fields: dict[str, Any] = {}
        self.events: list[dict[str, str]] = []
        self.steps: list[tuple[str, str]] = []
        self.maps: dict[str, dict[str, str]] = {}  # of step.map: k → index → text
        self.due: int | None = None
        self.viewed = 0  # events that the stored view covers

    def apply(self, script: str, args: list[str], now: int) -> str:
        """Do a call; return the code that Redis must answer."""
        own = [str(arg) for arg in args[4:]]
        if script != "enqueue" and not self.exists:
            return "GONE"
        code: str = getattr(self, "_" + script)(own, now)
        return code

    # -- the scripts -------------------------------------------------------------------------------

    def _enqueue(self, own: list[str], now: int) -> str:
        when, d, *pairs = own
        given = dict(zip(pairs[::2], pairs[1::2], strict=True))
        if self.exists:
            same = all(given[name] == self.fields[name] for name in ("job", "args"))
            return "AGAIN" if same else "EXISTS"
        at = int(when[1:]) + now if when.startswith("+") else int(when or 0)
        zero = ("fence", "attempt", "c", "n", "control_n", "crashes", "failures", "fruitless", "resumptions", "bytes")
        self.exists = True
        self.fields = {**given, **dict.fromkeys(zero, 0), "at": at if at > now else 0, "lease_until": 0}
        self.fields |= dict.fromkeys(("control", "owner", "last_owner", "step", "cursor", "done", "total", "view"), "")
        if when.startswith("+"):
            self.fields["wait"] = int(when[1:])
        if at > now:
            self._event("job.enqueued_at", d, "scheduled")
            return self._become("scheduled", at)
        self._event("job.enqueued", d, "queued")
        return self._become("queued", now + 60_000)

    def _claim(self, own: list[str], now: int) -> str:
        owner, attempt, lease, d, *told = own
        run = self.fields
        refusals = [
            ("AGAIN", run["owner"] == owner),
            ("OTHER", any(run.get(name) != text for name, text in zip(told[::2], told[1::2], strict=True))),
            ("ENDED", run["state"] in END),
            ("PAUSED", run["state"] == "paused"),
            ("HELD", run["owner"] != ""),
            ("ATTEMPT", int(attempt) != run["attempt"] + 1),
            ("EARLY", run["at"] > now),
        ]
        for code, holds in refusals:
            if holds:
                return code
        run |= {"owner": owner, "fence": max(run["fence"] + 1, now), "at": 0, "attempt": run["attempt"] + 1}
        run |= {"lease_until": now + int(lease), "lease_ms": int(lease)}
        run["resumptions"] += bool(self.steps or run["cursor"])
        self._event("job.started", d, "running")
        return self._become("running", now + int(lease))

    def _commit(self, own: list[str], now: int) -> str:
        owner, lease, *new = own
        if self.fields["owner"] != owner:
            return "FENCED"
        if int(new[0]) == self.fields["c"]:
            return "AGAIN"
        if int(new[0]) != self.fields["c"] + 1:
            return "ORDER"
        self._checkpoint(new)
        return self._lease(lease, now)

    def _renew(self, own: list[str], now: int) -> str:
        if self.fields["owner"] != own[0]:
            return "FENCED"
        return self._lease(own[1], now)

    def _finish(self, own: list[str], now: int) -> str:  # noqa: PLR0911
        owner, outcome, wait, failed, result, error, d, *new = own
        run = self.fields
        if run["owner"] != owner:
            return "AGAIN" if run["last_owner"] == owner else "FENCED"
        if new[0] == "":
            self._add_events(new)
        elif int(new[0]) != run["c"] + 1:
            return "ORDER"
        else:
            self._checkpoint(new)
        control = run["control"]
        run |= {"last_owner": owner, "owner": "", "failures": run["failures"] + int(failed), "control": ""}
        run |= {"result": result, "error": error}
        pauses = [int(ms) for ms in wait.split(",") if ms]
        if outcome == "released" and pauses:
            run["fruitless"] += 1
        pause = pauses[min(run["fruitless"], len(pauses)) - 1] if pauses else 0
        if outcome in ("completed", "failed"):
            return self._closed(f"job.{outcome}", d, outcome)
        if control in ("cancel", "now"):
            return self._closed("job.cancelled", d, "cancelled")
        if control == "pause" or outcome == "paused":
            return self._closed("job.interrupt", d, "paused")
        if outcome == "released" and run["fruitless"] > 10:
            self._event("job.interrupt", d, "paused")
            return self._closed("job.paused", '{"p":{"reason":"no_progress"}}', "paused")
        name = "job.retry_scheduled" if outcome == "retrying" else "job.interrupt"
        if pause > 0:
            run |= {"at": now + pause, "wait": pause}
            return self._closed(name, d, "retrying", run["at"])
        return self._closed(name, d, "queued", now + 5000)

    def _lapse(self, own: list[str], now: int) -> str:  # noqa: PLR0911
        owner, limit, waits, d = own
        run = self.fields
        if owner and run["owner"] != owner:
            return "AGAIN" if run["last_owner"] == owner else "FENCED"
        if not owner and run["owner"] == "":
            return self._looked_at(now)
        if not owner and run["lease_until"] > now:
            self.due = run["lease_until"]
            return "HELD"
        control = run["control"]
        run |= {"last_owner": run["owner"], "owner": "", "control": ""}
        if control in ("cancel", "now"):
            return self._interrupted(d, "cancelled", "job.cancelled")
        if control == "pause":
            return self._interrupted(d, "paused")
        run["crashes"] += 1
        if run["crashes"] > int(limit):
            return self._interrupted(d, "dead", "job.dead")
        pauses = [int(ms) for ms in waits.split(",")]
        pause = pauses[min(run["crashes"], len(pauses)) - 1]
        if not pause:
            return self._interrupted(d, "queued", due=now + 5000)
        run |= {"at": now + pause, "wait": pause}
        return self._interrupted(d, "retrying", "job.retry_scheduled", now + pause)

    def _control(self, own: list[str], now: int) -> str:  # noqa: PLR0911, PLR0912
        op, n_seen, d = own
        run = self.fields
        held, lease = run["owner"] != "", run["lease_until"]
        if run["control_n"] > int(n_seen):
            return "AGAIN"
        if run["state"] in END:
            return "ENDED"
        if op in ("cancel", "now"):
            if not held:
                return self._controlled("job.cancelled", d, "cancelled")
            if run["control"] in (op, "now"):
                return "STATE"
            run["control"] = op
            return self._controlled("job.cancelling", d, "cancelling", lease)
        if op == "pause":
            if run["control"] or run["state"] == "paused":
                return "STATE"
            if held:
                run["control"] = "pause"
                return self._controlled("job.pausing", d, "pausing", lease)
            if run["state"] != "scheduled":
                run["at"] = 0
            return self._controlled("job.paused", d, "paused")
        if op == "unpause" and run["control"] == "pause":
            run["control"] = ""
            return self._controlled("job.unpaused", d, "running", lease)
        if run["state"] != "paused":
            return "STATE"
        run["fruitless"] = 0
        if op == "restart":
            self._drop(1)
        if run["at"] > now:
            return self._controlled("job.unpaused", d, "scheduled", run["at"])
        run["at"] = 0
        return self._controlled("job.unpaused", d, "queued", now + 60_000)

    def _reopen(self, own: list[str], now: int) -> str:
        n_seen, first, d = own
        run = self.fields
        if run["control_n"] > int(n_seen):
            return "AGAIN"
        if run["state"] not in END or run["state"] == "completed":
            return "STATE"
        if first:
            self._drop(int(first))
        run |= {"crashes": 0, "failures": 0, "fruitless": 0, "at": 0, "control": "", "result": "", "error": ""}
        return self._controlled("job.reopened", d, "queued", now + 60_000)

    # -- what they share ---------------------------------------------------------------------------

    def _checkpoint(self, new: list[str]) -> None:
        c, n_seen, view, moved, step, cursor, done, total, count, *_ = new
        run = self.fields
        fits = int(n_seen) == run["n"]
        for k in range(int(count)):
            self.steps.append((new[9 + 2 * k], new[10 + 2 * k]))
        run |= {"c": int(c), "step": step, "cursor": cursor, "done": done, "total": total}
        run["bytes"] = sum(len(value.encode()) for _, value in self.steps)
        if moved == "1":
            run["crashes"] = run["fruitless"] = 0
        self._keep_results(new)
        self._add_events(new)
        if fits and view:
            run["view"], self.viewed = view, len(self.events)

    def _add_events(self, new: list[str]) -> None:
        rest = new[9 + 2 * int(new[8]) :]
        for kind, name, d in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            if kind != "m":
                self._event(name, d, self.fields["state"] if kind == "s" else None)

    def _keep_results(self, new: list[str]) -> None:
        rest = new[9 + 2 * int(new[8]) :]
        for kind, name, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            k, _, index = name.partition(":")
            if kind == "m" and index:
                self.maps.setdefault(k, {})[index] = text
            elif kind == "m":
                # a map that is begun anew keeps its place in the list
                self.maps[k] = {"name": text}

    def _event(self, name: str, d: str, state: str | None) -> None:
        run = self.fields
        entry = {"e": name, "a": str(run["attempt"]), "d": d}
        if state:
            run["n"] += 1
            entry |= {"n": str(run["n"]), "s": state, "at": str(run["at"]), "k": str(run["crashes"])}
        self.events.append(entry)

    def _become(self, state: str, due: int | None = None) -> str:
        self.fields["state"], self.due = state, due
        return "OK"

    def _closed(self, name: str, d: str, state: str, due: int | None = None) -> str:
        self._event(name, d, state)
        return self._become(state, due)

    def _interrupted(self, d: str, state: str, name: str = "", due: int | None = None) -> str:
        self._event("job.interrupt", d, state)
        if name:
            self._event(name, "", state)
        return self._become(state, due)

    def _controlled(self, name: str, d: str, state: str, due: int | None = None) -> str:
        self._event(name, d, state)
        self.fields["control_n"] = self.fields["n"]
        return self._become(state, due)

    def _lease(self, ms: str, now: int) -> str:
        self.fields["lease_until"] = self.due = now + int(ms)
        return "OK"

    def _looked_at(self, now: int) -> str:
        run = self.fields
        if run["state"] in (*END, "paused"):
            self.due = None
            return "NONE"
        if run["at"] > now:
            self.due = run["at"]
            return "EARLY"
        self.due = now + 60_000
        return "QUEUE"

    def _drop(self, first: int) -> None:
        del self.steps[first - 1 :]
        self.fields["bytes"] = sum(len(value.encode()) for _, value in self.steps)
        self.maps = {k: kept for k, kept in self.maps.items() if int(k) < first}
        if self.fields["attempt"]:
            self.fields["generation"] = self.fields.get("generation", 0) + 1
        self.fields |= dict.fromkeys(("step", "cursor", "done", "total"), "")


def differences(client: redis.Redis, keys: Keys, run: str, model: Model) -> list[str]:
    """Return in what Redis and the model differ."""
    stored = client.hgetall(keys.run(run))
    if not model.exists:
        return ["Redis has the run"] if stored else []
    expected = {name: str(value) for name, value in model.fields.items()}
    expected |= {"steps": str(len(model.steps))}
    for k, (meta, value) in enumerate(model.steps, 1):
        expected |= {f"s:{k}": meta, f"v:{k}": value}
    told = ("v", "last_id", "view_id", "accept", "lease_until", "maps")
    found = [
        f"{name}: Redis {stored.get(name)!r}, model {expected.get(name)!r}"
        for name in sorted({*stored, *expected} - set(told))
        if stored.get(name) != expected.get(name)
    ]
    return (
        found + _differing_streams(client, keys, run, model, stored) + _differing_maps(client, keys, run, model, stored)
    )


def _differing_maps(client: redis.Redis, keys: Keys, run: str, model: Model, stored: dict[str, str]) -> list[str]:
    found = []
    if stored.get("maps", "") != ",".join(model.maps):
        found.append(f"maps: Redis {stored.get('maps')}, model {list(model.maps)}")
    for key in set(client.scan_iter(f"{keys.run(run)}:map:*")) | {keys.map(run, int(k)) for k in model.maps}:
        kept, expected = client.hgetall(key), dict(model.maps.get(key.rpartition(":")[2], {}))
        if expected:
            texts = [text for index, text in expected.items() if index != "name"]
            expected["bytes"] = str(sum(len(text.encode()) for text in texts))
        if kept != expected:
            found.append(f"{key}: Redis {kept}, model {expected}")
        ttl = client.pttl(key)
        if (ttl > 0) != (model.fields["state"] in END):
            found.append(f"the TTL of {key} is {ttl} in state {model.fields['state']}")
    return found


def _differing_streams(client: redis.Redis, keys: Keys, run: str, model: Model, stored: dict[str, str]) -> list[str]:
    found = []
    entries = client.xrange(keys.events(run))
    events = [{**entry, "id": run} for entry in model.events]
    if [entry for _, entry in entries] != events[len(events) - len(entries) :] or not entries:
        found.append(f"events: Redis {entries[-5:]}, model {events[-5:]}")
    if stored.get("last_id") != entries[-1][0]:
        found.append("last_id is not the last entry's id")
    numbered = [entry for entry in events if "n" in entry]
    of_user = [entry for _, entry in client.xrange(keys.user_events) if entry["id"] == run]
    if of_user != numbered[len(numbered) - len(of_user) :] or not of_user:
        found.append("the user's stream has not all state events of the run, in order")
    if [int(entry["n"]) for entry in numbered] != list(range(1, model.fields["n"] + 1)):
        found.append("n has a hole")
    behind = len(events) - model.viewed
    if model.viewed and behind < len(entries) and stored["view_id"] != entries[len(entries) - 1 - behind][0]:
        found.append("view_id is not the id of the last event that the view covers")
    due = client.zscore(keys.due, run)
    if due != model.due:
        found.append(f"due: Redis {due}, model {model.due}")
    if client.zscore(keys.runs, run) is None:
        found.append("the run is not in runs")
    ttl = client.pttl(keys.run(run))
    if (ttl > 0) != (model.fields["state"] in END):
        found.append(f"the run's TTL is {ttl} in state {model.fields['state']}")
    return found
