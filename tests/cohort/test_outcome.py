"""How the outcome of a pair describes itself."""

from __future__ import annotations

from pathlib import Path

from convexadam.cohort import CohortOutcome
from convexadam.io import PairFiles
from convexadam.report import Verdict

PAIR = PairFiles(id="sub-<1>", fixed=Path("fixed.nii.gz"), moving=Path("moving.nii.gz"))


def test_a_pair_that_was_registered() -> None:
    outcome = CohortOutcome(
        pair=PAIR,
        status="done",
        folder=Path("out"),
        seconds=1.234,
        scores={"dice": 0.81, "dice_before": 0.6, "n_labels": 4},
        verdict=Verdict(grade="look", reasons=("few matched points",)),
    )
    assert repr(outcome) == (
        "CohortOutcome('sub-<1>', status: done, verdict: look; few matched points, Dice: 0.81, Dice before: 0.6, "
        "time: 1.23 s)"
    )
    html = outcome._repr_html_()
    assert "Pair sub-&lt;1&gt;" in html
    for text in ("look; few matched points", "0.81", "1.23 s", "out"):
        assert text in html


def test_a_pair_that_failed() -> None:
    outcome = CohortOutcome(pair=PAIR, status="failed", folder=Path("out"), error="FileError: cut", warnings=("a", "b"))
    assert repr(outcome) == "CohortOutcome('sub-<1>', status: failed, error: FileError: cut, warnings: 2)"
    assert "FileError: cut" in outcome._repr_html_()
