"""Transforms of FSL: matrices of FLIRT and relative displacement fields of FNIRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._atomic import atomic_path
from convexadam._typing import Field
from convexadam.errors import ConfigError, FileError
from convexadam.geometry import Affine, DisplacementField, Grid, Transform
from convexadam.geometry.grid import HEADER_ROUNDING
from convexadam.io.coordinates import field_from_coordinates, field_to_coordinates, to_field, vectors_to_tensor
from convexadam.io.nifti import read_nifti_grid, read_nifti_values, save_nifti
from convexadam.io.nifti_file import load_nifti
from convexadam.io.reading import StrPath, check_file
from convexadam.io.transform_format import DetectionResult, FileHeader, Possible, Unusable

INTENT_FSL_FIELD = 2006
INTENTS_OF_COEFFICIENTS = (2007, 2008, 2009)

_COEFFICIENTS = "holds spline coefficients of FSL"
_CONVERT_COEFFICIENTS = "convert them to a field with fnirtfileutils --out"
_FIXED_MISSING = "fixed must be a Grid or an Image for a matrix of FLIRT, got None; pass fixed="


@check_arguments
def write_fsl(transform: Transform, path: StrPath, *, fixed: Grid | None, moving: Grid) -> None:
    """Write a transform for FSL: an affine one as a matrix of FLIRT, any as a relative field for ``applywarp``.

    FSL's coordinates are voxel indices times voxel sizes, with the first axis reversed if the determinant of the affine
    is positive; the rest of the affine is not used. Hence both grids are needed.

    Parameters
    ----------
    transform
        From fixed (FSL: reference) to moving (FSL: input) space.
    path
        ``*.mat`` for a matrix, which maps the other way, from input to reference; ``*.nii`` or ``*.nii.gz`` for a
        field ``(i, j, k, 3)``, float32, intent 2006, which maps from reference to input.
    fixed
        The grid of the reference image; ``None`` takes the transform's.
    moving
        The grid of the input image.

    Raises
    ------
    FileError
        If the name has another ending, or does not fit the transform, or the file cannot be written.
    ConfigError
        If there is no fixed grid.

    Examples
    --------
    >>> from pathlib import Path
    >>> from convexadam import Affine, Grid
    >>> from convexadam.io import write_fsl
    >>> write_fsl(Affine(), "identity.mat", fixed=Grid((10, 10, 10)), moving=Grid((10, 10, 10)))
    >>> len(Path("identity.mat").read_text().split())
    16
    """
    if not str(path).endswith(".mat"):
        field = to_field(transform, fixed)
        vectors = (
            field_to_coordinates(field, _fsl_from_mm(moving), _fsl_from_indices(field.grid)).detach().cpu().float()
        )
        save_nifti(vectors.permute(1, 2, 3, 0).numpy(), field.grid, path, intent=INTENT_FSL_FIELD)
        return
    if not isinstance(transform, Affine):
        raise FileError(
            f"the transform in a .mat file of FSL must be an Affine, got {type(transform).__name__} for {path}; "
            "call it *.nii.gz to write a field"
        )
    if fixed is None:
        raise ConfigError(_FIXED_MISSING)
    matrix = _fsl_from_mm(fixed) @ np.linalg.inv(transform.matrix) @ np.linalg.inv(_fsl_from_mm(moving))
    with atomic_path(path) as temporary:
        temporary.write_text("".join("  ".join(f"{v:.17g}" for v in row) + "\n" for row in matrix), encoding="ascii")


@check_arguments
def read_fsl(path: StrPath, *, fixed: Grid | None, moving: Grid, device: torch.device | str | None = None) -> Transform:
    """Read a matrix of FLIRT, or a relative displacement field of FNIRT; see `write_fsl`.

    Parameters
    ----------
    path
        A text file of 4 x 4 numbers, or NIfTI ``(i, j, k, 3)``.
    fixed
        The grid of the reference image; a field brings its own.
    moving
        The grid of the input image.
    device
        Where vectors go; ``None`` is the CPU.

    Raises
    ------
    FileError
        If the file is unreadable, or a field of spline coefficients, of absolute positions or on another grid.
    ConfigError
        If the file is a matrix and ``fixed`` is ``None``.

    Examples
    --------
    >>> from convexadam import Affine, Grid
    >>> from convexadam.io import read_fsl, write_fsl
    >>> grid = Grid((10, 10, 10))
    >>> write_fsl(Affine(), "identity.mat", fixed=grid, moving=grid)
    >>> read_fsl("identity.mat", fixed=grid, moving=grid).matrix.diagonal().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    with check_file(path, "a transform of FSL") as source:
        matrix = read_text_matrix(source)
        if matrix is None:
            return _read_field(source, fixed, moving, device)
        if fixed is None:
            raise ConfigError(_FIXED_MISSING)
        return Affine(np.linalg.inv(_fsl_from_mm(moving)) @ np.linalg.inv(matrix) @ _fsl_from_mm(fixed))


