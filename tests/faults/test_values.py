"""Values that do not fit, as payloads and as cursors; and bodies that make copies of themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nbjobs import connection, history

from ..support import wait_until
from . import valuejobs
from .checker import check, check_repeats
from .stage import PATIENCE, Stage

SAFE = 2**53


@pytest.mark.fault(36)
def test_row_36_no_value_breaks_an_event_and_bad_ones_are_refused_as_cursors(stage: Stage) -> None:
    """Each entry is JSON that a browser takes; a cursor is refused with path and type, before anything is done."""
    stage.worker()
    run = stage.enqueue(valuejobs.tells)
    stage.await_end(run)
    said = run.result()
    assert set(said) == set(valuejobs.BAD)
    for name, words in {
        "nan": "NaN",
        "nan inside": "rows",
        "decimal nan": "NaN",
        "hostile": "Hostile",
        "subclass": "Celsius",
        "not a time": "NotATime",
        "function": "builtin_function_or_method",
        "cycle": "contains itself",
        "depth 2,000": "nested",
        "9 KiB": "8,192",
    }.items():
        assert words in said[name], (name, said[name])
    told = {event.name for event in history.events(connection.client(), stage.keys, run.id)}
    assert {f"own.{name}" for name in (*valuejobs.BAD, *valuejobs.GOOD)} <= told
    raw = stage.server.client(decode_responses=False)
    for _, entry in raw.xrange(stage.keys.events(run.id)):
        check_browser_takes(entry[b"d"].decode("utf-8"))
    raw.close()


def check_browser_takes(text: str) -> None:
    """As `JSON.parse` does, and without a number that it would round."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    def check_number(digits: str) -> int:
        assert abs(int(digits)) <= SAFE or len(digits) >= 19, digits  # time stamps in ns are the framework's own
        return int(digits)

    found: Any = json.loads(text, parse_constant=refuse, parse_int=check_number)
    assert isinstance(found, dict)
    json.dumps(found, ensure_ascii=False).encode("utf-8")


@pytest.mark.fault(37)
def test_row_37_a_cursor_comes_back_as_it_was(stage: Stage) -> None:
    """Of each type, after the process was killed: equal in value and in type."""
    stage.worker(children=4)
    runs = {name: stage.enqueue(valuejobs.carries, stage.path, name) for name in valuejobs.GOOD}
    for name, run in runs.items():
        stage.await_end(run)
        assert run.result() == "equal", name
        assert stage.fields(run)["attempt"] == "2"


@pytest.mark.fault(59)
def test_row_59_what_a_body_forks_writes_nothing_of_its_run(stage: Stage) -> None:
    """fork, multiprocessing and an executor: connections of their own, no commit, no event; the body is unaffected."""
    stage.worker()
    before = len(stage.client.client_list())
    run = stage.enqueue(valuejobs.forks, stage.path)
    stage.await_end(run)
    assert run.result() == [0, 2, 4, 6, 0, 2, 4, 6]
    check(stage, run, 30)
    assert check_repeats(stage, run) == {1: 0}
    assert stage.payloads(run, "own.forked") == []
    owners = {call.owner for call in stage.recorder.of(run.id) if call.script in ("commit", "finish", "renew")}
    assert len(owners) == 1
    (ended,) = [one for one in stage.payloads(run, "job.step") if one["step"] == "fork"]
    assert ended["cursor"] is None
    wait_until(lambda: len(stage.client.client_list()) <= before + 3, PATIENCE, "no connection of a fork is left")
