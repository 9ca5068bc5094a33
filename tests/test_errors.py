from __future__ import annotations

import inspect
import pickle

import pytest

from nbjobs import errors
from nbjobs.errors import Fenced, Interrupt, NbjobsError

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if found.__module__ == errors.__name__ and issubclass(found, BaseException)
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_but_interrupts_has_the_one_base(cls: type[BaseException]) -> None:
    """`except NbjobsError` catches all errors of nbjobs, and no request to stop."""
    assert issubclass(cls, NbjobsError) != issubclass(cls, Interrupt)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_tree_in_the_docstring_is_complete(cls: type[BaseException]) -> None:
    """The module's docstring names every exception."""
    assert cls.__name__ in (errors.__doc__ or "")


def test_interrupts_pass_through_except_exception() -> None:
    """A body that catches Exception does not swallow an interrupt."""
    with pytest.raises(Interrupt):
        try:
            raise Fenced
        except Exception:
            pytest.fail("swallowed")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_errors_survive_a_process_boundary(cls: type[BaseException]) -> None:
    """An error that is pickled, as process pools do, keeps its message and its attributes."""
    error = cls("what happened")
    vars(error).update(run="r1") if isinstance(error, errors.RunError) else None
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (cls, str(error), vars(error))


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.NotData, TypeError),
        (errors.TooLarge, ValueError),
        (errors.BadData, ValueError),
        (errors.SettingsError, ValueError),
        (errors.CursorError, ValueError),
    ],
)
def test_errors_about_values_are_builtin_ones_too(cls: type[Exception], builtin: type[Exception]) -> None:
    """Code that knows nothing of nbjobs can catch a wrong value as Python's own error."""
    assert issubclass(cls, builtin)


def test_errors_carry_their_evidence() -> None:
    """What a message says is there as attributes too."""
    failed = errors.RunFailed("failed", run="r1", type="KeyError", error="'x'", traceback="Traceback…")
    assert (failed.run, failed.type, failed.message, failed.traceback) == ("r1", "KeyError", "'x'", "Traceback…")
    large = errors.TooLarge("big", what="args", size=9, limit=8)
    assert (large.what, large.size, large.limit) == ("args", 9, 8)
    changed = errors.StepsChanged("changed", stored=["a"], found=["b"])
    assert (changed.stored, changed.found) == (("a",), ("b",))
    assert errors.ResultNotKept("no", run="r1", reason="too large").reason == "too large"
    assert (Interrupt("paused", "by ada").reason, Interrupt("paused", "by ada").description) == ("paused", "by ada")
