"""Displacement fields of the Learn2Reg challenge: those of its current evaluation, and of 2020 and 2021."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._atomic import atomic_path
from convexadam._typing import Field, Triple
from convexadam.errors import FileError
from convexadam.geometry import DisplacementField, Grid, Transform
from convexadam.io.coordinates import (
    field_from_coordinates,
    field_to_coordinates,
    to_field,
    vectors_to_tensor,
    world_to_index_matrix,
)
from convexadam.io.fsl import INTENT_FSL_FIELD, INTENTS_OF_COEFFICIENTS
from convexadam.io.learn2reg_checks import (
    FULL_IN_2021,
    check_learn2reg_name,
    find_value_problems,
    halve_shape,
    is_2021_shape,
    read_single_array,
    read_values,
)
from convexadam.io.nifti import save_nifti
from convexadam.io.reading import StrPath, check_file
from convexadam.io.transform_format import DetectionResult, FileHeader, Possible


@check_arguments
def write_learn2reg(
    transform: Transform, path: StrPath, *, fixed: Grid | None = None, moving: Grid | None = None
) -> None:
    """Write a transform in the format of Learn2Reg: ``(i, j, k, 3)`` in voxels, fixed to moving.

    The value at index ``x`` of the fixed image is ``y - x``, where ``y`` is the corresponding index of the moving
    image.

    Parameters
    ----------
    transform
        From fixed to moving space, on any device.
    path
        ``*.nii.gz`` for float32; ``*.npz`` for float16 under the key ``arr_0``, smaller and rounded: to 0.002 voxels
        for displacements up to 4 voxels, 0.008 up to 16 and 0.03 up to 64.
    fixed
        The fixed grid; ``None`` takes the grid of the transform.
    moving
        The moving grid; ``None`` takes the fixed grid, which both images of a pair of Learn2Reg share.

    Raises
    ------
    FileError
        If the name has another ending, the folder does not exist or the file cannot be written.
    ConfigError
        If ``fixed`` is ``None`` and the transform has no grid.

    Examples
    --------
    >>> import nibabel
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import write_learn2reg
    >>> write_learn2reg(DisplacementField(torch.zeros(3, 8, 7, 6), Grid((8, 7, 6))), "disp_0001_0002.nii.gz")
    >>> nibabel.load("disp_0001_0002.nii.gz").shape
    (8, 7, 6, 3)
    """
    check_learn2reg_name(path)
    disp_vox, grid = _displacement_voxels(transform, fixed, moving)
    vectors = disp_vox.permute(1, 2, 3, 0)
    if str(path).endswith(".nii.gz"):
        save_nifti(vectors.float().numpy(), grid, path)
    else:
        _write_npz(vectors.numpy(), path)


@check_arguments
def write_learn2reg_2021(
    transform: Transform, path: StrPath, *, fixed: Grid | None = None, moving: Grid | None = None
) -> None:
    """Write a field in the format of Learn2Reg 2020 and 2021: ``(3, i/2, j/2, k/2)``, float16, in fixed voxels.

    Downsampled with ``scipy.ndimage.zoom(component, 0.5, order=2)``; fields of 64 x 64 x 64 voxels (Hippocampus) keep
    their resolution. Parameters and errors are those of `write_learn2reg`, except that the name must end in ``.npz``.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import write_learn2reg_2021
    >>> write_learn2reg_2021(DisplacementField(torch.zeros(3, 8, 8, 8), Grid((8, 8, 8))), "disp_0001_0002.npz")
    >>> np.load("disp_0001_0002.npz")["arr_0"].shape
    (3, 4, 4, 4)
    """
    from scipy.ndimage import zoom

    if not str(path).endswith(".npz"):
        raise FileError(f"the name of a field for Learn2Reg 2021 must end in .npz, got {path}; change the ending")
    disp_vox, grid = _displacement_voxels(transform, fixed, moving)
    vectors = disp_vox.numpy()
    if grid.shape != FULL_IN_2021:
        vectors = np.stack([zoom(component, 0.5, order=2) for component in vectors])
    _write_npz(vectors, path)


@check_arguments
def read_learn2reg_voxels(path: StrPath, shape: Triple) -> np.ndarray:
    """Read a field of Learn2Reg with the values of the file, in voxels.

    Parameters
    ----------
    path
        ``*.npz`` with exactly one array under any key, or ``*.nii.gz``.
    shape
        Shape of the fixed image.

    Returns
    -------
    ``(3, i, j, k)`` float64: displacements in voxels, fixed to moving.

    Raises
    ------
    FileError
        If the file is unreadable, has another shape or type, or holds NaN or Inf.

    Examples
    --------
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import read_learn2reg_voxels, write_learn2reg
    >>> write_learn2reg(DisplacementField(torch.ones(3, 8, 7, 6), Grid((8, 7, 6))), "disp_0001_0002.nii.gz")
    >>> read_learn2reg_voxels("disp_0001_0002.nii.gz", (8, 7, 6)).shape
    (3, 8, 7, 6)
    """
    with check_file(path, "a displacement field of Learn2Reg") as source:
        values = read_values(source)
    problems = find_value_problems(values, shape)
    if problems:
        raise FileError(f"cannot read {path} as a field of this task: " + "; ".join(problems))
    return np.moveaxis(values, -1, 0).astype(np.float64)


@check_arguments
def read_learn2reg(
    path: StrPath, grid: Grid, *, moving: Grid | None = None, device: torch.device | str | None = None
) -> DisplacementField:
    """Read a field of Learn2Reg: ``(i, j, k, 3)`` in voxels, fixed to moving.

    Parameters
    ----------
    path
        ``*.npz`` with exactly one array under any key, or ``*.nii.gz``, whose affine is not used.
    grid
        The fixed grid, which the file does not hold.
    moving
        The moving grid; ``None`` takes the fixed grid, which both images of a pair of Learn2Reg share.
    device
        Where the vectors go; ``None`` is the CPU.

    Returns
    -------
    The transform, float32 (float64 where the file has it).

    Raises
    ------
    FileError
        If the file is unreadable, does not fit the grid, or holds NaN.

    Examples
    --------
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import read_learn2reg, write_learn2reg
    >>> grid = Grid((8, 8, 8))
    >>> write_learn2reg(DisplacementField(torch.ones(3, 8, 8, 8), grid), "disp_0001_0002.nii.gz")
    >>> read_learn2reg("disp_0001_0002.nii.gz", grid).disp_mm[:, 0, 0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    with check_file(path, "a displacement field of Learn2Reg") as source:
        values = read_values(source)
        if values.shape != (*grid.shape, 3):
            raise FileError(
                f"cannot read {source}: the shape of a field on this grid must be {(*grid.shape, 3)}, got "
                f"{values.shape}; pass the grid of the fixed image, or read files of 2021, components first, with "
                "read_learn2reg_2021"
            )
        return _field_from_voxels(vectors_to_tensor(values, device), grid, moving)


@check_arguments
def read_learn2reg_2021(
    path: StrPath, grid: Grid, *, moving: Grid | None = None, device: torch.device | str | None = None
) -> DisplacementField:
    """Read a field of Learn2Reg 2020 or 2021: ``(3, i, j, k)`` in fixed voxels, at half or full resolution.

    Upsampled with ``scipy.ndimage.zoom(order=2)``, as in the evaluation of those years. Parameters and errors are
    those of `read_learn2reg`.

    Examples
    --------
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import read_learn2reg_2021, write_learn2reg_2021
    >>> grid = Grid((8, 8, 8))
    >>> write_learn2reg_2021(DisplacementField(torch.ones(3, 8, 8, 8), grid), "disp_0001_0002.npz")
    >>> read_learn2reg_2021("disp_0001_0002.npz", grid).disp_mm[:, 0, 0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    from scipy.ndimage import zoom

    with check_file(path, "a displacement field of Learn2Reg 2021") as source:
        values = read_values(source)
        if not is_2021_shape(values.shape, grid.shape):
            half = (3, *halve_shape(grid.shape))
            raise FileError(
                f"cannot read {source}: the shape of a field of 2021 on this grid must be {half} or "
                f"{(3, *grid.shape)}, got {values.shape}; pass the grid of the fixed image"
            )
        vectors = np.moveaxis(values, 0, -1)
        if values.shape[1:] != grid.shape:
            factors = [whole / part for whole, part in zip(grid.shape, values.shape[1:], strict=True)]
            vectors = np.stack([zoom(component.astype(np.float32), factors, order=2) for component in values], axis=-1)
        return _field_from_voxels(vectors_to_tensor(vectors, device), grid, moving)


def detect_learn2reg(header: FileHeader) -> DetectionResult:
    """Whether a file is an archive of arrays; a NIfTI field ``(i, j, k, 3)`` without intent is `Possible`."""
    if header.archive is not None:
        return _holds_arrays(header) and not detect_learn2reg_2021(header)
    if header.nifti is None or len(header.nifti.shape) != 4 or header.nifti.shape[3] != 3:
        return False
    if header.nifti.intent in (INTENT_FSL_FIELD, *INTENTS_OF_COEFFICIENTS):
        return False
    return Possible(content="a displacement field of Learn2Reg or VoxelMorph (voxels)")


def detect_learn2reg_2021(header: FileHeader) -> bool:
    """Whether a file is an archive with the components first; without a fixed grid this is not known."""
    return _holds_arrays(header) and header.fixed is not None and is_2021_archive(header.path, header.fixed)


def _holds_arrays(header: FileHeader) -> bool:
    return header.archive is not None and all(name.endswith(".npy") for name in header.archive)


def is_2021_archive(source: Path, grid: Grid) -> bool:
    """Whether an ``.npz`` archive has the components first. Call it within `check_file`."""
    return is_2021_shape(read_single_array(source).shape, grid.shape)


def _displacement_voxels(transform: Transform, fixed: Grid | None, moving: Grid | None) -> tuple[Field, Grid]:
    """Displacements ``[3, i, j, k]`` from indices of the fixed grid to indices of the moving one."""
    field = to_field(transform, fixed)
    return field_to_coordinates(
        field, world_to_index_matrix(moving or field.grid), np.eye(4)
    ).detach().cpu(), field.grid


def _field_from_voxels(disp_vox: Field, grid: Grid, moving: Grid | None) -> DisplacementField:
    return field_from_coordinates(disp_vox, grid, world_to_index_matrix(moving or grid), np.eye(4))


def _write_npz(vectors: np.ndarray, path: StrPath) -> None:
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, vectors.astype(np.float16))
