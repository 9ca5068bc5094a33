"""The benchmarks still measure: each gives its figures, in few rounds. How good these are is for `make bench`."""

from __future__ import annotations

import pytest

from benchmarks.run import SUBJECTS, measured, table

IN_A_BROWSER = {"dom"}


@pytest.mark.parametrize("subject", [name for name in SUBJECTS if name not in IN_A_BROWSER])
def test_subject_gives_its_figures(subject: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A subject that broke says why and has no figures."""
    figures = measured(subject, quick=True)
    assert figures, capfd.readouterr().err
    shown = table(figures)
    assert [figure["what"] for figure in figures if figure["what"] not in shown] == []
    for figure in figures:
        if figure["peer"]:
            ratio = figure["figure"] / figure["peer_figure"]
            assert figure["ratio"] == pytest.approx(ratio, rel=0.01, abs=0.001), figure["name"]
