"""Displacement fields in the files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam._typing import Tensor
from convexadam.errors import FileError, GeometryError
from convexadam.geometry import DisplacementField, Grid
from convexadam.geometry.tensors import to_device
from convexadam.io.atomic import atomic_path
from convexadam.io.nifti import (
    INTENT_VECTOR,
    StrPath,
    has_right_angles,
    load_nifti,
    nifti_affine,
    nifti_values,
    save_nifti,
)
from convexadam.io.reading import reading

_LPS = (-1.0, -1.0, 1.0)
"""Signs that take vectors in mm from RAS+ to LPS, and back."""


def write_itk_field(transform: DisplacementField, path: StrPath) -> None:
    """Write a transform as the displacement field that ITK, ANTs and Slicer read.

    NIfTI of shape ``(i, j, k, 1, 3)``, intent 1007 (vector), float32: for each voxel of the fixed grid how far its
    point moves towards moving space, in mm LPS. ``antsApplyTransforms -t`` and ``SimpleITK.DisplacementFieldTransform``
    take it as it is.

    Parameters
    ----------
    transform
        From fixed to moving space, on any device.
    path
        Ends in ``.nii`` or ``.nii.gz``; an old file of that name is replaced, whole or not at all.

    Raises
    ------
    FileError
        If the name ends otherwise, the folder is missing or the file cannot be written.
    GeometryError
        If the axes of the grid are not at right angles: ITK knows no such grids.
    """
    if not has_right_angles(transform.grid):
        raise GeometryError(
            "the axes of the fixed grid are not at right angles, and ITK knows no such grids; "
            "write transform.resample_onto(a grid without shear)"
        )
    vectors = _flipped(transform.disp_mm.detach().cpu().float())
    save_nifti(vectors.permute(1, 2, 3, 0)[:, :, :, None].numpy(), transform.grid, path, intent=INTENT_VECTOR)


def read_itk_field(path: StrPath, *, device: torch.device | str | None = None) -> DisplacementField:
    """Read a displacement field of ITK or ANTs: NIfTI ``(i, j, k, 1, 3)``, intent 1007, mm LPS, fixed to moving.

    Parameters
    ----------
    path
        A file like those of `write_itk_field`.
    device
        Where the vectors go; ``None`` is the CPU.

    Returns
    -------
    The transform, float32 (float64 where the file has it), on the grid of the file.

    Raises
    ------
    FileError
        If the file is unreadable, has another shape or intent (and so perhaps another frame), or holds NaN.
    """
    with reading(path, "a displacement field of ITK") as source:
        nifti = load_nifti(source)
        shape = nifti.shape
        header: Any = nifti.header
        intent = int(header["intent_code"])
        if len(shape) != 5 or shape[3:] != (1, 3):
            raise FileError(
                f"{source} has shape {shape}, but a field of ITK has (i, j, k, 1, 3); see also read_learn2reg"
            )
        if intent != INTENT_VECTOR:
            raise FileError(
                f"{source} has intent {intent}, but displacement fields of ITK and ANTs have {INTENT_VECTOR} (vectors "
                "in mm LPS); with another one their frame is not known: convert it with the program that made it"
            )
        vectors = _as_field(nifti_values(nifti)[:, :, :, 0], device)
        return DisplacementField(_flipped(vectors), Grid((shape[0], shape[1], shape[2]), nifti_affine(nifti)))


def write_learn2reg(transform: DisplacementField, path: StrPath) -> None:
    """Write a transform as Learn2Reg wants it: ``(i, j, k, 3)`` in voxels of the fixed grid, fixed to moving.

    Parameters
    ----------
    transform
        From fixed to moving space, on any device. Learn2Reg's pairs share one grid: the transform's.
    path
        ``*.nii.gz`` for float32; ``*.npz`` for float16 under the key ``arr_0``, compact and rounded: to 0.002 voxels
        for displacements up to 4 voxels, 0.008 up to 16 and 0.03 up to 64.

    Raises
    ------
    FileError
        If the name ends otherwise, the folder is missing or the file cannot be written.
    """
    check_learn2reg_name(path)
    vectors = transform.to_voxels().detach().cpu().permute(1, 2, 3, 0)
    if str(path).endswith(".nii.gz"):
        save_nifti(vectors.float().numpy(), transform.grid, path)
    else:
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, vectors.half().numpy())


def check_learn2reg_name(path: StrPath) -> None:
    """Raise `FileError` unless a field for Learn2Reg can be written under that name."""
    if not str(path).endswith((".nii.gz", ".npz")):
        raise FileError(f"a field for Learn2Reg is called *.nii.gz or *.npz, but the name is {path}; change its ending")


def read_learn2reg(path: StrPath, grid: Grid, *, device: torch.device | str | None = None) -> DisplacementField:
    """Read a field of Learn2Reg: ``(i, j, k, 3)`` in voxels of the fixed grid, fixed to moving.

    Parameters
    ----------
    path
        ``*.npz`` with exactly one array under any key, or ``*.nii.gz``, whose affine is not used.
    grid
        The fixed grid: the file does not say where its voxels are.
    device
        Where the vectors go; ``None`` is the CPU.

    Returns
    -------
    The transform, float32 (float64 where the file has it).

    Raises
    ------
    FileError
        If the file is unreadable, does not fit the grid, or holds NaN.
    """
    with reading(path, "a displacement field of Learn2Reg") as source:
        values = _only_array(source) if source.suffix == ".npz" else nifti_values(load_nifti(source))
        if values.shape != (*grid.shape, 3):
            raise FileError(
                f"{source} has shape {values.shape}, but on this grid a field has {(*grid.shape, 3)}; pass the grid of "
                "the fixed image (the half-resolution files of 2021, channels first, have to be brought to it before)"
            )
        return DisplacementField.from_voxels(_as_field(values, device), grid)


def _flipped(vectors: Tensor) -> Tensor:
    return vectors * torch.tensor(_LPS, dtype=vectors.dtype, device=vectors.device).reshape(3, 1, 1, 1)


def _only_array(path: Path) -> np.ndarray:
    with path.open("rb") as file:  # numpy leaves files that it opened itself open when they are damaged
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile) or len(archive.files) != 1:
            raise FileError(f"{path} is no .npz archive with exactly one array; save the field alone")
        return np.asarray(archive[archive.files[0]])


def _as_field(values: np.ndarray, device: torch.device | str | None) -> Tensor:
    """Vectors ``[i, j, k, 3]`` of any byte order as a tensor ``[3, i, j, k]``, at least float32."""
    kind = np.float64 if values.dtype.kind == "f" and values.dtype.itemsize >= 8 else np.float32
    return to_device(torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0), dtype=kind)), device or "cpu")
