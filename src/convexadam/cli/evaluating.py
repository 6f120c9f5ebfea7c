"""``convexadam evaluate``."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convexadam.cli.common import Header, TransformFile, read_grid, read_optional
from convexadam.cli.points import read_points
from convexadam.cli.transform_files import load_transform
from convexadam.errors import ConfigError
from convexadam.io import read_image
from convexadam.metrics import evaluate_transform

_ADVICE = "check the file, --fixed and --moving"


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate a TRANSFORM by its regularity and by labels or landmarks; print one JSON object.

    Attributes
    ----------
    transform
        Transform from fixed to moving space, such as transform.nii.gz of ``convexadam register``.
    fixed_labels
        Label map of the fixed image (NIfTI, MetaImage, NRRD, DICOM).
    moving_labels
        Label map of the moving image, on any grid.
    labels
        Labels to evaluate; default: all that both maps contain.
    fixed_landmarks
        CSV of voxel indices i,j,k in the fixed image.
    moving_landmarks
        CSV of voxel indices i,j,k in the moving image, row by row the same points.
    fixed
        Image with the grid to evaluate on; default: the grid of the transform, of the fixed labels or of the mask.
    moving
        Image with the grid of the moving landmarks; default: the fixed grid.
    mask
        Volume on the fixed grid, above 0 inside; regularity is also computed inside.
    surface
        Compute surface distances of labels (slow).
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
    header: Header = None

    def run(self) -> None:
        """Run the command."""
        transform = load_transform(self.transform)
        fixed_labels, mask = read_optional(read_image, self.fixed_labels), read_optional(read_image, self.mask)
        grid = read_optional(read_grid, self.fixed) or transform.fixed_grid
        grid = grid or next((image.grid for image in (fixed_labels, mask) if image is not None), None)
        if grid is None:
            raise ConfigError(
                f"--fixed must be an image with the grid to evaluate on, got none, and {self.transform} has no grid; "
                "give --fixed"
            )
        moving_grid = read_optional(read_grid, self.moving) or grid
        scores = evaluate_transform(
            transform.to_displacement_field(grid),
            fixed_labels=fixed_labels,
            moving_labels=read_optional(read_image, self.moving_labels),
            labels=self.labels or None,
            fixed_landmarks_mm=read_points(self.fixed_landmarks, grid, _ADVICE),
            moving_landmarks_mm=read_points(self.moving_landmarks, moving_grid, _ADVICE),
            mask=mask,
            surface=self.surface,
        )
        sys.stdout.write(json.dumps(replace_nan(scores), indent=2) + "\n")


def replace_nan(value: Any) -> Any:
    """Replace NaN and Inf, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: replace_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [replace_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
