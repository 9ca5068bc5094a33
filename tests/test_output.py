"""Bytes of a pipe become lines."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbjobs.lines import LINE_LIMIT, Line, LineCutter
from nbjobs.output import READ_LIMIT, MarkingStream, Pipe


def cut(*pieces: bytes) -> list[str]:
    cutter = LineCutter("stdout")
    return [line.text for piece in pieces for line in cutter.feed(piece)] + [line.text for line in cutter.flush()]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"no end", ["no end"]),
        (b"\n\n", ["", ""]),
        (b" 1%\r 2%\r 3%\n", [" 3%"]),
        (b" 1%\r 2%\r", [" 2%"]),
        (b"\r 1%\r 2%", [" 2%"]),
        ("grün €\n".encode(), ["grün €"]),
        (b"bad \xff byte\n", ["bad \ufffd byte"]),
        (b"", []),
    ],
)
def test_lines_are_what_a_terminal_would_show(data: bytes, lines: list[str]) -> None:
    """Of a line that redraws itself the last state is kept; an open last line counts; bad bytes are marked."""
    assert cut(data) == lines


@given(
    st.lists(st.sampled_from([b"a", "é".encode(), b"\n", b"\r\n", b"\rb"]), max_size=30),
    st.lists(st.integers(0, 60)),
)
def test_cuts_between_reads_do_not_show(parts: list[bytes], cuts: list[int]) -> None:
    """However the pipe delivers its bytes, the lines are the same."""
    data = b"".join(parts)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[begin:end] for begin, end in pairwise(edges)]
    assert cut(*pieces) == cut(data)


def test_an_endless_line_is_cut_and_held_in_bounds() -> None:
    """A line without an end does not fill the worker's memory, and nothing of it is lost."""
    cutter = LineCutter("stdout")
    lines = [line for _ in range(100) for line in cutter.feed(b"x" * 1000)]
    assert len(lines) == 100_000 // LINE_LIMIT
    assert len("".join(line.text for line in lines + cutter.flush())) == 100_000
    assert [len(line) for line in cut(b"y" * (LINE_LIMIT + 1) + b"\n")] == [LINE_LIMIT, 1]


def test_an_endless_redrawn_line_keeps_its_last_state_only() -> None:
    """A progress bar that redraws itself for hours costs the length of one line."""
    cutter = LineCutter("stdout")
    assert [line for step in range(10_000) for line in cutter.feed(b"\r%5d" % step)] == []
    assert len(cutter._rest) < 20
    assert [line.text for line in cutter.flush()] == [" 9999"]


@pytest.mark.weather("M2")
@pytest.mark.parametrize(
    "flood",
    [b"\n" * 5_000_000, b"ab\n" * 2_000_000, bytes(range(256)) * 20_000, b"x" * 5_000_000],
    ids=["no text", "short", "binary", "no line end"],
)
@pytest.mark.parametrize("piece", [READ_LIMIT, 5_000_000], ids=["as a pipe is read", "at once"])
def test_a_flood_is_cut_within_its_allowance_and_counted(flood: bytes, piece: int) -> None:
    """Its lines are counted in bytes and dropped, the oldest first, but for so many as a log can take."""
    cutter, began = LineCutter("stdout"), time.monotonic()
    cuts = []
    for at in range(0, len(flood), piece):
        cuts.append(cutter.feed(flood[at : at + piece]))
        cuts += [cutter.cut() for _ in range(4)]  # as often as it is asked
    cuts.append(cutter.feed(b"\nlast\n"))
    allowed = 20_000 + 5_000 * (time.monotonic() - began)
    assert sum(map(len, cuts)) <= allowed
    assert max(map(len, cuts)) <= 350  # one that is cut into several counts once
    cuts.append(cutter.flush())
    lines = [line for lines in cuts for line in lines]
    assert lines[-1].text == "last"
    if flood.endswith(b"\n"):
        assert len(lines) + sum(line.missed for line in lines) == flood.count(b"\n") + 2


@pytest.fixture
def pipe() -> Iterator[tuple[Pipe, list[Line]]]:
    got: list[Line] = []
    made = Pipe("stderr", got.extend)
    yield made, got
    made.close()


