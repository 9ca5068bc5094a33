"""The job of ``nbjobs demo``: for each airport of the world its ten nearest, into an SQLite table.

It is a job as a user would write one, save for its ledger: a file to which each row is noted as it *begins*,
with the moment and the process. The demo reads there what was done twice, and by whom.
"""

from __future__ import annotations

import heapq
import math
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from .jobs import job
from .stepping import step

EARTH_RADIUS = 6371.0088  # km, the mean

TABLE = """
CREATE TABLE IF NOT EXISTS nearest (
    airport TEXT, rank INTEGER, neighbour TEXT, distance_km REAL, PRIMARY KEY (airport, rank)
) WITHOUT ROWID
"""


class Airport(NamedTuple):
    """An airport's code, and the unit vector from the earth's centre to it."""

    code: str
    x: float
    y: float
    z: float


def load_airports() -> list[Airport]:
    """Return the airports that have an IATA code, by code."""
    import airportsdata  # the extra `demo` has it

    table = airportsdata.load("IATA")
    return [_airport(code, table[code]["lat"], table[code]["lon"]) for code in sorted(table)]


def _airport(code: str, latitude: float, longitude: float) -> Airport:
    north, east = math.radians(latitude), math.radians(longitude)
    return Airport(code, math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north))


def nearest(airports: Sequence[Airport], number: int, count: int = 10) -> list[tuple[str, float]]:
    """Return the airports nearest to the one of this number by great circle, with the distance in km.

    >>> poles = [_airport("NOR", 90, 0), _airport("EQU", 0, 0), _airport("SOU", -90, 0)]
    >>> nearest(poles, 0)
    [('EQU', 10007.6), ('SOU', 20015.1)]
    """
    _, x, y, z = airports[number]
    cosines = [x * a + y * b + z * c for _, a, b, c in airports]  # of the angle between the two
    best = heapq.nlargest(count + 1, range(len(airports)), key=cosines.__getitem__)
    return [
        (airports[other].code, round(EARTH_RADIUS * math.acos(max(-1.0, min(1.0, cosines[other]))), 1))
        for other in best
        if other != number
    ][:count]


@job
def import_airports(database: str, ledger: str) -> int:
    """Fill the table in ``database``; return how many airports it has."""
    airports = load_airports()  # outside a step: on every attempt
    numbers = {airport.code: number for number, airport in enumerate(airports)}
    with closing(_connect(database)) as table, Path(ledger).open("a") as journal:
        step("prepare", _create, database)
        for code in step.each("process_records", list(numbers)):
            journal.write(f"{time.monotonic_ns()} {os.getpid()} {code}\n")
            journal.flush()
            _save(table, code, nearest(airports, numbers[code]))
        return step("finalize", imported, database)


def _connect(database: str) -> sqlite3.Connection:
    table = sqlite3.connect(database, isolation_level=None)
    table.execute("PRAGMA journal_mode = WAL")
    table.execute("PRAGMA synchronous = OFF")  # a killed process loses nothing by it, a power cut would
    return table


def _create(database: str) -> None:
    with closing(_connect(database)) as table:
        table.execute(TABLE)


def _save(table: sqlite3.Connection, code: str, neighbours: Sequence[tuple[str, float]]) -> None:
    rows = [(code, rank, other, km) for rank, (other, km) in enumerate(neighbours, start=1)]
    table.execute("BEGIN")
    table.executemany("INSERT OR REPLACE INTO nearest VALUES (?, ?, ?, ?)", rows)
    table.execute("COMMIT")


def imported(database: str) -> int:
    """Return how many airports the table in ``database`` has."""
    with closing(_connect(database)) as table:
        (airports,) = table.execute("SELECT count(DISTINCT airport) FROM nearest").fetchone()
    return int(airports)
