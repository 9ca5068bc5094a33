"""Whom a sweeper asks, and whom it need not ask."""

from __future__ import annotations

from nbjobs.agenda import SOON, Agenda

NOW = 5_000_000.0


def agenda(*idle: str) -> Agenda:
    """One that knows that nothing of these users is due."""
    found = Agenda()
    for _ in range(2):
        found.signed((u, 1.0) for u in idle)
        for u in found.turn(NOW, 0):
            found.learn(u, float("inf"))
    return found


def test_a_new_sweeper_asks_everybody() -> None:
    """It knows of nobody."""
    found = Agenda()
    found.signed([("a", 1.0), ("b", 2.0)])
    assert sorted(found.turn(NOW, 5)) == ["a", "b"]


def test_an_idle_user_is_asked_once_a_minute() -> None:
    """Twelve sweeps in a minute ask each of a thousand once."""
    users = [f"u{i}" for i in range(1000)]
    found, asked = agenda(*users), []
    for _ in range(12):
        found.signed((u, 1.0) for u in users)
        turn = found.turn(NOW, 5)
        assert len(turn) <= 84
        asked += turn
    assert sorted(asked) == sorted(users)


def test_a_sign_is_asked_about_twice() -> None:
    """It goes before what it announces, so the first look may come between the two; its time does not matter."""
    found = agenda("a", "b")
    for expected in (["a"], ["a"], []):
        found.signed([("a", 0.5), ("b", 1.0)])
        assert found.turn(NOW, 0) == expected
        for u in expected:
            found.learn(u, float("inf"))


def test_a_user_is_busy_while_something_is_due_soon() -> None:
    """Whose next run is far ahead is asked when its time has come; the first of all is known."""
    found = agenda("a", "b", "c")
    found.learn("a", NOW + SOON + 1)
    found.learn("b", NOW + SOON - 1)
    assert found.turn(NOW, 0) == ["b"]
    assert found.due(NOW) == []
    assert found.first() == NOW + SOON - 1
    assert found.due(NOW + SOON) == ["b"]


def test_a_user_who_has_left_is_forgotten() -> None:
    """Nothing of that user is due any more."""
    found = agenda("a", "b")
    found.learn("a", NOW)
    found.signed([("b", 1.0)])
    assert found.turn(NOW, 60) == ["b"]
    assert found.users == ["b"]
    assert not found.knows("a")
