"""The client's side of the embedded daemon: where it lives, and what is said where it cannot."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbjobs import embedded
from nbjobs.directories import Places
from nbjobs.embedded import ask, command, hello, places
from nbjobs.environment import environment
from nbjobs.errors import EmbeddedError
from nbjobs.settings import NbJobs


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's may have 107 characters."""
    path = Path(tempfile.mkdtemp(prefix="nbjobs-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def settings(folder: Path, runtime: str = "run") -> NbJobs:
    return NbJobs(runtime_dir=str(folder / runtime), data_dir=str(folder / "data"))


def test_directories_are_made_for_nobody_else(folder: Path) -> None:
    """The sockets' directory and that of the data have mode 0700."""
    found = places(settings(folder))
    for path in (found.runtime, found.redis_data):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_directory_that_others_can_enter_is_refused(folder: Path) -> None:
    """The message says the mode, why it matters, and the command that helps."""
    (folder / "run").mkdir(mode=0o755)
    with pytest.raises(EmbeddedError, match=r"mode 755, expected 700.*chmod 700"):
        places(settings(folder))


def test_a_link_is_refused(folder: Path) -> None:
    """Whoever may write the parent could turn a link elsewhere."""
    (folder / "elsewhere").mkdir(mode=0o700)
    (folder / "run").symlink_to(folder / "elsewhere")
    with pytest.raises(EmbeddedError, match="is a link or a file, expected a directory"):
        places(settings(folder))


def test_a_directory_that_cannot_be_made_is_told(folder: Path) -> None:
    """A file in the way is named, with the settings that help."""
    (folder / "file").write_text("")
    with pytest.raises(EmbeddedError, match=r"file/run cannot be made: .* Set NBJOBS_RUNTIME_DIR"):
        places(settings(folder, "file/run"))


@pytest.mark.weather("M11")
def test_the_data_directory_is_checked_as_that_of_the_sockets(folder: Path) -> None:
    """Its lock says where a client connects, and its file what Redis holds: nobody else may write there."""
    (data := folder / "data").mkdir(mode=0o777)
    data.chmod(0o777)
    with pytest.raises(EmbeddedError, match=r"data has mode 777, expected 700.*chmod 700"):
        places(settings(folder))
    data.rmdir()
    (folder / "elsewhere").mkdir(mode=0o700)
    data.symlink_to(folder / "elsewhere")
    with pytest.raises(EmbeddedError, match="data is a link or a file, expected a directory"):
        places(settings(folder))


@pytest.mark.weather("H8")
def test_a_runtime_directory_that_others_could_replace_is_refused(folder: Path) -> None:
    """Each directory above it counts, behind links too; one that everybody may write is safe with the sticky bit."""
    (folder / "open" / "mine").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "open")
    (folder / "open").chmod(0o777)
    for name in ("open/mine/run", "link/mine/run"):
        with pytest.raises(EmbeddedError, match=r"open has mode 777, so everybody could replace .*/open/mine/run"):
            places(settings(folder, name))
    (folder / "open").chmod(0o1777)
    assert places(settings(folder, "link/mine/run")).runtime == folder / "open/mine/run"


@pytest.mark.weather("H8")
def test_a_directory_below_another_users_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns a directory may replace what is in it; root may anything anyway."""
    me, other = os.getuid(), os.getuid() + 1
    real = Path.stat

    def stat_of(path: Path, **options: bool) -> os.stat_result:
        found = list(real(path, **options))
        if path == folder:
            found[4] = other
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", stat_of)
    with pytest.raises(EmbeddedError, match=rf"belongs to user number {other}.*expected {me} .*NBJOBS_RUNTIME_DIR"):
        places(settings(folder))
    found = places(NbJobs(data_dir=str(folder / "data")))  # no runtime directory was named
    assert found.runtime.parent == Path("/tmp")
    found.runtime.rmdir()


@pytest.mark.weather("H8")
def test_a_file_system_without_sockets_gets_a_short_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some that are shared with another system have none."""
    monkeypatch.setattr("nbjobs.directories._has_sockets", lambda directory: False)
    found = places(settings(folder))
    assert found.runtime.parent == Path("/tmp")
    found.runtime.rmdir()


@pytest.mark.weather("H8")
def test_nothing_is_told_to_another_users_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request carries all environment variables, so the client looks who listens."""
    found = places(settings(folder))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(found.daemon_socket))
        listener.listen()
        me = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: me + 1)
        with pytest.raises(EmbeddedError, match=rf"user number {me} listens on .*daemon.sock, expected {me + 1}"):
            ask(found, hello(settings(folder), environment()))
        link, _ = listener.accept()
        with link:
            assert link.recv(1) == b""


def test_a_path_too_long_for_a_socket_gets_a_short_one(folder: Path) -> None:
    """The short directory is the same each time, differs with the long one, and is private."""
    long = settings(folder, "r" * 120)
    found = places(long)
    try:
        assert found == places(long)
        assert len(os.fsencode(found.redis_socket)) <= 107
        assert found.runtime.parent == Path("/tmp")
        assert stat.S_IMODE(found.runtime.stat().st_mode) == 0o700
    finally:
        found.runtime.rmdir()


def test_a_short_directory_that_is_not_ours_is_refused(folder: Path) -> None:
    """Somebody who has put a link where it would be cannot lure the sockets away."""
    long = settings(folder, "r" * 120)
    found = places(long)
    found.runtime.rmdir()
    found.runtime.symlink_to(folder)
    try:
        with pytest.raises(EmbeddedError, match=r"characters, a Unix socket's may have 107.*NBJOBS_RUNTIME_DIR"):
            places(long)
    finally:
        found.runtime.unlink()


def test_windows_is_told_what_works_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """WSL, or a Redis elsewhere and this Python as a client."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(EmbeddedError, match=r"WSL.*NBJOBS_REDIS_URL.*client"):
        embedded.url(NbJobs())


def test_nobody_there_is_no_error(folder: Path) -> None:
    """Neither where there is no socket, nor where nobody listens on it any more."""
    found = places(settings(folder))
    assert ask(found, {"op": "status"}) is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(found.daemon_socket))
    assert ask(found, {"op": "status"}) is None


def test_the_command_hands_over_the_path() -> None:
    """Another interpreter finds what a notebook finds, though it changed ``sys.path``."""
    words = command("/usr/bin/python3", ["/a", "/b"], ["up"])
    assert words[:2] == ["/usr/bin/python3", "-c"]
    assert json.loads(words[3]) == ["/a", "/b"]
    assert words[4:] == ["up"]


def test_places_name_their_files() -> None:
    """Sockets are in the runtime directory, all else in the data directory."""
    found = Places(Path("/r"), Path("/d"))
    assert found.redis_url == "unix:///r/redis.sock"
    assert (found.daemon_socket, found.log) == (Path("/r/daemon.sock"), Path("/d/daemon.log"))
