"""What a body used."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbjobs import vitals
from nbjobs.vitals import MIB, Meter, memory_limit, status_bytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own figures")


def test_cpu_seconds_are_those_since_the_meter_was_made() -> None:
    """Only what was used in between counts."""
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    meter = Meter()
    assert meter.read().cpu < 0.04
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert 0.05 <= meter.read().cpu < 1


def test_programs_count_when_they_have_ended() -> None:
    """CPU seconds of programs that were started and waited for are those of the run."""
    meter = Meter()
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert meter.read().cpu >= 0.2


@linux
def test_peak_memory_forgets_what_was_before() -> None:
    """The peak of an earlier body is not that of the next one."""
    meter = Meter()
    big = bytearray(64 * MIB)
    big[::4096] = b"x" * len(big[::4096])
    high = meter.read().peak
    del big
    assert high >= 64 * MIB
    assert Meter().read().peak < high - 32 * MIB


def test_without_proc_the_peak_is_the_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no ``/proc`` (macOS) the figure is that of the whole process."""
    monkeypatch.setattr(vitals, "_STATUS", Path("/nonexistent"))
    monkeypatch.setattr(vitals, "_CLEAR_REFS", Path("/nonexistent/clear_refs"))
    assert status_bytes(b"VmRSS:") == 0
    assert Meter().read().peak > MIB


@linux
def test_the_memory_limit_heeds_the_machine() -> None:
    """A child may keep its share of half of the memory, and never less than 256 MiB."""
    assert memory_limit(1) > memory_limit(3) or memory_limit(1) == 256 * MIB
    assert memory_limit(10_000) == 256 * MIB
    assert status_bytes(b"VmRSS:") > MIB and status_bytes(b"Nothing:") == 0
