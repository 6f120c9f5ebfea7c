"""A verdict on a registration from several measures together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from convexadam.report.quality import QualityMeasures
from convexadam.report.wording import WORDINGS

Grade: TypeAlias = Literal["ok", "look", "failed"]

_FEWEST_OTHERS = 5
"""Registrations that a median and a spread are taken from, at least."""

_FAILED = 2.0
"""Score from which a registration has failed: twice as far from what is usual as one to be looked at."""

_MOST_OTHERS = 200
"""Registrations of a cohort that each is compared with."""

_DEVIATIONS = 6.0
"""Robust z-score in a cohort that counts as much as the limit of a single registration."""


@final
@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a registration should be looked at, and why.

    Attributes
    ----------
    grade
        ``"ok"``; ``"look"``, to be looked at; or ``"failed"``.
    reasons
        What decided it, the gravest first; none for ``"ok"``.
    score
        How unusual the gravest of them is: 1 and more is to be looked at, 2 and more has failed.

    Examples
    --------
    >>> from convexadam.report import Verdict
    >>> Verdict(grade="look", reasons=("3 % of the voxels fold",), score=1.5).grade
    'look'
    """

    grade: Grade
    reasons: tuple[str, ...] = ()
    score: float = 0.0


@final
@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A measure, and which values of it are unusual.

    Attributes
    ----------
    measure
        Attribute of `QualityMeasures`.
    usual
        Value of a good registration.
    limit
        Value from which a single registration is to be looked at; infinite if it says nothing without a cohort. Values
        are unusual on its side of ``usual`` only.
    spread
        Standard deviation in a cohort of good registrations, at least: smaller ones mean nothing.
    """

    measure: str
    usual: float
    limit: float
    spread: float

    def measure_distance(self, measures: QualityMeasures) -> float:
        """Return how far from usual a measure is, 1 at the limit; 0 for NaN."""
        value = float(getattr(measures, self.measure))
        return 0.0 if math.isnan(value) else (value - self.usual) / (self.limit - self.usual)

    def summarise(self, others: Sequence[QualityMeasures]) -> tuple[float, float]:
        """Return the median and the spread of other registrations; NaN if they are too few."""
        known = [v for v in (float(getattr(m, self.measure)) for m in others) if not math.isnan(v)]
        if len(known) < _FEWEST_OTHERS:
            return math.nan, math.nan
        median = statistics.median(known)
        return median, max(1.4826 * statistics.median(abs(v - median) for v in known), self.spread)

    def compare(self, measures: QualityMeasures, median: float, spread: float) -> float:
        """Return the robust z-score on the unusual side as a share of the one that counts; 0 for NaN."""
        distance = (float(getattr(measures, self.measure)) - median) / spread
        sign = math.copysign(1.0, self.limit - self.usual)
        return 0.0 if math.isnan(distance) else sign * distance / _DEVIATIONS

    def describe_limit(self) -> str:
        """Return what is usual, in words."""
        if math.isinf(self.limit):
            return "compared within a cohort"
        side = "below" if self.limit > self.usual else "above"
        return f"{side} {WORDINGS[self.measure].format(self.limit)}"


CRITERIA = (
    Criterion(measure="similarity_gain", usual=0.8, limit=0.4, spread=0.02),
    Criterion(measure="matched_percent", usual=70.0, limit=44.0, spread=2.0),
    Criterion(measure="overlap_percent", usual=100.0, limit=85.0, spread=2.0),
    Criterion(measure="inverse_consistency_mm", usual=0.0, limit=5.0, spread=0.3),
    Criterion(measure="folded_percent", usual=0.0, limit=1.0, spread=0.1),
    Criterion(measure="sdlogj", usual=0.04, limit=0.12, spread=0.01),
    Criterion(measure="boundary_percent", usual=0.0, limit=5.0, spread=1.0),
    Criterion(measure="rotation_degrees", usual=0.0, limit=45.0, spread=5.0),
    Criterion(measure="mirror_gain", usual=-0.01, limit=0.0, spread=0.01),
    Criterion(measure="deformation_mm", usual=0.0, limit=math.inf, spread=1.0),
)
"""What decides; ``benchmarks/verdict.py`` tuned the limits on pairs other than those it judges."""


def judge_quality(measures: QualityMeasures, others: Sequence[QualityMeasures] = ()) -> Verdict:
    """Judge a registration by its measures, and by those of the other registrations of a cohort.

    Parameters
    ----------
    measures
        Of the registration.
    others
        Of other registrations of the same kind. Fewer than five are ignored; with more, the registration is also judged
        by its robust z-scores: the distance from the median in median absolute deviations, scaled to a standard
        deviation (Iglewicz and Hoaglin, 1993).

    Returns
    -------
    The verdict, which is that of the most unusual measure.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image, register
    >>> from convexadam.report import judge_quality, measure_quality
    >>> volume = Image(torch.rand(1, 24, 20, 16, generator=torch.Generator().manual_seed(0)), Grid((24, 20, 16)))
    >>> judge_quality(measure_quality(register(volume, volume), volume, volume)).grade
    'ok'
    """
    return _judge(measures, [criterion.summarise(others) for criterion in CRITERIA])


def judge_cohort(cohort: Sequence[QualityMeasures]) -> Iterator[Verdict]:
    """Yield the verdict on each registration of a cohort beside all of them, as `judge_quality` does.

    They are compared with at most 200 of them, spread evenly, whose medians are computed once.
    """
    some = cohort[:: max(1, -(-len(cohort) // _MOST_OTHERS))] if len(cohort) > _FEWEST_OTHERS else ()
    usual = [criterion.summarise(some) for criterion in CRITERIA]
    for measures in cohort:
        yield _judge(measures, usual)


def _judge(measures: QualityMeasures, others: Sequence[tuple[float, float]]) -> Verdict:
    """Judge a registration, given the median and the spread of others for each criterion."""
    score, found = 0.0, list[tuple[float, str]]()
    for criterion, (median, spread) in zip(CRITERIA, others, strict=True):
        alone, beside = criterion.measure_distance(measures), criterion.compare(measures, median, spread)
        distance = max(alone, beside)
        score = max(score, distance)
        if distance >= 1:
            wording = WORDINGS[criterion.measure]
            figure = f"{wording.label} {wording.format(float(getattr(measures, criterion.measure)))}"
            usual = f"usually {criterion.describe_limit()}"
            if beside > alone:
                usual = f"median of the others {wording.format(median)}"
            found.append((distance, f"{figure} ({usual})"))
    found.sort(key=lambda entry: -entry[0])
    grade: Grade = "failed" if score >= _FAILED else "look" if score >= 1 else "ok"
    return Verdict(grade=grade, reasons=tuple(reason for _, reason in found), score=score)
