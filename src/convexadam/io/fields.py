"""Displacement fields in mm as NIfTI files: those of ITK and ANTs (LPS), and those of intent 1006 (RAS+)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from convexadam._typing import Tensor
from convexadam.errors import FileError, GeometryError
from convexadam.geometry import DisplacementField, Grid
from convexadam.io.itk import flipped
from convexadam.io.nifti import (
    INTENT_DISPLACEMENT,
    INTENT_VECTOR,
    StrPath,
    has_right_angles,
    load_nifti,
    nifti_affine,
    nifti_values,
    save_nifti,
)
from convexadam.io.places import as_field
from convexadam.io.reading import reading


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
    _save(flipped(transform.disp_mm.detach().cpu().float()), transform.grid, path, INTENT_VECTOR)


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
        vectors, grid = _loaded(source, INTENT_VECTOR, device)
        return DisplacementField(flipped(vectors), grid)


def write_nifti_field(transform: DisplacementField, path: StrPath) -> None:
    """Write a transform as a NIfTI displacement field: ``(i, j, k, 1, 3)``, intent 1006, float32, mm RAS+.

    Parameters and errors are those of `write_itk_field`, but any grid will do. Some programs of ITK take the file for
    one of intent 1007, whose vectors are in LPS; give them that of `write_itk_field`.
    """
    _save(transform.disp_mm.detach().cpu().float(), transform.grid, path, INTENT_DISPLACEMENT)


def read_nifti_field(path: StrPath, *, device: torch.device | str | None = None) -> DisplacementField:
    """Read a NIfTI displacement field: ``(i, j, k, 1, 3)``, intent 1006, mm RAS+, fixed to moving.

    Parameters, result and errors are those of `read_itk_field`.
    """
    with reading(path, "a NIfTI displacement field") as source:
        return DisplacementField(*_loaded(source, INTENT_DISPLACEMENT, device))


def _save(vectors: Tensor, grid: Grid, path: StrPath, intent: int) -> None:
    save_nifti(vectors.permute(1, 2, 3, 0)[:, :, :, None].numpy(), grid, path, intent=intent)


def _loaded(source: Path, needed: int, device: torch.device | str | None) -> tuple[Tensor, Grid]:
    nifti = load_nifti(source)
    shape = nifti.shape
    header: Any = nifti.header
    intent = int(header["intent_code"])
    whose, frame = ("ITK", "LPS") if needed == INTENT_VECTOR else ("NIfTI", "RAS+")
    if len(shape) != 5 or shape[3:] != (1, 3):
        raise FileError(
            f"{source} has shape {shape}, but a field of {whose} has (i, j, k, 1, 3); see also read_learn2reg"
        )
    if intent != needed:
        raise FileError(
            f"{source} has intent {intent}, but displacement fields of {whose} have {needed} (vectors in mm {frame}); "
            "with another one their frame is not known: see read_transform, or convert it with the program that made it"
        )
    vectors = as_field(nifti_values(nifti)[:, :, :, 0], device)
    return vectors, Grid((shape[0], shape[1], shape[2]), nifti_affine(nifti))
