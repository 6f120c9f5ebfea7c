"""``convexadam warp``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from convexadam.cli.common import Output, TransformFile, WrongUse, grid_of, optional, say
from convexadam.cli.transform_files import load_transform
from convexadam.cli.transforms import inverse_of
from convexadam.errors import ConfigError
from convexadam.geometry import Transform
from convexadam.io import read_image, read_landmarks, write_image, write_landmarks


@dataclass(frozen=True, kw_only=True)
class Warp:
    """Bring INPUT to the other space with a TRANSFORM: an image, labels or a mask, or landmarks (CSV).

    Images go from moving to fixed space, onto the fixed grid. Landmarks go the other way: those of the fixed image to
    where they are found in the moving image. --inverse turns both round.

    Attributes
    ----------
    transform
        File of a transform from fixed to moving space, such as transform.nii.gz of ``convexadam register``.
    input
        Volume (NIfTI, MetaImage, NRRD, DICOM) on any grid, or landmarks: a .csv file with three numbers in each line.
    output
        File to write: .nii, .nii.gz, .mha or .nrrd for images, .csv for landmarks.
    inverse
        Use the inverse: images of fixed space go to moving space, landmarks of moving space to fixed space.
    onto
        Image that has the grid of the result; without it the transform's own. With --inverse best the moving image.
    mode
        How values are read; without it, whole-number files are taken as labels and never mixed.
    background
        Value outside the image; without it 0 for labels, the smallest value otherwise.
    space
        What landmarks are, before and after: mm RAS+, mm LPS (ITK, ANTs, Slicer), or voxel indices, of the fixed and
        of the moving image. Landmarks need it.
    fixed
        The fixed image, for voxel indices; without it, the transform's own grid.
    moving
        The moving image, for voxel indices, and where --inverse is solved.
    """

    transform: TransformFile
    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    output: Output
    inverse: bool = False
    onto: Path | None = None
    mode: Literal["linear", "cubic", "nearest", "label"] | None = None
    background: float | None = None
    space: Literal["mm", "lps_mm", "voxel"] | None = None
    fixed: Path | None = None
    moving: Path | None = None

    def run(self) -> None:
        """Do the work."""
        self._check_use()
        transform = load_transform(self.transform)
        if _is_table(self.input):
            self._warp_landmarks(transform)
        else:
            self._warp_image(transform)

    def _check_use(self) -> None:
        if _is_table(self.input) != _is_table(self.output):
            raise WrongUse(f"landmarks are *.csv, images are not: {self.input} cannot become {self.output}")
        of_images = {"--onto": self.onto, "--mode": self.mode, "--background": self.background}
        of_landmarks = {"--space": self.space, "--fixed": self.fixed, "--moving": self.moving}
        kind, others = ("landmarks", of_images) if _is_table(self.input) else ("images", of_landmarks)
        for option, value in others.items():
            if value is not None:
                raise WrongUse(f"{option} says nothing about {kind}; leave it out")
        if _is_table(self.input) and self.space is None:
            raise WrongUse("landmarks need --space: mm (RAS+), lps_mm (ITK, ANTs, Slicer) or voxel")
        if self.space == "voxel" and self.moving is None:
            raise WrongUse("--space voxel needs --moving, the image whose voxels the landmarks of moving space are in")

    def _warp_image(self, transform: Transform) -> None:
        image, onto = read_image(self.input), optional(grid_of, self.onto)
        onto = onto or transform.fixed_grid
        if onto is None:
            raise ConfigError(f"{self.transform} holds no grid for the result; give --onto with an image that has it")
        used = inverse_of(transform, onto) if self.inverse else transform
        write_image(used.warp(image, onto, mode=self.mode, background=self.background), self.output)

    def _warp_landmarks(self, transform: Transform) -> None:
        assert self.space is not None  # checked before
        points = read_landmarks(self.input)
        before, after = optional(grid_of, self.fixed) or transform.fixed_grid, optional(grid_of, self.moving)
        if self.space == "voxel" and before is None:
            raise ConfigError(f"{self.transform} holds no grid for the indices; give --fixed with the fixed image")
        used = transform
        if self.inverse:
            used, before, after = inverse_of(transform, after), after, before
        grids = {"fixed": before, "moving": after} if self.space == "voxel" else {}
        write_landmarks(used.warp_points(points, space=self.space, **grids), self.output)
        spaces = ("moving", "fixed") if self.inverse else ("fixed", "moving")
        say(f"{len(points)} landmarks taken from {spaces[0]} to {spaces[1]} space")


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv"
