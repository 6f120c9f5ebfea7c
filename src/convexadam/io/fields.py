"""Displacement fields in mm as NIfTI files: those of ITK and ANTs (LPS), and those of intent 1006 (RAS+)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from convexadam._arguments import check_arguments
from convexadam._typing import Tensor
from convexadam.errors import FileError, GeometryError
from convexadam.geometry import DisplacementField, Grid
from convexadam.io.coordinates import vectors_to_tensor
from convexadam.io.deformations import NIFTYREG_NAME, SPM_NAME, guess_content, has_field_shape
from convexadam.io.itk import flip_lps
from convexadam.io.nifti import (
    INTENT_DISPLACEMENT,
    INTENT_VECTOR,
    has_right_angles,
    read_intent_name,
    read_nifti_grid,
    read_nifti_values,
    save_nifti,
)
from convexadam.io.nifti_file import load_nifti
from convexadam.io.reading import StrPath, check_file
from convexadam.io.transform_format import DetectionResult, FileHeader, Unusable

_OTHER_PROGRAMS = {SPM_NAME: "spm", NIFTYREG_NAME: "niftyreg"}
"""Names of intents that have this shape, and the formats to read them."""


@check_arguments
def write_itk_field(transform: DisplacementField, path: StrPath) -> None:
    """Write a transform as the displacement field that ITK, ANTs and Slicer read.

    NIfTI of shape ``(i, j, k, 1, 3)``, intent 1007 (vector), float32: the displacement of each voxel of the fixed grid,
    from fixed to moving space, in mm LPS. ``antsApplyTransforms -t`` and ``SimpleITK.DisplacementFieldTransform`` read
    it.

    Parameters
    ----------
    transform
        From fixed to moving space, on any device.
    path
        Ends in ``.nii`` or ``.nii.gz``. An existing file is replaced after the new one is complete.

    Raises
    ------
    FileError
        If the name has another ending, the folder does not exist or the file cannot be written.
    GeometryError
        If the axes of the grid are not orthogonal: ITK has no such grids.

    Examples
    --------
    >>> import nibabel
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import write_itk_field
    >>> write_itk_field(DisplacementField(torch.ones(3, 8, 7, 6), Grid((8, 7, 6))), "warp.nii.gz")
    >>> nibabel.load("warp.nii.gz").get_fdata()[0, 0, 0, 0].tolist()  # mm LPS
    [-1.0, -1.0, 1.0]
    """
    if not has_right_angles(transform.grid):
        raise GeometryError(
            f"the fixed grid of a field of ITK must have orthogonal axes (right angles), got {transform.grid!r} with "
            "shear; write transform.to_displacement_field(a grid without shear)"
        )
    _write_vectors(flip_lps(transform.disp_mm.detach().cpu().float()), transform.grid, path, INTENT_VECTOR)


@check_arguments
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
        If the file is unreadable, has another shape or intent (whose frame may differ), or holds NaN.

    Examples
    --------
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import read_itk_field, write_itk_field
    >>> write_itk_field(DisplacementField(torch.ones(3, 8, 7, 6), Grid((8, 7, 6))), "warp.nii.gz")
    >>> read_itk_field("warp.nii.gz").disp_mm[:, 0, 0, 0].tolist()  # mm RAS+; the file holds LPS
    [1.0, 1.0, 1.0]
    """
    with check_file(path, "a displacement field of ITK") as source:
        vectors, grid = _read_vectors(source, INTENT_VECTOR, device)
        return DisplacementField(flip_lps(vectors), grid)


@check_arguments
def write_nifti_field(transform: DisplacementField, path: StrPath) -> None:
    """Write a transform as a NIfTI displacement field: ``(i, j, k, 1, 3)``, intent 1006, float32, mm RAS+.

    Parameters and errors are those of `write_itk_field`, but the grid may be sheared. Some programs based on ITK ignore
    the intent and read the vectors as LPS; write files for them with `write_itk_field`.

    Examples
    --------
    >>> import nibabel
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import write_nifti_field
    >>> write_nifti_field(DisplacementField(torch.ones(3, 8, 7, 6), Grid((8, 7, 6))), "field.nii.gz")
    >>> nibabel.load("field.nii.gz").get_fdata()[0, 0, 0, 0].tolist()  # mm RAS+
    [1.0, 1.0, 1.0]
    """
    _write_vectors(transform.disp_mm.detach().cpu().float(), transform.grid, path, INTENT_DISPLACEMENT)


