"""Run the benchmarks, print a table and write ``benchmarks/results.json``.

    make bench
    make bench ARGS="loop start --quick"

Each subject is a module beside this file and runs in a process of its own. Both sides of a comparison are measured in
the same run, in rounds that alternate, since machines are seldom quiet; each figure says whether it is the best or
the median of its rounds. A goal that is missed is shown, and with ``--check`` it is the exit code too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"
SUBJECTS = ("loop", "commit", "reporter", "start", "rate", "flood", "sweep", "processes", "embedded", "imports", "dom")
TIMEOUT = 900.0  # seconds for a subject

Result = dict[str, Any]


def main() -> int:
    """Measure what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure nbjobs beside its peers.")
    parser.add_argument("names", nargs="*", metavar="subject", help=f"of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="few rounds, and nothing is written")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in SUBJECTS]
    if unknown:
        parser.error(f"found {', '.join(unknown)}, expected some of {', '.join(SUBJECTS)}")
    results, broken = [], []
    for name in options.names or SUBJECTS:
        print(f"bench: {name} …", file=sys.stderr, flush=True)
        found = measured(name, quick=options.quick)
        results.extend(found or [])
        broken += [] if found else [name]
    print(table(results))
    if not options.quick:
        save(results)
    if broken:
        print(f"bench: broken: {', '.join(broken)}", file=sys.stderr)
    missed = [result["name"] for result in results if result["met"] is False]
    return 1 if broken or (options.check and missed) else 0


def measured(name: str, *, quick: bool) -> list[Result] | None:
    """Return a subject's figures; None where it broke, which its process has explained."""
    machine = {
        "cpus": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 1),  # before: how busy others kept it
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "figures.json")
        command = [sys.executable, "-m", "benchmarks.subject", name, str(file), *(["--quick"] if quick else [])]
        try:
            code = subprocess.run(
                command, cwd=FOLDER.parent, env=environment(), timeout=TIMEOUT, stdout=subprocess.DEVNULL
            ).returncode
        except subprocess.TimeoutExpired:
            return None
        if code or not file.exists():
            return None
        figures = json.loads(file.read_text())
    extra = {"subject": name, "python": platform.python_version(), "machine": machine}
    return [{**figure, **extra} for figure in figures]


def environment() -> dict[str, str]:
    """Return this process's environment without settings that would decide what is measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("NBJOBS_", "JUPYTERHUB_"))}


def save(results: list[Result]) -> None:
    """Put the results into the file; those of subjects that were not measured stay."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    new = {result["subject"] for result in results}
    both = [result for result in kept if result["subject"] not in new] + results
    both.sort(key=lambda result: SUBJECTS.index(result["subject"]))
    RESULTS.write_text(json.dumps(both, indent=1, ensure_ascii=False) + "\n")


def table(results: list[Result]) -> str:
    """Return the results as text."""
    rows = [("figure", "", "goal", "", "beside", "", "ratio")]
    for one in results:
        peer = "" if one["peer_figure"] is None else f"{number(one['peer_figure'])} {one['unit']}"
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
        mark = {True: "met", False: "MISSED", None: ""}[one["met"]]
        rows.append(
            (one["what"], f"{number(one['figure'])} {one['unit']}", one["goal"], mark, one["peer"], peer, ratio)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = (1, 5, 6)
    lines = []
    for row in rows:
        cells = [cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def number(value: float) -> str:
    """Return a number with three digits that count, or all before the point.

    >>> [number(value) for value in (0.0312, 2.345, 41.26, 1234.5, 0)]
    ['0.0312', '2.35', '41.3', '1,234', '0']
    """
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
