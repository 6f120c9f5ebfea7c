"""FSL: matrices of FLIRT and relative displacement fields as FNIRT writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam._atomic import atomic_path
from convexadam._typing import Field
from convexadam.errors import ConfigError, FileError
from convexadam.geometry import Affine, DisplacementField, Grid, Transform
from convexadam.io.nifti import StrPath, load_nifti, nifti_affine, nifti_values, save_nifti
from convexadam.io.places import as_field, as_field_on, field_of, places_of
from convexadam.io.reading import reading

INTENT_FSL_FIELD = 2006
INTENTS_OF_COEFFICIENTS = (2007, 2008, 2009)


def write_fsl(transform: Transform, path: StrPath, *, fixed: Grid | None, moving: Grid) -> None:
    """Write a transform for FSL: an affine one as a matrix of FLIRT, any as a relative field for ``applywarp``.

    FSL's coordinates are voxel indices times voxel sizes, with the first axis counted from its far end where the
    affine has a positive determinant; the affine itself means nothing to it. Hence both grids are needed.

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
        If the name ends otherwise, or does not fit the transform, or the file cannot be written.
    ConfigError
        If there is no fixed grid.
    """
    if not str(path).endswith(".mat"):
        field = as_field_on(transform, fixed)
        vectors = places_of(field, _fsl_from_mm(moving), _fsl_from_indices(field.grid)).detach().cpu().float()
        save_nifti(vectors.permute(1, 2, 3, 0).numpy(), field.grid, path, intent=INTENT_FSL_FIELD)
        return
    if not isinstance(transform, Affine):
        raise FileError(
            f"a .mat file of FSL holds an affine transform, but a {type(transform).__name__} came for {path}"
        )
    if fixed is None:
        raise ConfigError("a matrix of FLIRT needs the grids of both images; pass fixed=")
    matrix = _fsl_from_mm(fixed) @ np.linalg.inv(transform.matrix) @ np.linalg.inv(_fsl_from_mm(moving))
    with atomic_path(path) as temporary:
        temporary.write_text("".join("  ".join(f"{v:.17g}" for v in row) + "\n" for row in matrix), encoding="ascii")


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
        If a matrix comes without ``fixed``.
    """
    with reading(path, "a transform of FSL") as source:
        matrix = text_matrix(source)
        if matrix is None:
            return _read_field(source, fixed, moving, device)
        if fixed is None:
            raise ConfigError("a matrix of FLIRT needs the grids of both images; pass fixed=")
        return Affine(np.linalg.inv(_fsl_from_mm(moving)) @ np.linalg.inv(matrix) @ _fsl_from_mm(fixed))


def text_matrix(source: Path) -> np.ndarray | None:
    """Return the 4x4 numbers that a text file consists of, or ``None`` if it is something else."""
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
        raise FileError(f"{source} holds coefficients (intent {intent}); make a field of it with fnirtfileutils --out")
    if len(shape) != 4 or shape[3] != 3:
        raise FileError(f"{source} has shape {shape}, but a displacement field of FSL has (i, j, k, 3)")
    grid = Grid((shape[0], shape[1], shape[2]), nifti_affine(nifti))
    if fixed is not None and not fixed.same_as(grid):
        raise FileError(
            f"{source} lies on {grid!r}, but the fixed grid is {fixed!r}; pass the reference image's, or none"
        )
    vectors = as_field(nifti_values(nifti), device)
    if _looks_absolute(vectors, grid):
        raise FileError(
            f"{source} holds absolute positions, but displacements are needed; convert it with convertwarp --relout"
        )
    return field_of(vectors, grid, _fsl_from_mm(moving), _fsl_from_indices(grid))


def _looks_absolute(vectors: Field, grid: Grid) -> bool:
    """Whether the values vary less once each voxel's own place is taken from them, which is how FSL tells."""
    own = places_of(DisplacementField(vectors.new_zeros(vectors.shape), grid), _fsl_from_mm(grid))
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
