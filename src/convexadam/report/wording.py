"""What the measures are called on pages and in reasons, in one table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Wording:
    """Label, unit (with a leading space) and explanation of a measure."""

    label: str
    unit: str
    text: str

    def format(self, value: float) -> str:
        """Return a value with three digits and its unit; a dash for NaN."""
        if math.isnan(value):
            return "-"
        return f"{value:.3g}" + self.unit if abs(value) < 1000 else f"{value:.0f}{self.unit}"


WORDINGS = {
    "similarity_before": Wording(
        "similarity before", "", "mean squared local correlation at the positions of the headers, 0 to 1"
    ),
    "similarity_after": Wording("similarity after", "", "the same after registration"),
    "similarity_shuffled": Wording(
        "similarity of unrelated anatomy", "", "the same with the moved image rolled by half its extent"
    ),
    "similarity_gain": Wording(
        "similarity above unrelated", "", "similarity after registration, from 0 for unrelated anatomy to 1"
    ),
    "matched_percent": Wording(
        "matched points", " %", "points where the transform matches better than any shift around it"
    ),
    "residual_mm": Wording("residual", " mm", "mean distance of the best of these shifts"),
    "overlap_percent": Wording("overlap", " %", "anatomy of the fixed image that maps into the moving image"),
    "inverse_consistency_mm": Wording(
        "inverse consistency error", " mm", "95th percentile of the distance after transform and inverse"
    ),
    "folded_percent": Wording("folded voxels", " %", "Jacobian determinant of 0 or less"),
    "jacobian_low": Wording("Jacobian, 1st percentile", "", "volume change beyond the linear motion; 1 is none"),
    "jacobian_high": Wording("Jacobian, 99th percentile", "", "the same at the other end"),
    "sdlogj": Wording("SDlogJ", "", "spread of the volume change, as Learn2Reg computes it"),
    "rotation_degrees": Wording("rotation", "°", "of the affine transform that fits best"),
    "translation_mm": Wording("translation", " mm", "of the centre of the fixed image"),
    "volume_ratio": Wording("linear volume change", "", "determinant of the affine transform that fits best"),
    "deformation_mm": Wording("deformation", " mm", "root mean square of the displacement beyond the linear motion"),
    "boundary_percent": Wording(
        "at the boundary of the search", " %", "points whose displacement reaches the radius of the search"
    ),
    "mirror_gain": Wording(
        "gain of the mirrored image",
        "",
        "similarity of the moving image mirrored left to right, minus that of it as it is",
    ),
}
"""By the name of the measure."""

TRUTH = {
    "dice": Wording("Dice", "", "mean overlap of the labels after registration"),
    "dice_before": Wording("Dice before", "", "the same before"),
    "tre_mm": Wording("TRE", " mm", "mean distance of the landmarks after registration"),
    "tre_before_mm": Wording("TRE before", " mm", "the same before"),
}
"""Measures that need labels or landmarks."""
