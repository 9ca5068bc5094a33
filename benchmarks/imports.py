"""What ``import nbjobs`` takes and loads in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from .figures import Figure, Goal, median
from .support import ROOT

HEAVY = ("arq", "anywidget", "ipywidgets", "tornado", "IPython")
CODES = {
    "bare": "pass",
    "nbjobs": "import nbjobs",
    "parts": "import redis, traitlets.config",
    "tqdm": "import tqdm.auto",
}


def measure(*, quick: bool = False) -> list[Figure]:
    """Return the figures."""
    rounds = 2 if quick else 25
    times: dict[str, list[float]] = {name: [] for name in CODES}
    for _ in range(rounds):
        for name, code in CODES.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
            times[name].append((time.perf_counter() - began) * 1e3)
    bare = median(times["bare"])
    took = {name: median(found) - bare for name, found in times.items()}
    how = f"median of {rounds}, in turns; a bare start ({bare:.0f} ms) taken off"
    loaded = _heavy()
    if loaded:
        print(f"import nbjobs loads {', '.join(loaded)}", file=sys.stderr)
    return [
        Figure(
            "import", "import nbjobs", "ms", took["nbjobs"], how, None, "import redis, traitlets.config", took["parts"]
        ),
        Figure("import_tqdm", "import nbjobs", "ms", took["nbjobs"], how, None, "import tqdm.auto", took["tqdm"]),
        Figure("import_heavy", f"of {', '.join(HEAVY)} loaded by it", "", len(loaded), "counted", Goal(0)),
    ]


def _heavy() -> list[str]:
    code = f"import json, sys, nbjobs; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    found: list[str] = json.loads(done.stdout)
    return found
