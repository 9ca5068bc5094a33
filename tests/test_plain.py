from __future__ import annotations

import dataclasses
import enum
import json
import math
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbjobs.plain import MASK, clean_text, json_safe, masked, masked_url, preview, safe_repr

from .test_codec import DATA
from .test_keys import ANY_CHARACTER


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class EndlessList(list):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return iter(int, 1)


class Number(int):
    pass


class Real(float):
    pass


@dataclasses.dataclass(repr=False)
class Broken(Hostile):
    field: int = 1

    def __getattribute__(self, name: str) -> Any:
        if name == "field":
            raise RuntimeError("no")
        return super().__getattribute__(name)


class LyingText(str):
    def __str__(self) -> str:
        raise RuntimeError("no")


@dataclasses.dataclass
class Login:
    user: str
    password: str


class Wire(msgspec.Struct):
    token: str
    size: int


class Mode(enum.Enum):
    FAST = "fast"


def strict_json(value: Any) -> Any:
    """Parse as a browser does: no NaN, no lone surrogate, no integer that would be rounded."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode("utf-8")
    return json.loads(text)


@given(DATA)
@pytest.mark.fault(36)
def test_everything_becomes_json(value: Any) -> None:
    """Any data is shown as JSON that every parser takes."""
    strict_json(json_safe(value))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, None),
        (-math.inf, None),
        ("\ud800x", "\ufffdx"),
        ("\0", "\0"),
        (2**70, str(2**70)),
        (2**53, 2**53),
        (b"\xff", "b'\\xff'"),
        (Decimal("1.10"), "1.10"),
        (datetime(2026, 1, 1, tzinfo=timezone.utc), "2026-01-01T00:00:00+00:00"),
        (timedelta(1), "1 day, 0:00:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("a/b"), "a/b"),
        ({3}, [3]),
        ((1, [2]), [1, [2]]),
        ({1: "a", None: "b", (1, 2): "c"}, {"1": "a", "None": "b", "(1, 2)": "c"}),
        (Mode.FAST, "fast"),
        (LyingText("x"), "x"),
        (Number(2**60), str(2**60)),
        (Real(1.5), 1.5),
        (Broken(), "<Broken, its repr raised RuntimeError>"),
        (EndlessList([1]), [1]),
        (Hostile(), "<Hostile, its repr raised RuntimeError>"),
        ([Hostile()], ["<Hostile, its repr raised RuntimeError>"]),
        ({Hostile(): 1}, {"<Hostile, its repr raised RuntimeError>": 1}),
        (Login("ada", "x"), {"user": "ada", "password": "x"}),
        (Wire("t", 1), {"token": "t", "size": 1}),
    ],
    ids=lambda value: None,
)
def test_values_that_json_has_not_are_shown(value: Any, shown: Any) -> None:
    """Bad and foreign values never raise and become what can be shown of them."""
    assert strict_json(json_safe(value)) == shown


def test_integers_beyond_what_python_prints_are_shown() -> None:
    """An integer of 10,000 digits is shown as hex, cut."""
    assert json_safe(10**10000).startswith("0x")


def test_numbers_that_json_has_not_are_noted() -> None:
    """Where NaN or infinity became null, the note says which it was."""
    notes: dict[str, str] = {}
    json_safe({"loss": math.nan, "by": [1, {"x": -math.inf}]}, notes=notes)
    assert notes == {"loss": "nan", "by.1.x": "-inf"}


def test_cycles_are_cut() -> None:
    """A value that contains itself is shown once; one that only stands twice is shown twice."""
    rows: list[Any] = [1]
    rows.append(rows)
    assert json_safe(rows) == [1, "<list that contains itself>"]
    twice = [1]
    assert json_safe([twice, twice]) == [[1], [1]]


def test_depth_keys_and_items_are_bounded() -> None:
    """What is cut leaves a mark with its number."""
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    assert "nested too deep" in str(json_safe(deep))
    assert json_safe({str(k): k for k in range(300)})["…"] == "+44 keys"
    assert json_safe(list(range(2000)))[-1] == "…(+976 items)"
    assert json_safe("x" * 20000).endswith("…(+3,616 characters)")


def test_values_that_multiply_are_bounded() -> None:
    """A few lists that hold each other many times do not grow without bound."""
    bomb: Any = ["x"] * 100
    for _ in range(10):
        bomb = [bomb] * 100
    assert len(str(json_safe(bomb))) < 1_000_000


def test_secrets_are_hidden_at_any_depth() -> None:
    """Keys that the filter hides show a mask, in dicts, dataclasses and Structs."""
    value = {"a": [Login("ada", "x"), Wire("t", 1)], "password": [1, 2]}
    assert json_safe(value, hides=lambda key: key in ("password", "token")) == {
        "a": [{"user": "ada", "password": MASK}, {"token": MASK, "size": 1}],
        "password": MASK,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password: hunter2, user=ada", "password: [FILTERED], user=ada"),
        ("ValueError: token = abc; n: 1", "ValueError: token = [FILTERED]; n: 1"),
        ("{'my_token': 'a b', \"n\": 1}", "{'my_token': [FILTERED], \"n\": 1}"),
        ("<Vault password='x' token=\"a: b, token=c\">", "<Vault password=[FILTERED] token=[FILTERED]>"),
        ("<Vault password='cut off…", "<Vault password=[FILTERED]"),
        ("no redis://:p@ss@host/0 and https://a/b?c=d", "no redis://:[FILTERED]@host/0 and https://a/b?c=d"),
        ("    login(password=pw, token='x')", "    login(password=pw, token=[FILTERED])"),
        ("token=[FILTERED] password='[FILTERED]'", "token=[FILTERED] password='[FILTERED]'"),
        ("token", "token"),
    ],
)
def test_secrets_in_texts_are_hidden_where_they_can_be_told(text: str, shown: str) -> None:
    """Values of names that are hidden, and passwords of URLs; of source code only literals."""
    assert masked(text, lambda name: "token" in name or "password" in name) == shown


@given(st.text(ANY_CHARACTER))
def test_any_text_can_be_masked(text: str) -> None:
    """It stays a text, and masked once it is masked."""
    once = masked(text, lambda name: True)
    assert masked(once, lambda name: True) == once


@given(st.text(ANY_CHARACTER))
def test_clean_text_has_nothing_that_disturbs_a_display(text: str) -> None:
    """No control characters but line end and tab, no bidi controls, no lone surrogates; twice is once."""
    clean = clean_text(text)
    clean.encode("utf-8")
    assert not [c for c in clean if (c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f" or c in "\u202e\u2066"]
    assert clean_text(clean) == clean


def test_clean_text_keeps_what_is_readable() -> None:
    """Letters of all scripts, joined emoji, tabs and line ends stay; all line ends are one."""
    assert clean_text("Zürich\t日本 👩‍🔬\r\nx\ry\u2028z") == "Zürich\t日本 👩‍🔬\nx\ny\nz"
    assert clean_text("\x1b[31mred\u202e") == "[31mred"


@given(DATA, st.integers(10, 300))
def test_previews_are_one_short_line(value: Any, width: int) -> None:
    """A preview never raises, has one line and at most its width."""
    text = preview(value, width)
    assert len(text) <= width
    assert "\n" not in text
    text.encode("utf-8")


def test_previews_survive_hostile_objects() -> None:
    """An object whose repr fails still has a preview."""
    assert "Hostile" in preview(Hostile())
    assert "Hostile" in preview([Hostile()])
    assert safe_repr(Hostile()) == "<Hostile, its repr raised RuntimeError>"
    assert preview(10**10000)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:hunter2@db", "redis://:***@db"),
        ("rediss://ada:hunter2@db:1/2", "rediss://ada:***@db:1/2"),
        ("redis://hunter2@db", "redis://***@db"),
        ("redis://a:hun@ter2@db", "redis://a:***@db"),
        ("unix://a:hunter2@/tmp/x.sock?db=1", "unix://a:***@/tmp/x.sock?db=1"),
        ("unix:///tmp/x.sock?password=hunter2&db=1", "unix:///tmp/x.sock?password=***&db=1"),
        ("redis://db?username=hunter2", "redis://db?username=***"),
        ("hunter2", "***"),
        ("redis://:hunter2/x?y@db", "redis://***"),
        ("redis://db?password=x@hunter2", "redis://***"),
        ("redis://:hunter2#1@db", "redis://:***@db"),
        ("db.example:6379/1", "db.example:6379/1"),
        ("ada:hunter2", "***"),
        ("ada:hunter2@db:6379", "***"),
        ("redis+sentinel://ada:hunter2@a:1,b:2/main/0", "redis+sentinel://ada:***@a:1,b:2/main/0"),
        ("redis+sentinel://a/main?sentinel_password=hunter2", "redis+sentinel://a/main?sentinel_password=***"),
    ],
)
def test_urls_are_shown_without_their_secrets(url: str, masked: str) -> None:
    """Neither a password nor a user that may be one is in the text."""
    assert masked_url(url) == masked
    assert "hunter2" not in masked_url(url)
