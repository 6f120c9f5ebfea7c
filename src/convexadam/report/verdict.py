"""A verdict on a registration from several measures together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from convexadam.report.quality import QualityMeasures

Grade: TypeAlias = Literal["ok", "look", "failed"]

_FEWEST_OTHERS = 5
"""Registrations that a median and a spread are taken from, at least."""


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
    """

    grade: Grade
    reasons: tuple[str, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A quantity, and the values from which a registration is to be looked at, or has failed.

    Attributes
    ----------
    name
        What it is, in words.
    unit
        Unit with a leading space, or nothing.
    compute
        The quantity, of the measures.
    look, failed
        Limits of a single registration. Values are unusual beyond them on the side of ``sign``.
    sign
        1 if large values are unusual, -1 if small ones are.
    spread
        Smallest spread between good registrations of a cohort, in which robust z-scores are counted at least.
    """

    name: str
    unit: str
    compute: Callable[[QualityMeasures], float]
    look: float
    failed: float
    sign: int
    spread: float

    def is_beyond(self, value: float, limit: float) -> bool:
        """Whether a value is at or beyond a limit; not for NaN."""
        return self.sign * (value - limit) >= 0

    def score(self, value: float, others: Sequence[float]) -> float:
        """Compute the robust z-score on the unusual side: distance from the median in 1.4826 times the MAD."""
        known = [v for v in others if not math.isnan(v)]
        if len(known) < _FEWEST_OTHERS or math.isnan(value):
            return 0.0
        middle = statistics.median(known)
        spread = max(1.4826 * statistics.median(abs(v - middle) for v in known), self.spread)
        return self.sign * (value - middle) / spread


def _fit(measures: QualityMeasures) -> float:
    """Similarity after registration above that of unrelated anatomy, as a share of what is possible."""
    return (measures.similarity_after - measures.similarity_shuffled) / max(1 - measures.similarity_shuffled, 1e-6)


CRITERIA = (
    Criterion(
        name="similarity above that of unrelated anatomy",
        unit="",
        compute=_fit,
        look=0.15,
        failed=0.05,
        sign=-1,
        spread=0.02,
    ),
    Criterion(
        name="points that match best where the transform puts them",
        unit=" %",
        compute=lambda m: m.matched_percent,
        look=60.0,
        failed=45.0,
        sign=-1,
        spread=2.0,
    ),
    Criterion(
        name="overlap of the fields of view",
        unit=" %",
        compute=lambda m: m.overlap_percent,
        look=85.0,
        failed=50.0,
        sign=-1,
        spread=3.0,
    ),
    Criterion(
        name="error of the inverse",
        unit=" mm",
        compute=lambda m: m.inverse_consistency_mm,
        look=5.0,
        failed=20.0,
        sign=1,
        spread=0.3,
    ),
    Criterion(
        name="folded voxels",
        unit=" %",
        compute=lambda m: m.folded_percent,
        look=1.0,
        failed=5.0,
        sign=1,
        spread=0.1,
    ),
    Criterion(
        name="spread of the Jacobian determinant",
        unit="",
        compute=lambda m: m.sdlogj,
        look=0.15,
        failed=0.3,
        sign=1,
        spread=0.01,
    ),
    Criterion(
        name="displacements at the boundary of the search",
        unit=" %",
        compute=lambda m: m.boundary_percent,
        look=5.0,
        failed=30.0,
        sign=1,
        spread=1.0,
    ),
    Criterion(
        name="rotation",
        unit=" degrees",
        compute=lambda m: m.rotation_degrees,
        look=45.0,
        failed=math.inf,
        sign=1,
        spread=5.0,
    ),
    Criterion(
        name="deformation",
        unit=" mm",
        compute=lambda m: m.deformation_mm,
        look=math.inf,
        failed=math.inf,
        sign=1,
        spread=1.0,
    ),
)
"""What decides, with limits that ``benchmarks/verdict.py`` was tuned to on its tuning set."""

_SCORE_LOOK, _SCORE_FAILED = 5.0, 20.0
"""Robust z-scores in a cohort from which a registration is to be looked at, or has failed."""


def judge_quality(measures: QualityMeasures, others: Sequence[QualityMeasures] = ()) -> Verdict:
    """Judge a registration by its measures, and by those of the other registrations of a cohort.

    Parameters
    ----------
    measures
        Of the registration.
    others
        Of other registrations of the same kind. Fewer than five are ignored; of more, the registration is also judged
        by its robust z-scores (distance from the median in median absolute deviations, scaled to a standard deviation).

    Returns
    -------
    The verdict: the worst of all criteria.
    """
    found: dict[Grade, list[str]] = {"failed": [], "look": [], "ok": []}
    for criterion in CRITERIA:
        grade, reason = _judge(criterion, measures, others)
        found[grade].append(reason)
    grade = next((g for g in found if found[g]), "ok")
    return Verdict(grade=grade, reasons=(*found["failed"], *found["look"]))


def _judge(criterion: Criterion, measures: QualityMeasures, others: Sequence[QualityMeasures]) -> tuple[Grade, str]:
    value = criterion.compute(measures)
    figure = f"{criterion.name}: {value:.3g}{criterion.unit}"
    limits: tuple[tuple[Grade, float], ...] = (("failed", criterion.failed), ("look", criterion.look))
    for grade, limit in limits:
        if criterion.is_beyond(value, limit):
            side = "at least" if criterion.sign > 0 else "at most"
            return grade, f"{figure} ({side} {limit:g}{criterion.unit})"
    values = [criterion.compute(other) for other in others]
    score = criterion.score(value, values)
    limits = (("failed", _SCORE_FAILED), ("look", _SCORE_LOOK))
    for grade, limit in limits:
        if score >= limit:
            middle = statistics.median(v for v in values if not math.isnan(v))
            return grade, f"{figure} (median of the others {middle:.3g}{criterion.unit})"
    return "ok", figure


def score_quality(measures: QualityMeasures, others: Sequence[QualityMeasures] = ()) -> float:
    return 0.0
