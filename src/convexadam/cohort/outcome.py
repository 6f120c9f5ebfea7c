"""What came of one pair of a cohort."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

from convexadam.io import PairFiles
from convexadam.report import QualityMeasures, Verdict
from convexadam.report.wording import TRUTH
from convexadam.viz.html import make_block, make_table, or_text


@final
@dataclass(frozen=True, kw_only=True)
class CohortOutcome:
    """What came of one pair.

    Attributes
    ----------
    pair
        Its files, and its id.
    status
        ``"done"`` by this run, ``"kept"`` from an earlier one, or ``"failed"``.
    folder
        Folder of its results, which exists unless it failed.
    seconds
        Time of the pair, with reading and writing; NaN if it failed.
    quality
        Measures that need neither labels nor landmarks; ``None`` if it failed, or was not to be measured.
    scores
        ``dice``, ``dice_before`` and ``n_labels``, ``tre_mm``, ``tre_before_mm`` and ``n_landmarks``, of
        `convexadam.metrics.Evaluation`, as far as there are labels and landmarks of both images.
    verdict
        Of the pair alone while the cohort is registered, and by comparison with the others in ``cohort.csv`` at its
        end; ``None`` without quality.
    error
        Error in one line, if it failed.
    is_permanent
        Whether the error is one of the inputs or settings, which no repetition changes.
    warnings
        Warnings of the registration.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam.cohort import CohortOutcome, PairFiles
    >>> pair = PairFiles(id="one", fixed="a.nii.gz", moving="b.nii.gz")
    >>> CohortOutcome(pair=pair, status="done", folder=Path("study/pairs/one"), seconds=2.0, scores={"dice": 0.91})
    CohortOutcome('one', status: done, Dice: 0.91, time: 2 s)
    """

    pair: PairFiles
    status: Literal["done", "kept", "failed"]
    folder: Path
    seconds: float = float("nan")
    quality: QualityMeasures | None = None
    scores: dict[str, float] = field(default_factory=dict)
    verdict: Verdict | None = None
    error: str | None = None
    is_permanent: bool = False
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Id and figures of the pair, on one line."""
        return f"CohortOutcome({self.id!r}, {', '.join(map(': '.join, self._list_figures()))})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a table of the figures of the pair."""
        return _make_html(self)

    def _list_figures(self) -> Iterator[tuple[str, str]]:
        """Yield names and values of what is known of the pair."""
        yield "status", self.status
        if self.error is not None:
            yield "error", self.error
        if self.verdict is not None:
            yield "verdict", "; ".join([self.verdict.grade, *self.verdict.reasons])
        for name, wording in TRUTH.items():
            if name in self.scores:
                yield wording.label, wording.format(self.scores[name])
        if not math.isnan(self.seconds):
            yield "time", f"{self.seconds:.3g} s"
        if self.warnings:
            yield "warnings", str(len(self.warnings))

    @property
    def id(self) -> str:
        """The id of the pair."""
        return self.pair.id


@or_text
def _make_html(outcome: CohortOutcome) -> str:
    figures = dict(outcome._list_figures())
    return make_block(f"Pair {outcome.id}", make_table(figures | {"folder": str(outcome.folder)}))
