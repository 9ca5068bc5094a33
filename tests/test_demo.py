"""The demo kills what it says it kills, counts what was done twice, and tells the truth about both."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nbjobs.demo import GRACE, Begun, Demo, Kill, Ledger, main, stages
from nbjobs.demo_job import EARTH_RADIUS, import_airports, imported, load_airports, nearest
from nbjobs.errors import NbjobsError
from nbjobs.terminal import Screen
from nbjobs.view import RunView

from .support import wait_until

SUMMARY = re.compile(
    r"demo: rows (\d+) of (\d+) · repeated (\d+) · "
    r"child killed, resumed after \d+\.\d s · worker killed, resumed after \d+\.\d s"
)


def ledger_with(tmp_path: Path, *lines: tuple[int, int, str]) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.txt")
    ledger.path.write_text("".join(f"{at} {pid} {row}\n" for at, pid, row in lines))
    ledger.read()
    return ledger


def struck(what: str, body: int, at: int) -> Kill:
    kill = Kill(what, 0)
    kill.body, kill.at = body, at
    return kill


@pytest.mark.slow
@pytest.mark.timeout(330)
def test_demo_survives_both_kills() -> None:
    """A demo shows all five stages, loses no row, repeats few, names what comes next, and leaves nothing behind."""
    environment = {**os.environ, "COLUMNS": "200", "NBJOBS_REDIS_URL": "redis://nowhere.invalid"}
    command = [sys.executable, "-m", "nbjobs", "demo", "7"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, bound, summary, following = done.stdout.splitlines()
    found = SUMMARY.fullmatch(summary)
    assert found is not None, summary
    rows, total, repeated = map(int, found.groups())
    assert rows == total == len(load_airports())
    assert repeated <= int(re.search(r"at most (\d+) rows", bound)[1])  # type: ignore[index]
    assert following.startswith("Next")
    assert "seed 7" in done.stdout


def test_seed_decides_where_the_kills_come(tmp_path: Path) -> None:
    """The same seed kills at the same rows: first the child, later the worker."""
    one, same, other = (Demo(tmp_path, seed, Screen()) for seed in (5, 5, 6))
    assert [kill.row for kill in one.kills] == [kill.row for kill in same.kills]
    assert [kill.row for kill in one.kills] != [kill.row for kill in other.kills]
    assert [kill.what for kill in one.kills] == ["child", "worker"]
    assert one.kills[0].row < one.kills[1].row < one.airports


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """The ledger is read while it is written."""
    ledger = ledger_with(tmp_path, (1, 7, "CDG"))
    with ledger.path.open("a") as file:
        file.write("2 7 OR")
        file.flush()
        ledger.read()
        assert ledger.lines == [Begun(1, 7, "CDG")]
        file.write("Y\n")
    ledger.read()
    assert ledger.rows == {"CDG", "ORY"}


def test_repeats_are_beginnings_beyond_the_rows(tmp_path: Path) -> None:
    """A row that was begun three times was repeated twice."""
    ledger = ledger_with(tmp_path, (1, 7, "CDG"), (2, 8, "CDG"), (3, 8, "ORY"), (4, 9, "CDG"))
    assert ledger.repeated == 2


def test_bound_is_the_row_in_flight_and_those_of_100_ms(tmp_path: Path) -> None:
    """Rows that the killed process began in the last 100 ms may be repeated, and one more; no others."""
    lines = [(GRACE, 7, "A"), (GRACE + 1, 7, "B"), (2 * GRACE, 7, "C"), (2 * GRACE, 8, "D"), (2 * GRACE + 1, 7, "E")]
    assert struck("child", 7, 2 * GRACE).allowed(ledger_with(tmp_path, *lines)) == 3


def test_resumed_is_the_first_row_of_another_process(tmp_path: Path) -> None:
    """The time without progress ends when another process begins a row."""
    ledger = ledger_with(tmp_path, (10, 7, "A"), (21, 7, "B"), (600_000_020, 8, "B"))
    assert struck("worker", 7, 20).told(ledger) == "worker killed, resumed after 0.6 s"
    assert struck("worker", 8, 600_000_020).told(ledger) == "worker killed, not resumed"
    assert Kill("worker", 5).told(ledger) == "worker not killed"


def test_body_that_outlives_its_kill_is_found(tmp_path: Path) -> None:
    """A row begun by the process that should be dead, after its successor's first, is not as promised."""
    lines = [(10, 7, "A"), (30, 8, "A"), (31, 8, "B")]
    assert not struck("worker", 7, 20).outlived(ledger_with(tmp_path, *lines))
    assert struck("worker", 7, 20).outlived(ledger_with(tmp_path, *lines, (32, 7, "C")))


def test_what_is_not_as_promised_is_said(tmp_path: Path) -> None:
    """Missing rows, kills that did not happen and stages that were not shown each make a line."""
    said = "\n".join(Demo(tmp_path, 1, Screen()).wrong())
    assert "the table has 0 airports" in said
    assert "child not killed" in said and "worker not killed" in said
    assert "the screen showed" in said


def test_strike_ends_the_process_that_the_ledger_names(tmp_path: Path) -> None:
    """The child is killed by SIGKILL."""
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    kill = Kill("child", 0)
    kill.strike(RunView(run="r"), ledger_with(tmp_path, (1, victim.pid, "A")))
    wait_until(lambda: victim.poll() is not None, 10, "the process to end")
    assert victim.returncode == -signal.SIGKILL


def test_stages_follow_the_view() -> None:
    """What a frame shows of the five stages: queued, running, a step, resumed, done."""
    assert stages(RunView(run="r", state="queued")) == ["queued"]
    assert stages(RunView(run="r", state="running")) == ["running"]
    assert stages(RunView(run="r", state="running", step="s", in_step=True)) == ["step"]
    assert "resumed" in stages(RunView(run="r", state="running", resumptions=1))
    assert stages(RunView(run="r", state="completed", resumptions=1)) == ["done"]


def test_seed_must_be_a_number() -> None:
    """A seed that is none is refused with what was expected."""
    with pytest.raises(NbjobsError, match="'x' is no seed, expected a number"):
        main(["x"])


def test_nearest_are_by_great_circle() -> None:
    """The neighbours and distances are those of the haversine formula."""
    from airportsdata import load

    airports, table = load_airports(), load("IATA")
    number = [airport.code for airport in airports].index("CDG")

    def haversine(one: str, two: str) -> float:
        (a, b), (c, d) = ((math.radians(table[code]["lat"]), math.radians(table[code]["lon"])) for code in (one, two))
        half = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
        return 2 * EARTH_RADIUS * math.asin(math.sqrt(half))

    others = sorted((haversine("CDG", code), code) for code in table if code != "CDG")[:10]
    assert [code for code, _ in nearest(airports, number)] == [code for _, code in others]
    assert [km for _, km in nearest(airports, number)] == pytest.approx([km for km, _ in others], abs=0.1)


def test_job_is_a_plain_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called, it fills the table here and now, and notes each row once."""
    few = load_airports()[:30]
    monkeypatch.setattr("nbjobs.demo_job.load_airports", lambda: few)
    assert import_airports(str(tmp_path / "a.db"), str(tmp_path / "ledger.txt")) == 30
    ledger = Ledger(tmp_path / "ledger.txt")
    ledger.read()
    assert imported(str(tmp_path / "a.db")) == len(ledger.rows) == 30
    assert ledger.repeated == 0
