"""Bodies for tests of processes: what a child performs instead of the attempt of a run."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from nbjobs import lending


class Claim(msgspec.Struct, frozen=True):
    """A claim that names its body."""

    owner: str
    body: str = "nothing"
    args: list[Any] = []
    kind: str = "sync"
    user: str = "alice"
    run: str = "r1"
    origin: int = 0


class Performance:
    """An attempt that calls a function of this module."""

    def __init__(self, claim: dict[str, Any], over: Any) -> None:
        self.over = over
        self._body = globals()[claim["body"]]
        self._args = claim["args"]
        self.stopped = threading.Event()
        self.reason = ""

    def stop(self, reason: str) -> None:
        self.reason = reason
        self.stopped.set()

    def go_on(self) -> None:
        self.reason = "gone on"

    def outdated(self, file: str) -> None:
        self.reason = f"{file} is newer"

    def perform(self) -> dict[str, Any]:
        return {"code": "completed", "value": self._body(self, *self._args)}

    async def aperform(self) -> dict[str, Any]:
        return {"code": "completed", "value": await self._body(self, *self._args)}


def make(claim: dict[str, Any], usage: Any) -> Performance:
    if claim["body"] == "unmakeable":
        raise ValueError("no such job")
    return Performance(claim, usage)


def __getattr__(name: str) -> Any:
    """A performer that is missing while a file says so."""
    if name == "make_unless_broken" and not Path(os.environ["NBJOBS_TEST_SWITCH"]).exists():
        return make
    raise AttributeError(f"no {name} at present")


def nothing(attempt: Performance) -> None:
    pass


def pid(attempt: Performance) -> int:
    return os.getpid()


def clock(attempt: Performance) -> int:
    """When the body begins, in ns of the steady clock."""
    return time.monotonic_ns()


def environment(attempt: Performance) -> dict[str, str]:
    return dict(os.environ)


def facts(attempt: Performance) -> dict[str, Any]:
    """What this child is like, seen from inside."""
    fds = {fd.name: str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.exists()}
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "group": os.getpgid(0),
        "fds": fds,
        "main_thread": threading.current_thread() is threading.main_thread(),
        "oom": int(Path("/proc/self/oom_score_adj").read_text()),
        "path": sys.path,
        "modules": sorted(sys.modules),
    }


def prints(attempt: Performance, *lines: str) -> None:
    for line in lines:
        print(line)


def prints_apart(attempt: Performance) -> None:
    print("out")
    print("err", file=sys.stderr)
    os.write(1, b"raw")


def burns_nothing(attempt: Performance) -> None:
    sum(range(1000))


def floods(attempt: Performance, count: int) -> None:
    for number in range(count):
        print(number)


def writes(attempt: Performance, text: str, times: int) -> None:
    """Writes past Python's streams."""
    for _ in range(times):
        os.write(1, text.encode())


