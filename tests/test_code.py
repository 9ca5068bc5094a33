"""How a job's function travels: by name, or by value out of a notebook."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import msgspec
import pytest

from nbjobs import code
from nbjobs.errors import CodeRefused, JobNotFound, NotData, TooLarge
from nbjobs.jobs import job

NOTEBOOK = """
    from dataclasses import dataclass
    from nbjobs import job, notify, step, tagged
    import math

    @dataclass
    class Row:
        value: int

    def helper(row):
        return math.sqrt(row.value)

    @job
    def roots(values):
        with tagged(a=1):
            notify("seen", n=len(values))
        return [helper(Row(v)) for v in step.each("process", values)]

    from nbjobs import code
    import sys
    sys.stdout.buffer.write(code.pack(roots).data)
"""


@job
def here(x: int) -> int:
    return x


def packed_in_a_notebook(text: str = NOTEBOOK) -> bytes:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], check=True, capture_output=True, timeout=60
    ).stdout


def run_by_value(data: bytes, then: str) -> str:
    script = f"""
import sys
from nbjobs import code
job = code.load(sys.stdin.buffer.read())
{then}
"""
    return subprocess.run(
        [sys.executable, "-c", script], input=data, check=True, capture_output=True, timeout=60
    ).stdout.decode()


def test_a_job_of_a_module_is_found_by_its_name() -> None:
    """As the object that the module holds."""
    assert code.find(here.name) is here


def test_a_missing_module_or_name_is_told() -> None:
    """Each with what to do."""
    with pytest.raises(JobNotFound, match=r"'no_such_module' of the job no_such_module\.x cannot be imported"):
        code.find("no_such_module.x")
    with pytest.raises(JobNotFound, match=r"has no 'nothing' in the worker's copy of the code"):
        code.find("tests.test_code.nothing")
    with pytest.raises(JobNotFound, match=r"is a function, expected a job: decorate it with @nbjobs.job"):
        code.find("tests.test_code.run_by_value")


def test_a_job_of_a_cell_travels_with_what_it_refers_to() -> None:
    """Helpers, classes, imports, and nbjobs' own functions by reference."""
    found = run_by_value(packed_in_a_notebook(), "print(job([1, 4, 9]))")
    assert found.strip() == "[1.0, 2.0, 3.0]"


def test_a_job_by_value_finds_its_globals_in_main() -> None:
    """So that pickle and the pools of a body find them."""
    found = run_by_value(
        packed_in_a_notebook(),
        "import __main__, pickle; print(pickle.loads(pickle.dumps(__main__.Row(3))).value, __main__.helper.__name__)",
    )
    assert found.split() == ["3", "helper"]


def test_code_of_another_python_is_refused_with_both_versions() -> None:
    """Bytecode of one version means nothing to another."""
    data = msgspec.msgpack.decode(packed_in_a_notebook())
    data["python"] = "3.99"
    with pytest.raises(CodeRefused, match=r"from Python 3\.99.*this worker has Python 3\."):
        code.load(msgspec.msgpack.encode(data))


def test_what_cannot_be_pickled_is_told_where_it_is_enqueued() -> None:
    """With the reason and the way out."""
    import threading

    lock = threading.Lock()

    @job
    def locked() -> None:
        lock.acquire()

    with pytest.raises(NotData, match=r"cannot be sent to a worker.*Open files and connections inside it"):
        code.pack(locked)


def test_code_that_drags_data_along_is_refused() -> None:
    """Above 1 MiB."""
    import os

    data = os.urandom(2_000_000)

    @job
    def heavy() -> int:
        return len(data)

    with pytest.raises(TooLarge, match="1,048,576 are allowed"):
        code.pack(heavy)


CELLS = """
    import linecache
    import sys

    def cell(name, text):
        text = text.replace("|", chr(10))
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        exec(compile(text, name, "exec"), globals())

    cell("/tmp/ipykernel_1/2.py", "def helper(x):|    return 1 / x  # in the second cell|")
    cell("/tmp/ipykernel_1/1.py", "from nbjobs import job|@job|def divide(x):|    return helper(x)|")
    from nbjobs import code
    sys.stdout.buffer.write(code.pack(divide).data)
"""


def test_a_traceback_shows_the_lines_of_its_cells() -> None:
    """Each in its own file, although the worker has none of them."""
    told = run_by_value(
        packed_in_a_notebook(CELLS),
        "import traceback\ntry:\n    job(0)\nexcept ZeroDivisionError:\n    print(traceback.format_exc())",
    )
    assert 'File "/tmp/ipykernel_1/1.py", line 4, in divide\n    return helper(x)\n' in told
    assert 'File "/tmp/ipykernel_1/2.py", line 2, in helper\n    return 1 / x  # in the second cell\n' in told
