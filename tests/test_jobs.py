"""``@job``: declaring, calling, options, and what is refused before anything is enqueued."""

from __future__ import annotations

import datetime

import pytest

import nbjobs
from nbjobs.errors import NotData, RunExists, TooLarge
from nbjobs.jobs import Job, job
from nbjobs.keys import Keys
from nbjobs.settings import NbJobs, configure
from nbjobs.stepping import step


@job
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@job(queue="gpu")
def on_gpu() -> None: ...


def test_a_job_that_is_called_is_the_plain_function() -> None:
    """Without Redis, here and now; so a job is tested as a function."""
    assert add(1, 2) == 3
    assert add.__doc__ == "Add two numbers."
    assert add.__name__ == "add"


def test_steps_outside_a_run_are_plain_python() -> None:
    """A job's body with steps is called like any function."""

    @job
    def body(rows: list[int]) -> list[int]:
        found = []
        for row in step.each("process", rows):
            found.append(row * step.current.done)
        return step("last", sorted, found)

    assert body([3, 2, 1]) == [0, 2, 2]


def test_a_job_says_its_full_name() -> None:
    """The name by which a worker imports it."""
    assert add.name == "tests.test_jobs.add"
    assert not add.by_value
    assert repr(add) == "<job tests.test_jobs.add>"


def test_only_functions_are_jobs() -> None:
    """The mistake is told at the decorator."""
    with pytest.raises(TypeError, match="@job was put on a int, expected a function"):
        Job(3)  # type: ignore[arg-type]


def test_a_wrong_call_is_told_where_it_is_enqueued(nbjobs_settings: NbJobs) -> None:
    """Not by a run that fails later."""
    with pytest.raises(TypeError, match="too many positional arguments"):
        add.enqueue(1, 2, 3)  # type: ignore[call-arg]
    assert nbjobs.runs() == []


def test_an_argument_that_is_no_data_is_refused_with_its_path(nbjobs_settings: NbJobs) -> None:
    """Nothing is enqueued then."""
    with pytest.raises(NotData, match=r"args\[0\]"):
        add.enqueue({"open": object()})  # type: ignore[arg-type]
    assert nbjobs.runs() == []


def test_arguments_above_64_kib_are_refused(nbjobs_settings: NbJobs) -> None:
    """Data goes by a file's name."""
    with pytest.raises(TooLarge, match="args"):
        add.enqueue("x" * 70_000)  # type: ignore[arg-type]


def test_the_same_id_with_the_same_call_is_the_run_that_exists(nbjobs_settings: NbJobs) -> None:
    """So enqueuing twice is harmless; another call under the id is refused."""
    first = add.options(id="daily").enqueue(1)
    assert add.options(id="daily").enqueue(1).id == first.id
    assert len(nbjobs.runs()) == 1
    with pytest.raises(RunExists, match="'daily'"):
        add.options(id="daily").enqueue(2)
    assert first.cancel() == "cancelled"


def test_options_are_of_one_call(nbjobs_settings: NbJobs) -> None:
    """The job itself stays as it was declared."""
    run = add.options(delay=3600, queue="nightly", tags={"team": "sales"}).enqueue(1)
    assert run.state == "scheduled"
    enqueued = next(iter(run.events()))
    assert enqueued.name == "job.enqueued_at"
    assert enqueued.payload["queue"] == "nightly"
    assert enqueued.tags == {"team": "sales"}
    assert add.enqueue(1).state == "queued"
    for each in nbjobs.runs():
        each.cancel()


def test_delay_and_at_exclude_each_other() -> None:
    """Two starts are a mistake."""
    with pytest.raises(ValueError, match="expected one of the two"):
        add.options(delay=1, at=datetime.datetime.now())


def test_a_job_declares_its_queue(nbjobs_settings: NbJobs) -> None:
    """Where a call names no other."""
    run = on_gpu.enqueue()
    assert next(iter(run.events())).payload["queue"] == "gpu"
    run.cancel()


def test_the_defaults_are_those_of_rails() -> None:
    """No limit of resumptions, 5 s after an error, and errors after progress are resumed."""
    policy = add.policy
    assert (policy.max_resumptions, policy.resume_wait, policy.resume_errors_after_advancing) == (None, 5.0, True)


def test_the_user_is_the_owner_and_no_argument(nbjobs_settings: NbJobs) -> None:
    """An argument called user changes nothing about whose run it is."""

    @job
    def takes_user(user: str) -> None: ...

    configure(adapter="inline")
    run = takes_user.enqueue(user="bob")
    assert run.user == "ada"
    assert Keys("ada").run(run.id).startswith("nbjobs:{ada}:")
