"""A run goes through attempts, trouble and deploys in any order: no step that ended runs again, no item is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nbjobs.errors import Interrupt, StepsChanged

from .test_continuation_properties import Chancy, Piece, Story, body, done_before
from .worlds import NOTHING, Died, World, attempt

KINDS = st.sampled_from(["advance", "set", "list", "generator", "range"])
TROUBLE = st.dictionaries(
    st.integers(1, 12), st.sampled_from(["stop", "error", "lost", "died", "tick"]), min_size=1, max_size=3
)


class Runs(RuleBasedStateMachine):
    """One run at a time; its code is changed between two attempts, and put back."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.story = Story([], [])

    @initialize(pieces=st.lists(st.tuples(KINDS, st.integers(1, 6)), min_size=2, max_size=4))
    def write(self, pieces: list[tuple[str, int]]) -> None:
        """The job as it is at first."""
        self.story.program.extend(self.piece(*piece) for piece in pieces)

    @precondition(lambda self: self.is_over)
    @rule()
    def begin(self) -> None:
        """A new run of the code as it is now."""
        self.story = Story(list(self.story.program), [])

    @property
    def world(self) -> World | None:
        return self.story.worlds[-1] if self.story.worlds else None

    @property
    def is_over(self) -> bool:
        return self.world is not None and self.world.error is None

    @property
    def progress(self) -> Any:
        return self.world.progress if self.world is not None else NOTHING

    # -- deploys -----------------------------------------------------------------------------------------------------

    def piece(self, kind: str, size: int) -> Piece:
        self.count += 1
        return Piece(f"s{self.count}", kind, size, every=None, leave="", leave_at=0, kept=True)

    @rule(kind=KINDS, size=st.integers(0, 5))
    def append(self, kind: str, size: int) -> None:
        """A step at the end."""
        if len(self.story.program) < 5:
            self.story.program.append(self.piece(kind, size))

    @precondition(lambda self: self.story.program)
    @rule(place=st.integers(0, 4), kind=KINDS, size=st.integers(0, 5), deploy=st.sampled_from("irdx"))
    def change(self, place: int, kind: str, size: int, deploy: str) -> None:
        """A step inserted, replaced, removed, or in another place; an attempt with it; and mostly put back."""
        before = list(self.story.program)
        place %= len(before)
        if deploy == "i":
            self.story.program.insert(place, self.piece(kind, size))
        elif deploy == "r":
            self.story.program[place] = self.piece(kind, size)
        elif deploy == "d":
            del self.story.program[place]
        else:
            self.story.program.append(self.story.program.pop(place))
        if not self.is_over and not self.fits():
            self.live({})
            self.story.program[:] = before

    @precondition(lambda self: self.story.program)
    @rule(place=st.integers(0, 4), more=st.integers(1, 3))
    def grow(self, place: int, more: int) -> None:
        """A loop has more items than before."""
        place %= len(self.story.program)
        piece = self.story.program[place]
        self.story.program[place] = Piece(**{**vars(piece), "size": piece.size + more})

    # -- attempts ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.is_over)
    @rule(trouble=TROUBLE)
    def live(self, trouble: dict[int, str]) -> None:
        """An attempt, in which things go wrong."""
        story, before = self.story, self.progress
        fits, counts = self.fits(), {name: len(seen) for name, seen in story.seen.items()}
        story.clock = 0
        story.faults.append(trouble)
        world = attempt(lambda: body(story), before, kind=type("ThisWorld", (Chancy,), {"story": story}))
        story.worlds.append(world)
        event(f"an attempt ends with {type(world.error).__name__}")
        if not fits:
            assert isinstance(world.error, StepsChanged), world.error
            assert world.progress == before
            assert {name: len(seen) for name, seen in story.seen.items()} == counts
            return
        assert world.error is None or isinstance(world.error, (Interrupt, Died, ValueError)), world.error
        self.check(before, world)

    @precondition(lambda self: not self.is_over)
    @rule()
    def live_well(self) -> None:
        """An attempt in which nothing goes wrong."""
        self.live({})

    def fits(self) -> bool:
        """Whether the code's steps are those that are stored, in their order; they may end earlier."""
        names = [piece.name for piece in self.story.program]
        ended = [saved.name for saved in self.progress.ended]
        if names[: len(ended)] != ended[: len(names)]:
            return False
        step = self.progress.step
        return not step or len(names) <= len(ended) or names[len(ended)] == step

    def check(self, before: Any, world: World) -> None:
        number = len(self.story.worlds) - 1
        ended = [saved.name for saved in before.ended]
        assert world.steps[: len(ended)] == ended
        for piece in self.story.program:
            mine = [index for at, index in self.story.seen.get(piece.name, []) if at == number]
            if piece.name in ended:
                assert mine == [], f"{piece} had ended"
            elif mine:
                first = done_before(self.story, piece, number)
                assert mine == list(range(first, mine[-1] + 1)), "items in order, from the first that is not durable"
            if piece.name in world.steps and piece.name not in ended:
                done = {index for _, index in self.story.seen.get(piece.name, [])}
                assert done == set(range(piece.size)), f"{piece} has ended"

    @invariant()
    def what_is_under_way_was_done_up_to_its_cursor(self) -> None:
        """No item counts as done that was not."""
        for piece in self.story.program:
            done = done_before(self.story, piece, len(self.story.worlds))
            seen = {index for _, index in self.story.seen.get(piece.name, [])}
            assert set(range(done)) <= seen


Runs.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
test_a_run_survives_all_that_happens_to_it = Runs.TestCase