@check_arguments
def read_nifti_field(path: StrPath, *, device: torch.device | str | None = None) -> DisplacementField:
    """Read a NIfTI displacement field: ``(i, j, k, 1, 3)``, intent 1006, mm RAS+, fixed to moving.

    Parameters, result and errors are those of `read_itk_field`.

    Examples
    --------
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import read_nifti_field, write_nifti_field
    >>> write_nifti_field(DisplacementField(torch.ones(3, 8, 7, 6), Grid((8, 7, 6))), "field.nii.gz")
    >>> read_nifti_field("field.nii.gz").grid.shape
    (8, 7, 6)
    """
    with check_file(path, "a NIfTI displacement field") as source:
        return DisplacementField(*_read_vectors(source, INTENT_DISPLACEMENT, device))


def detect_itk_field(header: FileHeader) -> DetectionResult:
    """Whether a file is a NIfTI field of ITK; a field without a known intent is `Unusable`."""
    if header.nifti is None or not has_field_shape(header.nifti) or header.nifti.name in _OTHER_PROGRAMS:
        return False
    intent = header.nifti.intent
    if intent in (INTENT_VECTOR, INTENT_DISPLACEMENT):
        return intent == INTENT_VECTOR
    return Unusable(
        problem=f"has the shape of a displacement field and intent {intent}, which does not tell the frame of its "
        "vectors",
        advice="set the intent to 1007 if they are in mm LPS (format='itk'), or to 1006 if they are in mm RAS+ "
        "(format='nifti'); read positions of SPM with format='spm'",
    )


def detect_nifti_field(header: FileHeader) -> DetectionResult:
    """Whether a file is a NIfTI displacement field, intent 1006."""
    nifti = header.nifti
    return (
        nifti is not None
        and has_field_shape(nifti)
        and nifti.intent == INTENT_DISPLACEMENT
        and nifti.name not in _OTHER_PROGRAMS
    )


def _write_vectors(vectors: Tensor, grid: Grid, path: StrPath, intent: int) -> None:
    save_nifti(vectors.permute(1, 2, 3, 0)[:, :, :, None].numpy(), grid, path, intent=intent)


def _read_vectors(source: Path, needed: int, device: torch.device | str | None) -> tuple[Tensor, Grid]:
    nifti = load_nifti(source)
    shape = nifti.shape
    header: Any = nifti.header
    intent = int(header["intent_code"])
    whose, frame = ("ITK", "LPS") if needed == INTENT_VECTOR else ("NIfTI", "RAS+")
    if len(shape) != 5 or shape[3:] != (1, 3):
        raise FileError(
            f"cannot read {source}: the shape of a field of {whose} must be (i, j, k, 1, 3), got {shape}; read fields "
            "of shape (i, j, k, 3) with read_learn2reg or read_fsl"
        )
    if intent != needed:
        raise FileError(
            f"cannot read {source}: the intent of a field of {whose} must be {needed} (vectors in mm {frame}), got "
            f"{intent}, with which their frame is unknown; read it with read_transform, or convert it with the program "
            "that wrote it"
        )
    vectors, grid = vectors_to_tensor(read_nifti_values(nifti)[:, :, :, 0], device), read_nifti_grid(nifti)
    name = read_intent_name(header)
    if name in _OTHER_PROGRAMS:
        raise FileError(
            f"cannot read {source}: the name of its intent must not be that of another program, got {name!r}; read it "
            f"with format={_OTHER_PROGRAMS[name]!r}"
        )
    if name:
        warnings.warn(
            f"{source} names its vectors {name!r}, which the files of {whose} do not; they were taken as displacements "
            f"in mm {frame}; convert the file with the program that wrote it if they are something else",
            stacklevel=3,
        )
    if guess_content(vectors, grid, lps=needed == INTENT_VECTOR) == "positions":
        raise FileError(
            f"cannot read {source}: its vectors must be displacements, got absolute positions (their mean map is "
            "closer to a rigid one than that of displacements); read them with format='spm' if they are in mm RAS+"
        )
    return vectors, grid
