"""The lock of an embedded daemon."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
from pathlib import Path

import pytest

from nbjobs.directories import Places
from nbjobs.errors import EmbeddedError
from nbjobs.lock import Busy, Holder, Lock, holder, left_behind


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path / "run", tmp_path / "data")
    found.runtime.mkdir(mode=0o700)
    found.data.mkdir(mode=0o700)
    return found


@pytest.mark.weather("H8")
def test_the_lock_of_the_data_names_process_and_sockets(places: Places) -> None:
    """For clients whose own variables say something else; nobody holds it afterwards."""
    assert holder(places.data) is None
    with Lock(places):
        assert holder(places.data) == (os.getpid(), socket.gethostname(), places.runtime)
    assert holder(places.data) is None
    assert left_behind(places.data) is None


@pytest.mark.weather("H8")
@pytest.mark.parametrize("shared", ["run", "data"])
def test_two_daemons_share_neither_sockets_nor_data(places: Places, tmp_path: Path, shared: str) -> None:
    """Two on one append-only file would destroy it: the second one says who has it."""
    other = {"run": tmp_path / "other run", "data": tmp_path / "other data", shared: tmp_path / shared}
    for path in other.values():
        path.mkdir(mode=0o700, exist_ok=True)
    with Lock(places):
        told = rf"another nbjobs daemon uses .*/{shared} \(process {os.getpid()} on "
        with pytest.raises(Busy, match=told), Lock(Places(other["run"], other["data"])):
            pass
    with Lock(Places(other["run"], other["data"])):
        pass


@pytest.mark.weather("H8")
@pytest.mark.parametrize("sweep", ["file", "directory"])
def test_a_lock_that_was_removed_is_taken_again(places: Places, sweep: str) -> None:
    """Else another daemon could start on the same data."""
    with Lock(places) as lock:
        lock.keep()
        for directory in (places.runtime, places.data):
            if sweep == "file":
                (directory / "daemon.lock").unlink()
            else:
                shutil.rmtree(directory)
        assert holder(places.data) is None
        lock.keep()
        assert holder(places.data) == (os.getpid(), socket.gethostname(), places.runtime)


def test_a_lock_that_another_daemon_has_taken_is_lost(places: Places) -> None:
    """The first one hears of it."""
    with Lock(places) as lock:
        for directory in (places.runtime, places.data):
            (directory / "daemon.lock").unlink()
        with Lock(places), pytest.raises(Busy):
            lock.keep()


@pytest.mark.weather("M7")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(places: Places, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """No other daemon is blamed, and the way out is named."""

    def flock(fd: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(EmbeddedError, match=rf"{os.strerror(number)}.*NBJOBS_DATA_DIR") as found, Lock(places):
        pass
    assert not isinstance(found.value, Busy)


@pytest.mark.weather("M11")
def test_a_link_in_the_place_of_the_lock_is_refused(places: Places, tmp_path: Path) -> None:
    """Nothing is written where it leads."""
    (tmp_path / "precious").write_text("kept")
    (places.data / "daemon.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(EmbeddedError, match=r"daemon.lock cannot be opened"), Lock(places):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_what_the_lock_says_is_read_back() -> None:
    """Also the words of a daemon that did not name its sockets, and no words at all."""
    assert Holder.of("process 12 on some.host\n/run/a b\n") == (12, "some.host", Path("/run/a b"))
    assert Holder.of("process 12 on some.host\n") == (12, "some.host", None)
    assert Holder.of("") == (0, "", None)
    assert Holder.of("process 12 on some.host\n/run\n").here is False
    assert Holder.of(f"process {os.getpid()} on {socket.gethostname()}\n/run\n").here
