"""`step.track`: an inner loop that is shown and has no cursor."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from nbjobs import connection, history
from nbjobs.face import face
from nbjobs.jobs import job
from nbjobs.keys import Keys
from nbjobs.settings import NbJobs, configure
from nbjobs.stepping import step
from nbjobs.view import dump, parse

from .entries import Story
from .worlds import Died, aattempt, attempt


def inner() -> tuple[str, int, int | None] | None:
    """What the running step knows of a loop inside it."""
    found = step.current.inner
    return found.standing() if found is not None else None


def test_a_track_counts_its_items_inside_the_step() -> None:
    """And is gone when it is over. The cursor is the outer loop's alone."""
    seen: list[Any] = []

    def body() -> None:
        for _ in step.each("a", range(2)):
            for batch in step.track("xy", name="batch"):
                seen.append((batch, inner()))
            seen.append(inner())

    world = attempt(body)
    assert seen == [("x", ("batch", 0, 2)), ("y", ("batch", 1, 2)), None] * 2
    assert world.told("job.step")[0]["done"] == 2 and world.checkpoints == 2


def test_the_innermost_of_nested_tracks_is_the_steps() -> None:
    """When it is over, the one around it is again."""
    seen: list[Any] = []

    def body() -> None:
        for _ in step.track(range(3), name="epoch"):
            for _ in step.track(range(9), name="batch"):
                seen.append(inner())
                break
            seen.append(inner())
            break

    attempt(lambda: step("a", body))
    assert seen == [("batch", 0, 9), ("epoch", 0, 3)]


def test_leaving_a_track_by_an_error_ends_it() -> None:
    """Whoever catches the error goes on without it."""
    seen: list[Any] = []

    def body() -> None:
        with contextlib.suppress(ValueError):
            for _ in step.track(range(3)):
                raise ValueError
        seen.append(inner())

    attempt(lambda: step("a", body))
    assert seen == [None]


def test_a_track_repeats_with_the_item_around_it() -> None:
    """What is resumed is the outer loop."""
    seen: list[Any] = []

    def body(dies: bool) -> Any:
        def loop() -> None:
            for outer in step.each("a", range(2)):
                for batch in step.track(range(2)):
                    if dies and (outer, batch) == (1, 1):
                        step.current.checkpoint()
                        raise Died
                    seen.append((outer, batch))

        return loop

    attempt(body(False), attempt(body(True)))
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 0), (1, 1)]


async def test_a_track_of_an_async_for() -> None:
    """Over an asynchronous iterable or a plain one."""
    seen: list[Any] = []

    async def numbers() -> AsyncIterator[int]:
        for number in range(2):
            await asyncio.sleep(0)
            yield number

    async def body() -> None:
        async for _ in step.each("a", [1]):
            async for _ in step.track(numbers(), total=2):
                seen.append(inner())
            async for _ in step.track([1]):
                seen.append(inner())
            seen.append(inner())

    assert (await aattempt(body)).error is None
    assert seen == [("inner", 0, 2), ("inner", 1, 2), ("inner", 0, 1), None]


def test_outside_a_step_a_track_is_its_items() -> None:
    """There is nothing that it could be shown in."""
    assert list(step.track({3})) == [3]
    assert attempt(lambda: list(step.track([1, 2]))).value == [1, 2]


def test_outside_a_run_a_track_is_known_to_its_step() -> None:
    """As all else of a step."""
    seen = [inner() for _ in step.each("a", [1]) for _ in step.track([1, 2])]
    assert seen == [("inner", 0, 2), ("inner", 1, 2)]


def test_a_track_needs_something_to_iterate_over() -> None:
    """The message says what it was given."""
    with pytest.raises(TypeError, match="given a int"):
        list(step.track(5))  # type: ignore[arg-type]


# -- how it is shown -----------------------------------------------------------------------------------------


def in_a_track(done: Any = 40, total: Any = 100, name: Any = "batch") -> Story:
    story = Story().queued().started().loading()
    story.ms += 500
    inner = {"name": name, "done": done, "total": total}
    story._add("job.progress", {"step": "load_rows", "done": 3, "total": 10, "inner": inner})
    return story


def facts(story: Story) -> list[tuple[str, str]]:
    return [(fact.kind, fact.text) for fact in face(story.view).facts]


def test_a_track_is_a_fact_behind_the_count() -> None:
    """In the words of whoever wrote the loop."""
    assert facts(in_a_track())[:2] == [("count", "3 of 10"), ("inner", "batch 40 of 100")]
    assert facts(in_a_track(total=None))[1] == ("inner", "batch 40")
    assert parse(dump(in_a_track().view)) == in_a_track().view


@pytest.mark.parametrize("end", ["progress", "step", "step_started", "killed"])
def test_a_track_that_is_over_is_no_fact(end: str) -> None:
    """The next progress does not tell of it; nor does what comes behind the step, or when the run is not held."""
    story = in_a_track()
    if end == "progress":
        story.progress(4, total=10)
    elif end == "killed":
        story.killed()
    else:
        story.state(f"job.{end}", "running", step="load_rows", done=10, total=10, duration=5)
    assert not [text for kind, text in facts(story) if kind == "inner"]


@pytest.mark.parametrize(("done", "total", "name"), [("x", 5, "b"), (None, None, None), (-1, "y", 7)])
def test_a_track_told_wrongly_is_not_shown(done: Any, total: Any, name: Any) -> None:
    """Nothing is trusted that comes from a stream."""
    assert "inner" not in dict(facts(in_a_track(done, total, name)))


def test_a_track_says_nothing_of_the_rate() -> None:
    """The samples are of the outer loop: a hundred batches do not push its own out."""
    story = Story().queued().started().loading(total=10).progress(1, 2, 3, every=1000, total=10)
    before = story.view.samples
    for _ in range(50):
        story.ms += 100
        story._add("job.progress", {"step": "load_rows", "done": 3, "total": 10, "inner": {"name": "b", "done": 1}})
    assert story.view.samples == before and story.view.committed == story.ms


@job
def epochs() -> None:
    for _ in step.each("train", range(1)):
        for _ in step.track(range(10**9), name="batch"):
            if enough.is_set():
                break


enough = threading.Event()


@pytest.fixture
def inline(nbjobs_settings: NbJobs) -> Iterator[None]:
    configure(redis_url=nbjobs_settings.redis_url, user="ada", queue="test", adapter="inline")
    yield


@pytest.mark.usefixtures("inline")
def test_a_track_inside_a_long_item_reaches_the_card() -> None:
    """Some ten times a second, though nothing else moves; and it takes no crash back."""
    enough.clear()
    threading.Timer(0.7, enough.set).start()
    began = time.monotonic()
    run = epochs.enqueue()
    took = time.monotonic() - began
    found = [
        event.payload["inner"]
        for event in history.events(connection.client(), Keys("ada"), run.id)
        if event.name == "job.progress" and "inner" in event.payload
    ]
    assert 2 <= len(found) <= 10 * took + 2
    assert {one["name"] for one in found} == {"batch"} and found[0]["done"] < found[-1]["done"]
