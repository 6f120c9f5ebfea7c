"""``convexadam evaluate``."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convexadam.cli.common import TransformFile, grid_of, optional
from convexadam.cli.transform_files import load_transform
from convexadam.errors import ConfigError
from convexadam.io import read_image, read_landmarks
from convexadam.metrics import evaluate_transform


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a TRANSFORM with labels or landmarks; print one JSON object.

    Attributes
    ----------
    transform
        File of a transform from fixed to moving space, such as transform.nii.gz of ``convexadam register``.
    fixed_labels
        Label map of the fixed image, a volume of any kind (NIfTI, MetaImage, NRRD, DICOM).
    moving_labels
        Label map of the moving image, on any grid.
    labels
        Score only these labels; without it all that both maps have.
    fixed_landmarks
        CSV of voxel indices i,j,k in the fixed image.
    moving_landmarks
        CSV of voxel indices i,j,k in the moving image, row by row the same places.
    fixed
        The fixed image, on whose grid the transform is measured; without it, the transform's own grid, or else that of
        the fixed labels or the mask.
    moving
        The moving image, whose grid the moving landmarks refer to; without it, the fixed grid.
    mask
        Volume on the fixed grid; regularity is measured within it as well.
    surface
        Whether to measure surface distances (slow).
    """

    transform: TransformFile
    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    labels: tuple[int, ...] = ()
    fixed_landmarks: Path | None = None
    moving_landmarks: Path | None = None
    fixed: Path | None = None
    moving: Path | None = None
    mask: Path | None = None
    surface: bool = True

    def run(self) -> None:
        """Do the work."""
        transform = load_transform(self.transform)
        fixed_labels, mask = optional(read_image, self.fixed_labels), optional(read_image, self.mask)
        grid = optional(grid_of, self.fixed) or transform.fixed_grid
        grid = grid or next((image.grid for image in (fixed_labels, mask) if image is not None), None)
        if grid is None:
            raise ConfigError(f"{self.transform} holds no grid to measure on; give --fixed with the fixed image")
        moving_grid = optional(grid_of, self.moving) or grid
        scores = evaluate_transform(
            transform.resample_onto(grid),
            fixed_labels=fixed_labels,
            moving_labels=optional(read_image, self.moving_labels),
            labels=self.labels or None,
            fixed_landmarks_mm=optional(lambda path: grid.to_mm(read_landmarks(path)), self.fixed_landmarks),
            moving_landmarks_mm=optional(lambda path: moving_grid.to_mm(read_landmarks(path)), self.moving_landmarks),
            mask=mask,
            surface=self.surface,
        )
        sys.stdout.write(json.dumps(without_nan(scores), indent=2) + "\n")


def without_nan(value: Any) -> Any:
    """Turn NaN and Inf, which JSON does not have, into null."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
