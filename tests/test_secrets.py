"""A secret that goes through everything is found in nothing that people or other programs read."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from nbjobs import Run, connection, runs
from nbjobs.errors import NbjobsError
from nbjobs.jobs import job
from nbjobs.keys import Keys
from nbjobs.settings import configure, current, set_current
from nbjobs.widgets.display import bundle, card

from . import secretjobs
from .secretjobs import Vault
from .support import RedisServer, snapshot
from .workers import ROOT, Worker, bare_environment

pytestmark = [pytest.mark.leaky, pytest.mark.fault(58)]

DATA = ("args", "result", "cursor")
"""What of a run's hash is the user's own data, which must come back as it was; values of steps as well."""


@pytest.fixture
def canary() -> str:
    return "c4n4ry" + secrets.token_hex(8)


@pytest.fixture
def guarded(canary: str) -> Iterator[RedisServer]:
    """A Redis whose password is the secret, and whose settings are this process's."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = int(found.getsockname()[1])
    with RedisServer(port=port, requirepass=canary) as server:
        configure(redis_url=f"redis://:{canary}@127.0.0.1:{port}/0", user="ada", queue="test")
        yield server
        set_current(None)
        connection.drop_client()


def test_row_58_a_secret_is_nowhere(guarded: RedisServer, canary: str) -> None:
    """Through arguments, texts of errors, reprs, locals of a traceback, cursors, results and the URL of Redis."""
    url = current().redis_url or ""
    config = {"host": "db", "password": canary, "nested": [{"apiToken": canary}]}
    with Worker(url) as worker:
        found = [(one.enqueue(config, password=canary), state) for one, state in secretjobs.ALL.items()]
        for run, state in found:
            assert run.wait(timeout=30).state == state, worker.log
        outputs = {"the worker's log": worker.log}
        outputs |= {f"what {run.view.job} shows": all_of(run) for run, _ in found}
        outputs |= {f"nbjobs {' '.join(words)}": said(url, *words) for words in commands([run for run, _ in found])}
    client = guarded.client()
    outputs |= {f"Redis: {key}": text for key, text in stored(client, [run for run, _ in found]).items()}
    client.close()
    outputs["this process"] = "\n".join(map(repr, [current(), current().to_wire, connection.client(), runs()]))
    leaks = [what for what, text in outputs.items() if canary in text]
    assert not leaks, "\n\n".join(f"{what}: …{around(outputs[what], canary)}…" for what in leaks)
    shown = "\n".join(outputs.values())
    for expected in ("login.tried", "LoginError", "no answer of postgres://ada:[FILTERED]@db/shop", "page"):
        assert expected in shown, f"{expected} is not shown, so this has shown nothing"


def test_row_58_what_is_refused_is_not_repeated(guarded: RedisServer, canary: str) -> None:
    """An argument that is no data, a Redis that does not answer, a wrong password: the message has no secret."""
    texts = []
    for attempt in (
        lambda: secretjobs.fails.enqueue({"vault": Vault(canary)}, password=canary),
        lambda: secretjobs.fails.enqueue({Vault(canary): 1}, password=canary),  # type: ignore[dict-item]
        lambda: secretjobs.fails.enqueue({"x": canary * 10_000}, password=canary),
        lambda: (
            secretjobs.fails.options(id="one").enqueue({}, password=canary)
            and secretjobs.fails.options(id="one").enqueue({"other": canary}, password=canary)
        ),
        lambda: configure(redis_url=f"https://ada:{canary}@host"),
        lambda: checked(f"redis://ada:{canary}x@127.0.0.1:{guarded.port}"),
        lambda: checked(f"redis://ada:{canary}@127.0.0.1:1"),
    ):
        with pytest.raises((NbjobsError, TypeError)) as caught:
            attempt()
        texts.append("".join(traceback.format_exception_only(caught.type, caught.value)))
    assert not [text for text in texts if canary in text]
    assert len(texts) == 7


def test_row_58_code_that_travels_is_all_that_holds_it(guarded: RedisServer, canary: str) -> None:
    """A secret in a global of a notebook's job is in its code, which only its workers load, and in no event."""

    @job
    def closes_over() -> None:
        raise ValueError(f"password={canary}")

    with Worker(current().redis_url or "", accept_code=True) as worker:
        run = closes_over.enqueue()
        run.wait(timeout=20)
        assert run.state == "failed"
        assert canary not in all_of(run)
        assert canary not in worker.log


def checked(url: str) -> None:
    with contextlib.closing(connection.sync_client(url, retry=False)) as client:
        connection.check(client)


def all_of(run: Run) -> str:
    """All that a client can be shown of a run."""
    parts = [repr(run), str(run), repr(run.view), repr(list(run.events())), repr(list(run.logs()))]
    with contextlib.suppress(NbjobsError):
        run.result(timeout=5)
    try:
        run.result(timeout=5)
    except NbjobsError as error:
        parts += ["".join(traceback.format_exception(error)), getattr(error, "traceback", "")]
    shown = card(run)
    state: dict[str, Any] = {name: value for name, value in shown.get_state().items() if name not in ("_esm", "_css")}
    parts += [json.dumps(bundle(run.view)), json.dumps(state, default=str)]
    shown.close()
    return "\n".join(parts)


def commands(found: list[Run]) -> Iterator[list[str]]:
    yield from (["runs"], ["runs", "--json"], ["watch", found[0].id], ["watch", "--json", found[0].id])
    run = found[0]
    yield from (["events", run.id], ["events", "--json", run.id], ["logs", run.id], ["logs", "--json", run.id])
    yield ["retry", "no-such-run"]


def said(url: str, *words: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "nbjobs", *words],
        cwd=ROOT,
        env=bare_environment(redis_url=url, user="ada"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def stored(client: redis.Redis, found: list[Run]) -> dict[str, str]:
    """All that Redis holds, but for the user's own data."""
    kept = snapshot(client)
    for run in found:
        fields = kept[Keys("ada").run(run.id)]
        for name in [name for name in fields if name in DATA or name.startswith("v:")]:
            del fields[name]
    return {key: repr(value) for key, value in kept.items()}


def around(text: str, canary: str) -> str:
    at = text.index(canary)
    return text[max(0, at - 300) : at + 100]
