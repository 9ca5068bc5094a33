"""Whom a sweeper asks, and whom it need not ask."""

from __future__ import annotations

from collections.abc import Iterable

from nbjobs.agenda import SOON, Agenda

NOW = 5_000_000.0


INF = float("inf")


def agenda(*idle: str) -> Agenda:
    """One that knows that nothing of these users is due."""
    found = Agenda()
    for _ in range(2):
        sweep(found, idle)
    return found


def sweep(found: Agenda, users: Iterable[str], seconds: float = 0, **signs: float) -> list[str]:
    """Let a sweep ask whoever is to be asked, who have nothing due; return them."""
    found.signed((u, signs.get(u, 1.0)) for u in users)
    found.sweep(NOW, seconds)
    asked = found.turn(NOW)
    for u in asked:
        found.learn(u, INF)
    assert found.turn(NOW) == []
    return asked


def test_a_new_sweeper_asks_everybody() -> None:
    """It knows of nobody."""
    assert sweep(Agenda(), "ab", 5) == ["a", "b"]


def test_an_idle_user_is_asked_once_a_minute() -> None:
    """Twelve sweeps in a minute ask each of a thousand once."""
    users = [f"u{i}" for i in range(1000)]
    found, asked = agenda(*users), []
    for _ in range(12):
        turn = sweep(found, users, 5)
        assert len(turn) <= 84
        asked += turn
    assert sorted(asked) == sorted(users)


def test_a_sign_is_asked_about_twice() -> None:
    """It goes before what it announces, so the first look may come between the two; its time does not matter."""
    found = agenda("a", "b")
    assert [sweep(found, "ab", a=0.5) for _ in range(3)] == [["a"], ["a"], []]


def test_a_user_is_busy_while_something_is_due_soon() -> None:
    """Whose next run is far ahead is asked when its time has come; the first of all is known."""
    found = agenda("a", "b", "c")
    found.learn("a", NOW + SOON + 1)
    found.learn("b", NOW + SOON - 1)
    assert found.turn(NOW) == []
    assert found.first() == NOW + SOON - 1
    assert found.turn(NOW + SOON) == ["b"]
    assert sweep(found, "abc") == ["b"]
    assert found.first() == NOW + SOON + 1


def test_what_is_due_comes_before_what_nobody_knows() -> None:
    """A run begins on time though thousands of new users are to be asked."""
    found = agenda("a")
    found.signed([*((f"u{i}", 1.0) for i in range(1000)), ("a", 1.0)])
    found.learn("a", NOW)
    assert found.turn(NOW - 1)[0] == "u0"
    assert found.turn(NOW)[:2] == ["a", "u0"]
    found.signed([*((f"u{i}", 1.0) for i in range(1000)), ("b", 1.0)])
    assert found.turn(NOW)[0] == "b"
    assert found.first() == 0


def test_a_user_who_has_left_is_forgotten() -> None:
    """Nothing of that user is due any more."""
    found = agenda("a", "b")
    found.learn("a", NOW)
    assert sweep(found, "b", 60) == ["b"]
    assert found.users == ["b"]
    assert not found.knows("a")
