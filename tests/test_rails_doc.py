"""The page on Rails: each rule has a row with a test that exists, and a word on the difference."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "rails.md"
HEAD = ["rule", "test", "as in Rails?"]


class Row(NamedTuple):
    section: str
    rule: str
    test: str
    verdict: str


def rows() -> list[Row]:
    found, section = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            section = line.strip("# ")
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 3, line
            if cells != HEAD and set(cells[0]) != {"-"}:
                found.append(Row(section, *cells))
    return found


ROWS = rows()
FILES = sorted({row.test.strip("`").partition("::")[0] for row in ROWS if row.test != "–"})


@cache
def functions_of(name: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse((TESTS / name).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return {node.name: node for node in functions if node.name.startswith("test_")}


@pytest.mark.parametrize("name", FILES)
def test_each_named_test_exists_and_is_not_skipped(name: str) -> None:
    """Then it passes, since it is of this suite; none is a test of the page."""
    assert name != Path(__file__).name
    named = {row.test.strip("`").partition("::")[2] for row in ROWS if row.test.strip("`").startswith(f"{name}::")}
    assert named - set(functions_of(name)) == set()
    marks = {test: [ast.unparse(mark) for mark in functions_of(name)[test].decorator_list] for test in named}
    assert [test for test, given in marks.items() if re.search(r"skip|xfail", " ".join(given))] == []


def test_each_rule_has_a_row_of_its_own() -> None:
    """No rule stands twice in a section, and each of the three parts has its rules."""
    assert len({(row.section, row.rule) for row in ROWS}) == len(ROWS) > 150
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"\n## {part}." in text for part in (1, 2, 3))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule[:50])
def test_a_row_says_what_is_different_and_why(row: Row) -> None:
    """Same, different or added with a reason; without a test only what has no counterpart here."""
    assert re.match(r"(same|like main|like 8\.1|different|added|no counterpart)\b", row.verdict), row
    assert row.verdict.startswith("no counterpart: ") is (row.test == "–"), row
    if re.match("different|added", row.verdict):
        assert len(row.verdict.split()) > 2, row
    else:
        assert row.test == "–" or re.fullmatch(r"`test_\w+\.py::test_\w+`", row.test), row
