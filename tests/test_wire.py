"""Messages over sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbjobs.wire import Channel, Lines, Link, Message, encode, pair

from .support import await_until

MESSAGES: list[Message] = [{"op": "run", "text": "ä\n€"}, {"op": "stop"}, {"op": "done", "n": [1, None]}]


@given(st.lists(st.integers(0, 90)))
def test_messages_arrive_whole_however_they_are_cut(cuts: list[int]) -> None:
    """A stream of bytes knows no messages: any cut gives the same ones."""
    data = b"".join(map(encode, MESSAGES))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    lines = Lines()
    got = [message for begin, end in pairwise(edges) for message in lines.feed(data[begin:end])]
    assert got == MESSAGES


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    both = pair()
    yield both
    for end in both:
        end.close()


def read_all(channel: Channel, count: int) -> list[Message]:
    got: list[Message] = []
    while len(got) < count:
        got += channel.read() or []
    return got


def test_descriptors_travel_with_their_messages(ends: tuple[Channel, Channel]) -> None:
    """What is taken are the descriptors in the order sent, not inheritable, and really others."""
    ours, theirs = ends
    pipes = [os.pipe() for _ in range(4)]
    for reading, writing in pipes:
        ours.send({"op": "fork"}, [reading, writing])
    ours.send({"op": "last"})
    assert read_all(theirs, 5)[-1] == {"op": "last"}
    for number, _ in enumerate(pipes):
        reading, writing = theirs.take_fds(2)
        assert not os.get_inheritable(reading)
        os.write(pipes[number][1], b"%d" % number)
        assert os.read(reading, 9) == b"%d" % number
        for fd in (reading, writing, *pipes[number]):
            os.close(fd)


def test_descriptors_that_nobody_took_are_closed(ends: tuple[Channel, Channel]) -> None:
    """Closing a channel leaves no descriptor behind."""
    ours, theirs = ends
    reading, writing = os.pipe()
    ours.send({"op": "fork"}, [writing])
    os.close(writing)
    read_all(theirs, 1)
    theirs.close()
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_a_broken_socket_reads_as_its_end(ends: tuple[Channel, Channel]) -> None:
    """Whatever ends the other side, `read` answers None, again and again."""
    ours, theirs = ends
    ours.send({"op": "unread"})
    theirs.close()
    assert [ours.read(), ours.read()] == [None, None]
    ours.close()
    assert ours.read() is None


class LinkEnd:
    """A link, and a plain socket at its other side."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.got: list[Message] = []
        self.ends = 0
        self.link = Link(ours, on_message=self.got.append, on_end=self._end)

    def _end(self) -> None:
        self.ends += 1


async def test_a_link_never_blocks_and_loses_nothing() -> None:
    """What the socket does not take at once is sent when there is room, descriptors in their place."""
    end = LinkEnd()
    reading, writing = os.pipe()
    blob = "x" * 100_000
    for number in range(20):
        end.link.send({"n": number, "blob": blob})
    end.link.send({"n": 20}, [writing], close_fds=True)
    channel = Channel(end.theirs)
    got = await asyncio.get_running_loop().run_in_executor(None, read_all, channel, 21)
    assert [message["n"] for message in got] == list(range(21))
    (sent,) = channel.take_fds(1)
    os.close(sent)
    assert os.read(reading, 1) == b"", "ours was closed when it was on its way"
    os.close(reading)
    end.link.close()
    channel.close()


async def test_a_closed_link_takes_messages_and_closes_their_descriptors() -> None:
    """Sending to who is gone is no error, and no leak."""
    end = LinkEnd()
    end.theirs.close()
    await await_until(lambda: end.link.closed, description="the end is seen")
    reading, writing = os.pipe()
    end.link.send({"op": "run"}, [writing], close_fds=True)
    assert os.read(reading, 1) == b""
    os.close(reading)
    end.link.half_close()
    end.link.close()
    assert end.ends == 1 and not end.link.read()


async def test_what_was_sent_before_the_end_is_read_before_it() -> None:
    """The last words of the other side arrive, in order, before its end does."""
    end = LinkEnd()
    end.theirs.sendall(b"".join(map(encode, MESSAGES)))
    end.theirs.close()
    await await_until(lambda: end.ends, description="the end is seen")
    assert end.got == MESSAGES
