"""Verdicts from measures that are made up."""

from __future__ import annotations

import dataclasses
import math

import pytest

from convexadam.report import QualityMeasures, judge_quality
from convexadam.report.verdict import CRITERIA, Criterion, judge_cohort
from convexadam.report.wording import WORDINGS

GOOD = QualityMeasures.from_dict(
    {
        "similarity_before": 0.5,
        "similarity_after": 0.9,
        "similarity_shuffled": 0.15,
        "matched_percent": 80,
        "residual_mm": 1,
        "overlap_percent": 99,
        "inverse_consistency_mm": 0.2,
        "folded_percent": 0,
        "jacobian_low": 0.7,
        "jacobian_high": 1.4,
        "sdlogj": 0.03,
        "rotation_degrees": 3,
        "translation_mm": 20,
        "volume_ratio": 1,
        "deformation_mm": 4,
        "boundary_percent": 0,
        "mirror_gain": -0.05,
    }
)


def change(**values: float) -> QualityMeasures:
    return dataclasses.replace(GOOD, **values)


def test_a_good_registration() -> None:
    verdict = judge_quality(GOOD)
    assert verdict.grade == "ok"
    assert verdict.reasons == ()
    assert 0 <= verdict.score < 1


@pytest.mark.parametrize("criterion", [c for c in CRITERIA if math.isfinite(c.limit)], ids=lambda c: c.measure)
def test_each_measure_alone_can_decide(criterion: Criterion) -> None:
    for share, grade in ((0.9, "ok"), (1.2, "look"), (2.1, "failed")):
        value = criterion.usual + share * (criterion.limit - criterion.usual)
        if criterion.measure == "similarity_gain":
            measures = change(similarity_after=value, similarity_shuffled=0)
        else:
            measures = change(**{criterion.measure: value})
        verdict = judge_quality(measures)
        assert verdict.grade == grade
        assert len(verdict.reasons) == (grade != "ok")
        assert all(reason.startswith(WORDINGS[criterion.measure].label) for reason in verdict.reasons)


def test_the_gravest_reason_is_first() -> None:
    reasons = judge_quality(change(matched_percent=2, folded_percent=1.1)).reasons
    assert [reason.split(" (")[0] for reason in reasons] == ["matched points 2 %", "folded voxels 1.1 %"]


def test_what_is_not_known_decides_nothing() -> None:
    unknown = dict.fromkeys(("inverse_consistency_mm", "boundary_percent", "mirror_gain", "overlap_percent"), math.nan)
    assert judge_quality(change(**unknown)).grade == "ok"
    assert judge_quality(change(**unknown), [change(**unknown)] * 9).grade == "ok"


def test_an_outlier_of_a_cohort() -> None:
    others = [change(deformation_mm=4 + number / 10) for number in range(9)]
    usual, outlier = change(deformation_mm=4.6), change(deformation_mm=25)
    assert judge_quality(usual, others).grade == "ok"
    assert judge_quality(outlier).grade == "ok"
    assert judge_quality(outlier, others[:4]).grade == "ok", "four others are too few"
    verdict = judge_quality(outlier, others)
    assert verdict.grade == "failed"
    assert verdict.reasons == ("deformation 25 mm (median of the others 4.4 mm)",)
    assert judge_quality(change(deformation_mm=0.1), others).grade == "ok", "small deformations are no failure"


def test_a_cohort_that_is_the_same_throughout() -> None:
    assert judge_quality(change(matched_percent=79.5), [GOOD] * 20).grade == "ok"
    assert judge_quality(change(matched_percent=60), [GOOD] * 20).grade == "look"


def test_each_criterion_is_a_measure_with_words() -> None:
    for criterion in CRITERIA:
        assert hasattr(GOOD, criterion.measure)
        assert criterion.measure in WORDINGS
        assert criterion.usual != criterion.limit


def test_a_cohort_is_judged_as_each_beside_all() -> None:
    cohort = [change(deformation_mm=4 + number / 10) for number in range(9)] + [change(deformation_mm=25)]
    assert list(judge_cohort(cohort)) == [judge_quality(measures, cohort) for measures in cohort]
    assert [verdict.grade for verdict in judge_cohort(cohort)] == ["ok"] * 9 + ["failed"]
    assert {verdict.grade for verdict in judge_cohort(cohort[5:])} == {"ok"}, "four others are too few"


def test_a_large_cohort_is_compared_with_two_hundred_of_it() -> None:
    cohort = [change(deformation_mm=4 + number % 3) for number in range(1001)]
    assert list(judge_cohort(cohort))[:3] == [judge_quality(measures, cohort[::6]) for measures in cohort[:3]]
