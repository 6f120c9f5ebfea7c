"""``convexadam warp``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from convexadam._atomic import check_writable
from convexadam._typing import Points
from convexadam.cli.common import Header, Output, TransformFile, UsageError, read_grid, read_optional, say
from convexadam.cli.content import find_content
from convexadam.cli.points import is_inside, warn_if_outside
from convexadam.cli.transform_files import load_transform
from convexadam.errors import ConfigError
from convexadam.geometry import Grid, Transform
from convexadam.geometry.composite import invert_transform
from convexadam.geometry.sampling import Mode
from convexadam.geometry.transform import PointSpace
from convexadam.io import check_image_name, read_image, read_landmark_file, write_image, write_landmarks


@dataclass(frozen=True, kw_only=True)
class Warp:
    """Warp INPUT with a TRANSFORM: an image, labels or a mask, or landmarks.

    Images are resampled from moving to fixed space, on the fixed grid. Landmarks go the other way: from fixed to moving
    space. --inverse reverses both. Names and headers of landmark files are kept.

    Whether INPUT holds labels or intensities is decided by its values, not by its type, and said: labels are whole
    numbers from -1, and either few (32 at most) or equal to at least half of their neighbours without changing in
    smallest steps only. --labels and --image decide instead.

    Attributes
    ----------
    transform
        File of a transform from fixed to moving space, such as transform.nii.gz of ``convexadam register``.
    input
        Volume (NIfTI, MGH, MetaImage, NRRD, DICOM) on any grid, or landmarks: a .csv file with three numbers in each
        line, or .fcsv or .mrk.json of Slicer.
    output
        File to write: .nii, .nii.gz, .mha or .nrrd for images; for landmarks one with the ending of INPUT.
    inverse
        Use the inverse: images are warped from fixed to moving space, landmarks from moving to fixed space.
    reference
        Image with the grid of the result (with --inverse preferably the moving image). Default: that of the transform.
    labels
        INPUT holds labels: keep its values (--mode label).
    image
        INPUT holds intensities: interpolate them (--mode linear).
    mode
        Interpolation. Default: label for labels, linear for others.
    fill_value
        Value outside the image. Default: 0 for labels, the smallest value of the image otherwise.
    space
        Coordinates of the landmarks in both files: mm RAS+, mm LPS (ITK, ANTs, Slicer), or voxel indices of the fixed
        and of the moving image, as in the .csv files of the other commands. Required for .csv; files of Slicer tell.
    fixed
        The fixed image, for voxel indices, and to check that the landmarks lie in it. Default: the grid of the
        transform.
    moving
        The moving image: its grid is needed for voxel indices, and to invert a transform.
    """

    transform: TransformFile
    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")]
    output: Output
    inverse: bool = False
    reference: Path | None = None
    labels: bool = False
    image: bool = False
    mode: Literal["linear", "cubic", "nearest", "label"] | None = None
    fill_value: float | None = None
    space: Literal["mm", "lps_mm", "voxel"] | None = None
    fixed: Path | None = None
    moving: Path | None = None
    header: Header = None

    def run(self) -> None:
        """Run the command."""
        self._check_use()
        check_writable(self.output)
        if not _is_table(self.output):
            check_image_name(self.output)
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
        of_images |= {"--labels": self.labels or None, "--image": self.image or None}
        of_landmarks = {"--space": self.space, "--fixed": self.fixed, "--moving": self.moving}
        kind, others = ("landmarks", of_images) if _is_table(self.input) else ("images", of_landmarks)
        for option, value in others.items():
            if value is not None:
                raise UsageError(f"{option} must be omitted for {kind}, got {value}; remove the option")
        if self.labels + self.image + (self.mode is not None) > 1:
            raise UsageError("only one of --labels, --image and --mode must be passed, got several; remove the others")
        if _is_table(self.input) and get_ending(self.input) != get_ending(self.output):
            raise UsageError(
                f"OUTPUT must end in {get_ending(self.input)}, as INPUT, got {self.output}; change its name"
            )
        if self.input.suffix.lower() == ".csv" and self.space is None:
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
        mode: Mode | None = "label" if self.labels else "linear" if self.image else self.mode
        content = find_content(image) if mode is None else None
        if content is not None:
            mode = "label" if content.labels else "linear"
        write_image(applied.warp(image, reference, mode=mode, fill_value=self.fill_value), self.output)
        if content is not None and not content.certain:
            kind, other = ("labels", "--image") if content.labels else ("an image", "--labels")
            say(f"{self.input} was taken for {kind}: {content.reason}; {other} decides otherwise")

    def _warp_landmarks(self, transform: Transform) -> None:
        file = read_landmark_file(self.input)
        space = file.space or self.space
        if space is None or (file.space is not None and self.space not in (None, file.space)):
            raise UsageError(f"--space must be that of {self.input}, {file.space}, got {self.space}; omit it")
        source, target = (
            read_optional(read_grid, self.fixed) or transform.fixed_grid,
            read_optional(read_grid, self.moving),
        )
        if space == "voxel" and source is None:
            raise ConfigError(
                f"--fixed must be the fixed image for a transform without a grid ({self.transform}), got none; pass it"
            )
        applied = transform
        if self.inverse:
            applied, source, target = invert_transform(transform, target), target, source
        spaces = ("moving", "fixed") if self.inverse else ("fixed", "moving")
        if source is not None:
            name = f"landmarks of {self.input}, taken as {space} of {spaces[0]} space,"
            _check_points(file.points, space, source, name)
        grids = {"fixed": source, "moving": target} if space == "voxel" else {}
        write_landmarks(applied.warp_points(file.points, space=space, **grids), self.output, like=file)
        say(f"warped {len(file.points)} landmarks from {spaces[0]} to {spaces[1]} space")


def get_ending(path: Path) -> str:
    """Return the ending of the name of a landmark file, in lower case; empty for other files."""
    return next((ending for ending in _TABLES if path.name.lower().endswith(ending)), "")


_TABLES = (".csv", ".fcsv", ".mrk.json")


def _is_table(path: Path) -> bool:
    return bool(get_ending(path))


def _check_points(points: Points, space: PointSpace, grid: Grid, name: str) -> None:
    """Warn if points lie far from their image, and say in which coordinates they would lie in it."""
    flip = torch.tensor([-1.0, -1, 1], dtype=torch.float64, device="cpu")
    as_mm = {"mm": points, "lps_mm": points * flip, "voxel": grid.index_to_world(points)}
    others = [f"--space {other}" for other, mm in as_mm.items() if is_inside(grid.world_to_index(mm), grid)]
    advice = f"all of them would lie in it with {' or '.join(others)}" if others else "check --space and the files"
    warn_if_outside(as_mm[space], grid, name, advice)
