"""Each row of docs/reliability.md is true."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
from input_case import Case, collect_cases

from convexadam import ConvexAdamError

CASES = collect_cases()


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}: {case.given}" for case in CASES])
def test_what_comes_of_an_input(case: Case, tmp_path: Path) -> None:
    for package in case.needs:
        pytest.importorskip(package)
    message = re.escape(case.says)
    if case.outcome == "error":
        with warnings.catch_warnings(), pytest.raises(ConvexAdamError, match=message):
            warnings.simplefilter("ignore")
            case.run(tmp_path)
    elif case.outcome == "warning":
        with pytest.warns(UserWarning, match=message):
            case.run(tmp_path)
    else:
        case.run(tmp_path)


def test_rows_differ() -> None:
    rows = [(case.kind, case.given) for case in CASES]
    assert len(set(rows)) == len(rows)
