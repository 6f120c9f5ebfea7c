"""The benchmark of the verdict: its truth, its counts, and a run on small phantoms."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convexadam import preset
from convexadam.report import QualityMeasures

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = ("harness", "verdict", "verdict_cases")


@pytest.fixture(scope="module")
def verdict() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        before = {name: sys.modules.pop(name, None) for name in MODULES}
        import verdict  # type: ignore[import-not-found]

        yield verdict
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def row(verdict: Any, **values: str) -> dict[str, str]:
    return {**dict.fromkeys(verdict.COLUMNS, ""), "set": "judged", "group": "g", "spoiling": "none", **values}


def test_truth(verdict: Any) -> None:
    good = [row(verdict, pair=str(n), dice=f"0.{n}", tre_mm=f"{n}") for n in (6, 7, 8)]
    spoiled = {
        "dice below 0.8 times the median": row(verdict, spoiling="x", dice="0.55"),
        "landmarks beyond twice the median and 2 mm": row(verdict, spoiling="x", tre_mm="16.5"),
        "another organ": row(verdict, spoiling="other organ"),
        "an error": row(verdict, spoiling="x", error="no overlap"),
    }
    recovered = row(verdict, spoiling="x", dice="0.57", tre_mm="15.5")
    other_group = row(verdict, group="h", dice="0.1")
    rows = [*good, *spoiled.values(), recovered, other_group]
    for name, failed in spoiled.items():
        assert verdict.has_failed(failed, rows), name
    assert not any(verdict.has_failed(r, rows) for r in (*good, recovered, other_group))


def test_rates(verdict: Any, measures: QualityMeasures) -> None:
    def measured(spoiling: str, dice: str, matched: float, number: int, gain: float = -0.1) -> dict[str, str]:
        changed = dataclasses.replace(measures, matched_percent=matched, mirror_gain=gain).to_dict()
        values = {name: "" if value is None else repr(value) for name, value in changed.items()}
        return row(verdict, pair=str(number), spoiling=spoiling, dice=dice, **values)

    rows = [measured("none", "0.8", 80 + n / 10, n) for n in range(9)]
    rows += [measured("none", "0.8", 20, 9), measured("a", "0.1", 10, 0), measured("a", "0.1", 79, 1, gain=0.1)]
    rows += [measured("a", "0.79", 60, 2)]
    roc = {r["judged"]: r for r in verdict.make_roc(rows) if r["set"] == "judged" and r["limit"] == "1"}
    assert {mode: r["flagged_percent"] for mode, r in roc.items()} == {
        "alone": "100.0",
        "in a cohort": "100.0",
        "without mirror": "50.0",
    }
    assert {r["false_alarms_percent"] for r in roc.values()} == {"10.0"}
    assert roc["alone"]["recovered_flagged_percent"] == "0.0"
    assert roc["in a cohort"]["recovered_flagged_percent"] == "100.0"
    kinds = {r["spoiling"]: r for r in verdict.count_kinds(rows) if r["set"] == "judged"}
    assert (kinds["a"]["pairs"], kinds["a"]["failed"]) == ("3", "2")
    assert kinds["a"]["without_mirror_failed_flagged"] == "1"
    assert (kinds["none"]["failed"], kinds["none"]["alone_others_flagged"]) == ("0", "1")


def test_spoiled_pairs_carry_their_truth(verdict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = sys.modules["verdict_cases"]
    monkeypatch.setattr(cases, "PHANTOM_SHAPE", (24, 20, 18))
    pairs = {pair.spoiling: pair for pair in cases.spoil(cases._make_phantom(1), other=cases._make_phantom(2))}
    good = pairs["none"]
    for pair in pairs.values():
        if pair.points is None:
            continue
        # the label of the moving image at its landmarks is that of the good pair, wherever they have gone
        where = [
            image.grid.world_to_index(p.points[1]).round().long()
            for image, p in ((g.labels[1], g) for g in (good, pair))
        ]
        inside = [
            ((index >= 0) & (index < torch.tensor(p.labels[1].grid.shape))).all(1)
            for index, p in zip(where, (good, pair), strict=True)
        ]
        both = inside[0] & inside[1]
        assert int(both.sum()) >= 3
        labels = [p.labels[1].data[0][tuple(index[both].T)] for index, p in zip(where, (good, pair), strict=True)]
        assert torch.equal(*labels), pair.spoiling
    assert pairs["half the field of view"].moving.grid.shape == (24, 20, 9)
    assert np.allclose(pairs["shift beyond reach"].moving.grid.affine[1, 3] - good.moving.grid.affine[1, 3], 0.4 * 300)


def test_a_pair_is_measured(verdict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = sys.modules["verdict_cases"]
    monkeypatch.setattr(cases, "PHANTOM_SHAPE", (24, 20, 18))
    quick = preset().with_settings("continuous.levels=[{type='Level', spacing=2, iterations=2}]")
    pair = dataclasses.replace(cases._make_phantom(1), config=quick)
    found = verdict.measure(pair, "judged")
    assert 0 < float(found["dice"]) <= 1
    assert float(found["tre_mm"]) < 30
    assert float(found["mirror_gain"]) < 0
    assert verdict.measure(dataclasses.replace(pair, moving=pair.moving), "judged")["error"] == ""


def test_what_the_page_on_quality_says_is_in_the_results() -> None:
    with (BENCHMARKS / "results" / "verdict.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["judged"]: row for row in csv.DictReader(file) if (row["set"], row["limit"]) == ("judged", "1")}
    text = (BENCHMARKS.parent / "docs" / "quality.md").read_text(encoding="utf-8")
    alone, without = rows["alone"], rows["without mirror"]
    for row, found in ((alone, "182 of 183 failures (99.5 %)"), (without, "164 failures (89.6 %)")):
        assert f"({row['flagged_percent']} %)" in found
        assert found in text
    assert f"one of {alone['good']} good pairs ({alone['false_alarms_percent']} %)" in text
    assert float(without["false_alarms_percent"]) == 0
