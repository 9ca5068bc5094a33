"""The end of asyncio's tasks."""

from __future__ import annotations

import asyncio

from nbjobs.tasks import end_all


async def test_a_task_that_misses_a_cancel_is_cancelled_again() -> None:
    """As a loop around `asyncio.wait_for` may do, before Python 3.12."""
    missed = list[int]()

    async def service() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                missed.append(1)
                if len(missed) > 1:
                    raise

    task = asyncio.create_task(service())
    await asyncio.sleep(0)
    await end_all([task])
    assert task.cancelled() and missed == [1, 1]


async def test_errors_and_ends_are_left_alone() -> None:
    """What has ended already, or ends with an error, keeps nobody waiting."""

    async def fails() -> None:
        raise OSError("away")

    failing, nothing = asyncio.create_task(fails()), asyncio.get_running_loop().create_future()
    nothing.set_result(None)
    await asyncio.wait([failing])
    await end_all([failing, nothing])
    assert isinstance(failing.exception(), OSError)
    await end_all([])
