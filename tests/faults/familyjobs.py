"""Jobs that enqueue runs of their own and need what those return."""

from __future__ import annotations

from pathlib import Path

from nbjobs.jobs import job
from nbjobs.retries import Retry
from nbjobs.stepping import step

from . import failpoints
from .jobs import write

failpoints.install()


@job
def child(path: str, number: int) -> int:
    """Return its number; fail while the file ``fail-<number>`` is there, and take one letter of it away."""
    write(path, "child", number)
    failing = Path(f"{path}.fail-{number}")
    if failing.exists() and (left := failing.read_text()):
        failing.write_text(left[1:])
        raise RuntimeError(f"child {number} fails")
    return number


def of_child(path: str, number: int) -> int:
    """Enqueue a child and return what it returns."""
    run = child.enqueue(path, number)
    write(path, "parent", number, note=run.id)
    found: int = run.wait(60).result()
    return found


def both(path: str) -> int:
    """Add what two children return, one enqueued in a step and one outside of it."""
    return 10 * step("first", of_child, path, 1) + of_child(path, 2)


@job(retry_on=[Retry(Exception, attempts=4, wait=0.05)])
def persistent(path: str) -> int:
    """Try four times."""
    return both(path)


@job(resume_errors_after_advancing=False)
def single(path: str) -> int:
    """Try once."""
    return both(path)


def fail(path: str, number: int, times: int) -> None:
    """Let a child fail so many times."""
    Path(f"{path}.fail-{number}").write_text("x" * times)
