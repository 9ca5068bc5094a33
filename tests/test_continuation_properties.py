"""Whatever happens to a run, each step ends once, in order, and no item is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from nbjobs.continuation import Continuation, current
from nbjobs.errors import Interrupt, InvalidStepError, StepsChanged
from nbjobs.progress import Saved
from nbjobs.stepping import step

from .worlds import Died, World, attempt

MOST_ATTEMPTS = 8


class Left(Exception):
    """With this a body leaves a loop of its own accord, and catches it."""


@dataclass(frozen=True)
class Piece:
    """A step of a random program: a function that advances, or a loop, with what is done in it."""

    name: str
    kind: str  # advance set list tuple generator dict deque
    size: int
    every: int | None
    leave: str  # "" break return caught
    leave_at: int
    kept: bool


@dataclass
class Story:
    """What one run went through: which piece did which of its items in which attempt, and with which key."""

    program: list[Piece]
    faults: list[dict[int, str]]
    worlds: list[World] = field(default_factory=list)
    seen: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    keys: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    calls: dict[str, list[int]] = field(default_factory=dict)
    clock: int = 0

    def chance(self, where: str) -> str:
        """The next moment at which something can happen, and what does."""
        self.clock += 1
        number = len(self.worlds)
        what = self.faults[number].get(self.clock, "") if number < len(self.faults) else ""
        if what:
            event(f"{what} at {where}")
        return what


class Chancy(World):
    """A world in which commits get lost, processes die and attempts are stopped."""

    story: Story

    def checkpoint(self) -> str | None:
        what = self.story.chance("checkpoint")
        if what == "lost":
            raise Died  # before Redis has it
        super().checkpoint()
        if what == "died":
            raise Died  # after Redis has it
        return "stopping" if what == "stop" else None


def now() -> Continuation:
    run = current()
    assert run is not None
    return run


def work(story: Story, piece: Piece, index: int) -> None:
    """Do one item, in which everything can happen."""
    number = len(story.worlds)
    story.seen.setdefault(piece.name, []).append((number, index))
    story.keys.setdefault((piece.name, index), set()).add(step.current.key)
    what = story.chance("item")
    if what == "error":
        raise ValueError
    if what in ("lost", "died"):
        raise Died
    if what == "stop":
        step.current.flag = True
    if what == "tick":  # the ticker's thread commits
        world = now()._world
        assert isinstance(world, World)
        world.keep()


def advance(story: Story, piece: Piece) -> Any:
    story.calls.setdefault(piece.name, []).append(len(story.worlds))
    for index in range(step.current.cursor or 0, piece.size):
        work(story, piece, index)
        if piece.kind == "set":
            step.current.set(index + 1)
        else:
            step.current.advance(index)
        if piece.every and not (index + 1) % piece.every:
            step.current.checkpoint()
    return piece.name if piece.kept else object()


def items(piece: Piece) -> Iterable[int]:
    made: dict[str, Callable[[Any], Any]] = {
        "list": list,
        "tuple": tuple,
        "generator": iter,
        "dict": dict.fromkeys,
        "range": lambda one: one,
    }
    return made[piece.kind](range(piece.size))  # type: ignore[no-any-return]


def loop(story: Story, piece: Piece) -> None:
    story.calls.setdefault(piece.name, []).append(len(story.worlds))
    for index in step.each(piece.name, items(piece), every=piece.every):
        if index == piece.leave_at and piece.leave == "break":
            break
        if index == piece.leave_at and piece.leave == "return":
            return
        if index == piece.leave_at and piece.leave == "caught":
            raise Left
        work(story, piece, index)


def body(story: Story) -> list[Any]:
    values = []
    for piece in story.program:
        if piece.kind in ("advance", "set"):
            values.append(step(piece.name, advance, story, piece))
            continue
        with contextlib.suppress(Left):
            loop(story, piece)
    return values


pieces = st.builds(
    Piece,
    name=st.just(""),
    kind=st.sampled_from(["advance", "set", "list", "tuple", "generator", "dict", "range"]),
    size=st.integers(0, 6),
    every=st.sampled_from([None, 1, 2]),
    leave=st.sampled_from(["", "", "break", "return", "caught"]),
    leave_at=st.integers(0, 5),
    kept=st.sampled_from([True, True, True, False]),
)
programs = st.lists(pieces, min_size=1, max_size=4).map(
    lambda some: [Piece(**{**vars(one), "name": f"s{number}"}) for number, one in enumerate(some)]
)
faults = st.lists(
    st.dictionaries(
        st.integers(1, 25), st.sampled_from(["stop", "error", "lost", "died", "tick"]), min_size=1, max_size=4
    ),
    max_size=MOST_ATTEMPTS - 1,
)


def lived_through(program: list[Piece], trouble: list[dict[int, str]]) -> Story:
    """Attempt after attempt until the body has run to its end."""
    story = Story(program, trouble)
    world: World | None = None
    for _ in range(MOST_ATTEMPTS):
        story.clock = 0
        chancy = type("ThisWorld", (Chancy,), {"story": story})
        world = attempt(lambda: body(story), world, kind=chancy)
        story.worlds.append(world)
        if world.error is None:
            return story
        assert isinstance(world.error, (Interrupt, Died, ValueError)), world.error
    raise AssertionError("the run never ends")


@settings(max_examples=250, deadline=None)
@given(programs, faults)
def test_no_item_is_lost_and_each_step_ends_once(program: list[Piece], trouble: list[dict[int, str]]) -> None:
    """With stops, errors, deaths and lost commits at any moment, and a new process after each."""
    story = lived_through(program, trouble)
    check_order(story)
    for piece in program:
        check_items(story, piece)
        check_calls(story, piece)
    last = [one.name for one in program if one.kind in ("advance", "set")]
    values = [value if isinstance(value, str) else None for value in story.worlds[-1].value]
    assert values == [name if piece_of(program, name).kept else None for name in last]


def piece_of(program: list[Piece], name: str) -> Piece:
    return next(piece for piece in program if piece.name == name)


def check_order(story: Story) -> None:
    """Ended steps are stored in the program's order, and what is durable stays so."""
    names = [piece.name for piece in story.program]
    before: list[str] = []
    for world in story.worlds:
        assert world.steps == names[: len(world.steps)] and len(world.steps) >= len(before)
        before = world.steps
        if world.progress.step and not isinstance(world.error, Died):
            assert world.progress.step == names[len(world.steps)]
    assert before == names


