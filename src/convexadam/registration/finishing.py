"""The end of a registration: what is promised of the field, and what there is to say about it."""

from __future__ import annotations

from convexadam._typing import Field
from convexadam.geometry import DisplacementField, Grid
from convexadam.geometry.unfold import LEAST, Unfolding, unfold
from convexadam.registration.diagnostics import describe_field


def finished(disp_mm: Field, grid: Grid, *, fold_free: bool) -> tuple[DisplacementField, dict[str, float]]:
    """Make a transform of a field in mm, unfolded in place where it is to be free of folds, and describe it."""
    transform, done = DisplacementField(disp_mm, grid), Unfolding()
    figures = describe_field(transform)
    if fold_free and figures["jacobian_min"] <= LEAST:
        done = unfold(disp_mm, grid)
        transform = DisplacementField(disp_mm, grid)
        figures = describe_field(transform)
    return transform, figures | {"repaired_voxels": done.voxels, "repaired_largest_mm": done.largest_mm}