def writes_in_c(attempt: Performance, size: int) -> None:
    """Writes with the interpreter locked: `PyDLL` does not release it."""
    data = b"x" * 99 + b"\n"
    ctypes.PyDLL(None).write(1, data * (size // 100), size)


def buffers_in_c(attempt: Performance) -> None:
    ctypes.CDLL(None).puts(b"from C")


def ends_slowly(attempt: Performance, gate: str) -> int:
    """The body is over, and its end is not written before the gate is opened."""
    attempt.over()
    while not Path(gate).exists():
        time.sleep(0.002)
    return os.getpid()


def renames_process(attempt: Performance, then: str = "") -> None:
    Path("/proc/self/comm").write_text("my job")
    if then:
        os.kill(os.getpid(), signal.SIGKILL)


def holds_gil(attempt: Performance) -> None:
    """Runs for ages without letting another thread of this process run."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def waits_for_stop(attempt: Performance, say: str = "") -> str:
    if say:
        print(os.getpid())
    while not attempt.stopped.wait(0.01):
        pass
    return attempt.reason


def spins_until_stop(attempt: Performance) -> str:
    while not attempt.reason:
        pass
    return attempt.reason


def exits(attempt: Performance, code: int) -> None:
    print("last words")
    os._exit(code)


def raises_exit(attempt: Performance) -> None:
    raise SystemExit(3)


def kills_itself(attempt: Performance, number: int) -> None:
    print("about to go", flush=True)
    os.kill(os.getpid(), number)
    time.sleep(30)


def segfaults(attempt: Performance) -> None:
    ctypes.string_at(0)


def closes_everything(attempt: Performance) -> None:
    os.closerange(3, 100)
    time.sleep(30)


def starts_program(attempt: Performance, *, seconds: int = 300, session: bool = False) -> int:
    return subprocess.Popen(["sleep", str(seconds)], start_new_session=session).pid


def starts_program_in_session(attempt: Performance) -> int:
    return starts_program(attempt, session=True)


def forks_and_dies(attempt: Performance, note: str) -> None:
    """A forked program keeps the child's socket open: as C code forks, Python's fork hooks do not run."""
    program = ctypes.CDLL(None).fork()
    if program == 0:
        time.sleep(300)
    Path(note).write_text(str(program))
    os.kill(os.getpid(), signal.SIGKILL)


def starts_programs_and_holds_gil(attempt: Performance, note: str) -> None:
    pids = [os.getpid(), starts_program(attempt), starts_program(attempt, session=True)]
    Path(note + ".tmp").write_text(" ".join(map(str, pids)))
    Path(note + ".tmp").rename(note)
    holds_gil(attempt)


def forks_and_both_return(attempt: Performance) -> None:
    if os.fork() == 0:
        print("the fork")
        return
    os.wait()


def pools(attempt: Performance, method: str) -> list[int]:
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


def terminates_a_fork(attempt: Performance) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join()
    return process.exitcode


def says_goodbye(attempt: Performance) -> None:
    atexit.register(print, "goodbye")


def draws(attempt: Performance) -> float:
    return random.random()


def ignored_signals(attempt: Performance) -> str:
    """What a program of the body ignores, as the kernel says."""
    command = "import re; print(re.search('SigIgn:.(.*)', open('/proc/self/status').read())[1])"
    return subprocess.run([sys.executable, "-Ec", command], stdout=subprocess.PIPE, text=True).stdout.strip()


def leaves_thread(attempt: Performance) -> None:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def thread_that_ends(attempt: Performance) -> None:
    threading.Thread(target=time.sleep, args=(0.01,)).start()


def changes_directory(attempt: Performance) -> None:
    os.chdir("/")


def changes_environment(attempt: Performance) -> None:
    os.environ["LEFT_BEHIND"] = "1"


def replaces_stdout(attempt: Performance) -> None:
    sys.stdout = None  # type: ignore[assignment]


def imports(attempt: Performance, folder: str, name: str) -> str:
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return str(__import__(name).VALUE)


def imports_and_waits(attempt: Performance, folder: str, name: str) -> None:
    print(imports(attempt, folder, name))
    waits_for_stop(attempt)
    sys.path.remove(folder)


def starts_daemon_and_waits(attempt: Performance) -> None:
    """As `sh -c "server &"` does: its parent is gone at once, its group is another."""
    command = "import subprocess; print(subprocess.Popen(['sleep', '300'], start_new_session=True, stdout=-3).pid)"
    print(subprocess.run([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True).stdout)
    waits_for_stop(attempt)


def burns(attempt: Performance, seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def allocates(attempt: Performance, size: int) -> None:
    memory = bytearray(size)
    memory[::4096] = b"x" * len(memory[::4096])


def lends(attempt: Performance) -> str:
    with lending.lent_place():
        waits_for_stop(attempt)
    return attempt.reason


def lends_and_goes_on(attempt: Performance) -> None:
    lends(attempt)
    attempt.stopped.clear()
    waits_for_stop(attempt)


async def alends(attempt: Performance) -> str:
    with lending.lent_place():
        return await await_stop(attempt)


async def asays_goodbye(attempt: Performance) -> None:
    says_goodbye(attempt)


async def anothing(attempt: Performance) -> None:
    pass


async def apid(attempt: Performance) -> int:
    return os.getpid()


_together: set[int] = set()


async def apid_together(attempt: Performance, count: int) -> int:
    """Returns when so many of them run in this process."""
    _together.add(id(attempt))
    while len(_together) < count:
        await asyncio.sleep(0.002)
    return os.getpid()


async def await_stop(attempt: Performance) -> str:
    while not attempt.stopped.is_set():
        await asyncio.sleep(0.002)
    return attempt.reason


async def aprints(attempt: Performance, name: str) -> None:
    for number in range(3):
        print(name, end=" ")
        await asyncio.sleep(0.001)
        print(number)
    await asyncio.to_thread(print, name, "thread", end="")


async def awrites(attempt: Performance, text: str, times: int) -> None:
    for _ in range(times):
        print(text, end="")


async def ablocks(attempt: Performance) -> None:
    time.sleep(60)


async def adies(attempt: Performance) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def aleaves_task(attempt: Performance) -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    await asyncio.sleep(0)
    assert not task.done()
