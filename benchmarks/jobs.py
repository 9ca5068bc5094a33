"""Jobs that are measured; workers import them from here."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time

from nbjobs import job, notify, step


def send(path: str, at: int) -> None:
    """Tell whoever listens on a datagram socket when something was, and in which process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(f"{at} {os.getpid()}".encode(), path)


@job
def stamp(path: str) -> None:
    """Say when the body began."""
    send(path, time.monotonic_ns())


@job
def nothing() -> None:
    """Do nothing."""


@job
def hold(path: str) -> None:
    """Hold the interpreter's lock for hours, in C."""
    send(path, time.monotonic_ns())
    re.match(r"(a+)+$", "a" * 60 + "b")


@job
def wait(path: str) -> None:
    """Wait in a step, so long that only a kill ends it; an attempt that follows ends at once."""
    send(path, time.monotonic_ns())
    step("begin", int)
    for first in step.each("wait", [True, False]):
        if first and not step.current.resumed:
            send(path, time.monotonic_ns())
        time.sleep(600 if not first and not step.current.resumed else 0)


@job
def paced(count: int, pause: float) -> None:
    """Begin and end steps, each of these events alone for a while."""
    for number in range(count):
        time.sleep(pause)
        step(f"step {number + 1}", time.sleep, pause)


@job
async def apaced(count: int, pause: float, delay: float) -> None:
    """As ``paced``, beside others in one process; each begins at a time of its own."""
    await asyncio.sleep(delay)
    for number in range(count):
        await asyncio.sleep(pause)
        await step(f"step {number + 1}", asyncio.sleep, pause)


@job
def hot(items: int) -> None:
    """Do next to nothing with many items, and tell it of each."""
    for number in step.each("count", range(items)):
        notify("counted", number=number)


@job
def flood(path: str, kind: str) -> None:
    """Write lines of a kind until the process is ended, past Python's streams, which would be slower."""
    send(path, time.monotonic_ns())
    long = b"x" * 16_000 + b"\n"
    piece = {"empty": b"\n", "short": b"ab\n", "binary": bytes(range(256)), "endless": b"x", "long": long}[kind]
    data = piece * (1_000_000 // len(piece))
    while True:
        os.write(1, data)
