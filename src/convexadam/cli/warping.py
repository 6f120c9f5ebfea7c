"""``convexadam warp``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from convexadam.cli.common import Header, Output, TransformFile, UsageError, read_grid, read_optional, say
from convexadam.cli.transform_files import load_transform
from convexadam.cli.transforms import invert_transform
from convexadam.errors import ConfigError
from convexadam.geometry import Transform
from convexadam.io import read_image, read_landmarks, write_image, write_landmarks


@dataclass(frozen=True, kw_only=True)
class Warp:
    """Warp INPUT with a TRANSFORM: an image, labels or a mask, or landmarks (CSV).

    Images are resampled from moving to fixed space, on the fixed grid. Landmarks go the other way: from fixed to moving
    space. --inverse reverses both.

    Attributes
    ----------
    transform
        File of a transform from fixed to moving space, such as transform.nii.gz of ``convexadam register``.
    input
        Volume (NIfTI, MetaImage, NRRD, DICOM) on any grid, or landmarks: a .csv file with three numbers in each line.
    output
        File to write: .nii, .nii.gz, .mha or .nrrd for images, .csv for landmarks.
    inverse
        Use the inverse: images are warped from fixed to moving space, landmarks from moving to fixed space.
    reference
        Image with the grid of the result (with --inverse preferably the moving image). Default: that of the transform.
    mode
        Interpolation. Default: label for integer files, linear for others.
    fill_value
        Value outside the image. Default: 0 for labels, the smallest value of the image otherwise.
    space
        Coordinates of the landmarks in both files: mm RAS+, mm LPS (ITK, ANTs, Slicer), or voxel indices of the fixed
        and of the moving image. Required for landmarks.
    fixed
        The fixed image, for voxel indices. Default: the grid of the transform.
    moving
        The moving image: its grid is needed for voxel indices, and to invert a transform.
    """

    transform: TransformFile
    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    output: Output
    inverse: bool = False
    reference: Path | None = None
    mode: Literal["linear", "cubic", "nearest", "label"] | None = None
    fill_value: float | None = None
    space: Literal["mm", "lps_mm", "voxel"] | None = None
    fixed: Path | None = None
    moving: Path | None = None
    header: Header = None

    def run(self) -> None:
        """Run the command."""
        self._check_use()
        transform = load_transform(self.transform)
        if _is_table(self.input):
            self._warp_landmarks(transform)
        else:
            self._warp_image(transform)

    def _check_use(self) -> None:
        if _is_table(self.input) != _is_table(self.output):
            raise UsageError(
                f"INPUT and OUTPUT must both be landmarks (*.csv) or both be images, got {self.input} and "
                f"{self.output}; change one of the names"
            )
        of_images = {"--reference": self.reference, "--mode": self.mode, "--fill-value": self.fill_value}
        of_landmarks = {"--space": self.space, "--fixed": self.fixed, "--moving": self.moving}
        kind, others = ("landmarks", of_images) if _is_table(self.input) else ("images", of_landmarks)
        for option, value in others.items():
            if value is not None:
                raise UsageError(f"{option} must be omitted for {kind}, got {value}; remove the option")
        if _is_table(self.input) and self.space is None:
            raise UsageError(
                "--space must be mm (RAS+), lps_mm (ITK, ANTs, Slicer) or voxel for landmarks, got none; pass it"
            )
        if self.space == "voxel" and self.moving is None:
            raise UsageError("--moving must be the moving image for --space voxel, got none; pass it")

    def _warp_image(self, transform: Transform) -> None:
        image, reference = read_image(self.input), read_optional(read_grid, self.reference)
        reference = reference or transform.fixed_grid
        if reference is None:
            raise ConfigError(
                f"--reference must be an image for a transform without a grid ({self.transform}), got none; pass it"
            )
        applied = invert_transform(transform, reference) if self.inverse else transform
        write_image(applied.warp(image, reference, mode=self.mode, fill_value=self.fill_value), self.output)

    def _warp_landmarks(self, transform: Transform) -> None:
        assert self.space is not None  # by _check_use
        points = read_landmarks(self.input)
        source, target = (
            read_optional(read_grid, self.fixed) or transform.fixed_grid,
            read_optional(read_grid, self.moving),
        )
        if self.space == "voxel" and source is None:
            raise ConfigError(
                f"--fixed must be the fixed image for a transform without a grid ({self.transform}), got none; pass it"
            )
        applied = transform
        if self.inverse:
            applied, source, target = invert_transform(transform, target), target, source
        grids = {"fixed": source, "moving": target} if self.space == "voxel" else {}
        write_landmarks(applied.warp_points(points, space=self.space, **grids), self.output)
        spaces = ("moving", "fixed") if self.inverse else ("fixed", "moving")
        say(f"warped {len(points)} landmarks from {spaces[0]} to {spaces[1]} space")


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv"