def done_before(story: Story, piece: Piece, number: int) -> int:
    """How many items of a piece are durable when an attempt begins."""
    if not number:
        return 0
    progress = story.worlds[number - 1].progress
    if progress.step != piece.name:
        return 0
    return progress.done if piece.kind not in ("advance", "set") else progress.cursor.value or 0


def check_items(story: Story, piece: Piece) -> None:
    """All items are done, in order; an attempt begins with the first that is not durable: no other is repeated."""
    seen = story.seen.get(piece.name, [])
    is_loop = piece.kind not in ("advance", "set")
    count = min(piece.size, piece.leave_at) if piece.leave and is_loop else piece.size
    assert {index for _, index in seen} == set(range(count))
    for number in {number for number, _ in seen}:
        mine = [index for other, index in seen if other == number]
        assert mine == list(range(done_before(story, piece, number), mine[-1] + 1))
    for index in range(count):
        assert len(story.keys[piece.name, index]) == 1


def check_calls(story: Story, piece: Piece) -> None:
    """A step that is durable is not begun again, unless its value could not be kept."""
    is_loop = piece.kind not in ("advance", "set")
    for number, world in enumerate(story.worlds[:-1]):
        if piece.name in world.steps and not is_loop:
            again = [called for called in story.calls[piece.name] if called > number]
            assert not again if piece.kept else len(again) <= len(story.worlds) - number - 1
        if piece.name in world.steps and is_loop:
            assert not [one for one in story.seen.get(piece.name, []) if one[0] > number]


@settings(max_examples=100, deadline=None)
@given(programs, st.permutations(range(6)), st.integers(0, 4))
def test_other_steps_than_stored_pause_and_change_nothing(program: list[Piece], order: list[int], ended: int) -> None:
    """Where the order differs, no step runs that must not, and the durable progress stays as it was."""
    stored = lived_through(program, []).worlds[-1].progress
    stored = stored._replace(ended=stored.ended[:ended])
    changed = [program[number] for number in order if number < len(program)]
    names = [piece.name for piece in changed]
    story = Story(changed, [])
    world = attempt(lambda: body(story), stored, kind=type("ThisWorld", (Chancy,), {"story": story}))
    expected = [saved.name for saved in stored.ended]
    if names[: len(expected)] == expected:
        assert world.error is None and world.steps == names
    else:
        assert isinstance(world.error, StepsChanged) and world.error.stored == tuple(expected)
        assert world.progress == stored


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=5), st.lists(st.sampled_from("abc"), max_size=3, unique=True))
def test_a_body_is_accepted_or_refused_by_the_five_checks_alone(met: list[str], ended: list[str]) -> None:
    """A plain model of the checks gives the same verdict for any sequence of names."""
    stored = attempt(lambda: None)
    stored.progress = stored.progress._replace(ended=tuple(Saved(name, "null") for name in ended))
    world = attempt(lambda: [step(name, str) for name in met], stored)
    assert type(world.error) is verdict(met, ended)


def verdict(met: list[str], ended: list[str]) -> type[BaseException]:
    for position, name in enumerate(met):
        if name in met[:position]:
            return InvalidStepError
        if position < len(ended) and ended[position] != name:
            return StepsChanged
    return type(None)  # type: ignore[return-value]