def detect_fsl(header: FileHeader) -> DetectionResult:
    """Whether a file is a field of FNIRT, by its intent; a matrix, or a field without intent, is `Possible`."""
    if header.nifti is None:
        if header.archive is None and read_text_matrix(header.path) is not None:
            return Possible(
                content="a matrix of FLIRT or of any other frame and direction",
                needs=("fixed", "moving"),
                alternative="wrap a matrix in mm RAS+ from fixed to moving in Affine(numpy.loadtxt(...))",
            )
        return False
    shape, intent = header.nifti.shape, header.nifti.intent
    if len(shape) == 5 and shape[3:] == (1, 3):
        return False
    if intent in INTENTS_OF_COEFFICIENTS:
        return Unusable(problem=f"{_COEFFICIENTS} (intent {intent})", advice=_CONVERT_COEFFICIENTS)
    if intent == INTENT_FSL_FIELD:
        return True
    return Possible(content="a displacement field of FSL (mm)") if len(shape) == 4 and shape[3] == 3 else False


def read_text_matrix(source: Path) -> np.ndarray | None:
    """Return the 4x4 matrix in a text file, or ``None`` if the file holds anything else."""
    with source.open("rb") as file:
        begin = file.read(4096)
    try:
        rows = [[float(cell) for cell in line.split()] for line in begin.decode("ascii").splitlines() if line.strip()]
    except ValueError:
        return None
    return np.array(rows) if [len(row) for row in rows] == [4, 4, 4, 4] else None


def _read_field(source: Path, fixed: Grid | None, moving: Grid, device: torch.device | str | None) -> DisplacementField:
    nifti = load_nifti(source)
    header: Any = nifti.header
    intent, shape = int(header["intent_code"]), nifti.shape
    if intent in INTENTS_OF_COEFFICIENTS:
        raise FileError(f"cannot read {source}: it {_COEFFICIENTS} (intent {intent}); {_CONVERT_COEFFICIENTS}")
    if len(shape) != 4 or shape[3] != 3:
        raise FileError(
            f"cannot read {source}: the shape of a displacement field of FSL must be (i, j, k, 3), got {shape}; "
            "name another format"
        )
    grid = read_nifti_grid(nifti)
    if fixed is not None and not fixed.is_close(grid, tolerance=HEADER_ROUNDING):
        raise FileError(
            f"cannot read {source}: its grid must be the fixed grid {fixed!r}, got {grid!r}; pass the grid of the "
            "reference image, or omit it"
        )
    vectors = vectors_to_tensor(read_nifti_values(nifti), device)
    if _looks_absolute(vectors, grid):
        raise FileError(
            f"cannot read {source}: its vectors must be relative displacements, got absolute positions; convert it "
            "with convertwarp --relout"
        )
    return field_from_coordinates(vectors, grid, _fsl_from_mm(moving), _fsl_from_indices(grid))


def _looks_absolute(vectors: Field, grid: Grid) -> bool:
    """Whether subtracting the positions of the voxels reduces the standard deviation, which is FSL's own criterion."""
    own = field_to_coordinates(DisplacementField(vectors.new_zeros(vectors.shape), grid), _fsl_from_mm(grid))
    deviation = (vectors - own).flatten(1).double().std(dim=1).sum()
    return bool(deviation < vectors.flatten(1).double().std(dim=1).sum())


def _fsl_from_indices(grid: Grid) -> np.ndarray:
    """4x4 from voxel indices to FSL's mm."""
    matrix = np.diag([*grid.spacing_mm, 1.0])
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        matrix[0, 0], matrix[0, 3] = -matrix[0, 0], (grid.shape[0] - 1) * matrix[0, 0]
    return matrix


def _fsl_from_mm(grid: Grid) -> np.ndarray:
    """4x4 from mm RAS+ to FSL's mm."""
    return _fsl_from_indices(grid) @ np.linalg.inv(grid.affine)