def test_a_pipe_is_read_without_waiting(pipe: tuple[Pipe, list[Line]]) -> None:
    """Nothing there is no end; the end is noticed; closing twice is none."""
    reading, got = pipe
    assert reading.read() == 0 and not reading.ended
    os.write(reading.child_end, b"one\ntwo")
    assert reading.read() == 7 and [line[:2] for line in got] == [("stderr", "one")]
    os.close(reading.child_end)
    assert reading.read() == 0 and reading.ended
    reading.finish_line()
    assert [line[:2] for line in got[1:]] == [("stderr", "two")]
    reading.close()
    reading.close()


def test_draining_takes_what_was_there_and_ends(pipe: tuple[Pipe, list[Line]]) -> None:
    """All that a full pipe holds is taken, though the writer would fill it again for ever."""
    reading, got = pipe
    os.set_blocking(reading.child_end, False)
    written = 0
    with pytest.raises(BlockingIOError):
        while True:
            written += os.write(reading.child_end, b"x" * 99 + b"\n")
    refill = reading._on_lines

    def write_more(lines: list[Line]) -> None:
        refill(lines)
        os.write(reading.child_end, b"more\n")

    reading._on_lines = write_more
    reading.drain()
    assert written >= READ_LIMIT * 0.9, "a pipe holds whole pages"
    assert sum(line.text == "x" * 99 for line in got) == written // 100
    os.close(reading.child_end)


# -- the time of a line ----------------------------------------------------------------------------


@pytest.fixture
def printing(pipe: tuple[Pipe, list[Line]]) -> Iterator[tuple[MarkingStream, Pipe, list[Line]]]:
    stream = MarkingStream(pipe[0].child_end)
    yield stream, *pipe
    stream.close()


def test_a_line_has_the_time_at_which_it_was_complete(printing: tuple[MarkingStream, Pipe, list[Line]]) -> None:
    """However late it is read; what C code wrote in between has the time of what follows."""
    stream, pipe, got = printing
    before = time.time_ns()
    print("one", file=stream)
    between = time.time_ns()
    os.write(pipe.child_end, b"in C\n")
    print("  0%\r 50%\r100%", file=stream, end="\r\n")
    after = time.time_ns()
    os.write(pipe.child_end, b"last")
    pipe.read()
    pipe.finish_line()
    assert [line.text for line in got] == ["one", "in C", "100%", "last"]
    one, in_c, redrawn, last = (line.ns for line in got)
    assert before <= one <= between <= in_c == redrawn <= after <= last


def test_what_was_printed_is_read_as_it_was(printing: tuple[MarkingStream, Pipe, list[Line]]) -> None:
    """The mark of the time is seen by nobody, in lines of any length; the writer is told its own count."""
    stream, pipe, got = printing
    texts = ["", "x" * (LINE_LIMIT - 3), "y" * (LINE_LIMIT + 5), "€ \udcff", "\x1e0123456789abcdeg"]
    for text in texts:
        assert stream.write(f"{text}\n") == len(text) + 1
        pipe.drain()
    assert "".join(line.text for line in got) == "".join(texts).replace("\udcff", "\\udcff")
    with pytest.raises(TypeError):
        stream.write(5)  # type: ignore[arg-type]


def test_a_file_in_its_place_gets_no_marks(printing: tuple[MarkingStream, Pipe, list[Line]], tmp_path: Path) -> None:
    """A body that sends its output elsewhere finds there what it has printed."""
    stream, pipe, _ = printing
    kept = os.dup(pipe.child_end)
    with (tmp_path / "out").open("wb") as file:
        os.dup2(file.fileno(), pipe.child_end)
        print("one", file=stream)
    os.dup2(kept, pipe.child_end)
    os.close(kept)
    assert (tmp_path / "out").read_text() == "one\n"
    assert isinstance(stream, TextIOWrapper)


@pytest.mark.weather("forged times")
@pytest.mark.parametrize(
    "mark", [b"-000000000000001", b"+000000000000001", b"0x00000000000001", b"00000000_0000001", b" 00000000000001 "]
)
def test_what_is_no_time_is_text(mark: bytes) -> None:
    """A mark is sixteen hexadecimal digits, and nothing else that Python would read as a number."""
    (line,) = LineCutter("stdout").feed(b"text\x1e" + mark + b"\n")
    assert line == ("stdout", f"text\x1e{mark.decode()}", 0, 0)
