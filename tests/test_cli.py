"""The command line: one clear line for each mistake."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nbjobs.cli import main

from .support import RedisServer
from .workers import ROOT, bare_environment


def nbjobs(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nbjobs", *arguments],
        cwd=ROOT,
        env=bare_environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def complaint(*arguments: str, **settings: object) -> str:
    """Run a command that must fail, and return the one line that it says."""
    done = nbjobs(*arguments, **settings)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("nbjobs: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def locked_redis() -> Iterator[RedisServer]:
    with RedisServer(port=_free_port(), requirepass="hunter2") as server:
        yield server


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def old_redis() -> Iterator[int]:
    """A server that says it is Redis 6.2."""
    answer = b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n6.2.1\r\n"

    def serve() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            with link:
                while data := link.recv(65536):
                    link.sendall((answer if b"HELLO" in data.upper() else b"+OK\r\n") * data.count(b"*"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.fault(60)
def test_no_redis() -> None:
    """Nobody listens: which address, and what to check."""
    port = _free_port()
    said = complaint("worker", redis_url=f"redis://ada:hunter2@127.0.0.1:{port}/0")
    assert f"Redis at 127.0.0.1:{port}/0 does not answer" in said


@pytest.mark.weather("A4")
def test_an_address_that_is_no_url() -> None:
    """The value is shown, since it holds no password, with what is expected."""
    said = complaint("worker", redis_url="localhost:6379")
    assert "setting redis_url is localhost:6379, expected redis://" in said


@pytest.mark.weather("A4")
def test_a_port_of_another_service() -> None:
    """A web server answers in its own way: which address, and what to check."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = complaint("worker", redis_url=f"redis://:hunter2@127.0.0.1:{server.server_port}/0")
        server.shutdown()
    assert f"Redis at 127.0.0.1:{server.server_port}/0 does not speak as Redis does" in said


@pytest.mark.fault(60)
def test_a_wrong_password(locked_redis: RedisServer) -> None:
    """Refused: the user or the password is wrong, and neither is printed."""
    said = complaint("worker", redis_url=f"redis://:hunter2x@127.0.0.1:{locked_redis.port}/0")
    assert "refuses the user or the password" in said


@pytest.mark.fault(60)
def test_no_password(locked_redis: RedisServer) -> None:
    """Redis wants one: the same line."""
    assert "password" in complaint("worker", redis_url=f"redis://127.0.0.1:{locked_redis.port}/0")


@pytest.mark.fault(60)
def test_a_database_that_is_not_there(locked_redis: RedisServer) -> None:
    """The number at the end of the URL is named as the cause."""
    said = complaint("worker", redis_url=f"redis://:hunter2@127.0.0.1:{locked_redis.port}/99")
    assert "no database of that number" in said


@pytest.mark.fault(60)
def test_a_redis_that_is_too_old(old_redis: int) -> None:
    """The version found and the version expected."""
    said = complaint("worker", redis_url=f"redis://127.0.0.1:{old_redis}/0")
    assert "has version 6.2.1, expected 7.0 or later" in said


@pytest.mark.fault(60)
def test_tls_where_there_is_none(locked_redis: RedisServer) -> None:
    """A URL of the wrong kind is told as such."""
    assert "TLS" in complaint("worker", redis_url=f"rediss://127.0.0.1:{locked_redis.port}/0")


def test_a_socket_path_that_is_too_long() -> None:
    """The operating system's word for it is passed on."""
    said = complaint("worker", redis_url=f"unix:///tmp/{'x' * 120}/redis.sock")
    assert "too long" in said


def test_a_module_that_cannot_be_imported() -> None:
    """The module, the interpreter and the error."""
    said = complaint("worker", "no_such_module", redis_url="redis://127.0.0.1:1/0")
    assert "no_such_module cannot be imported by" in said
    assert "ModuleNotFoundError" in said


def test_a_bad_setting() -> None:
    """The setting, what was found and what is expected."""
    assert "lease is 0" in complaint("worker", lease="0")
    assert "redis_url" in complaint("worker", redis_url="http://:hunter2@x")


def test_a_setting_on_the_command_line() -> None:
    """It means the same trait, and is checked the same way."""
    assert "lease is 0" in complaint("worker", "--NbJobs.lease=0")


def test_up_where_a_redis_is_named() -> None:
    """Nobody would use the embedded one: the message says what to do instead."""
    said = complaint("up", redis_url="redis://:hunter2@127.0.0.1:1/0")
    assert "nbjobs worker" in said


def test_an_unknown_command() -> None:
    """The commands there are."""
    known = "up, status, down, worker, runs, watch, cancel, pause, unpause, retry, logs, events, doctor, demo"
    assert f"expected one of {known}" in complaint("upp")


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the help is shown."""
    assert main([]) == 0
    said = capsys.readouterr().out
    for name in (
        "up",
        "status",
        "down",
        "worker",
        "runs",
        "watch",
        "cancel",
        "pause",
        "unpause",
        "retry",
        "logs",
        "events",
        "doctor",
        "demo",
    ):
        assert name in said


def test_windows_has_no_worker(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker's message names WSL, and that clients work."""
    monkeypatch.setattr(sys, "platform", "win32")
    for command in ("worker", "up", "status", "down"):
        assert main([command]) == 1
        assert "WSL" in capsys.readouterr().err
