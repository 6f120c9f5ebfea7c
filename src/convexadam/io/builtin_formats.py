"""The file formats for transforms that come with the package, as values of one table."""

from __future__ import annotations

from pathlib import Path

import torch

from convexadam.geometry import Grid, Transform
from convexadam.io.coordinates import to_field
from convexadam.io.deformations import (
    NIFTYREG_NAME,
    SPM_NAME,
    detect_niftyreg,
    detect_spm,
    read_niftyreg,
    read_spm,
    write_deformation,
)
from convexadam.io.fields import (
    detect_itk_field,
    detect_nifti_field,
    read_itk_field,
    read_nifti_field,
    write_itk_field,
    write_nifti_field,
)
from convexadam.io.fsl import detect_fsl, read_fsl, write_fsl
from convexadam.io.itk_transforms import (
    ITK_SUFFIXES,
    detect_itk_transform,
    read_itk_transform,
    write_itk_transform,
)
from convexadam.io.learn2reg import (
    detect_learn2reg,
    detect_learn2reg_2021,
    read_learn2reg,
    read_learn2reg_2021,
    write_learn2reg,
    write_learn2reg_2021,
)
from convexadam.io.nifti_file import has_nifti_signature, read_head
from convexadam.io.torch_grid import detect_torch_grid, read_torch_grid, write_torch_grid
from convexadam.io.transform_format import DetectionResult, FileHeader, TransformFormat
from convexadam.io.x5 import detect_x5, read_x5, write_x5

_NIFTI_SUFFIXES = (".nii.gz", ".nii")

_Device = torch.device | str | None


def _detect_itk(header: FileHeader) -> DetectionResult:
    return detect_itk_transform(header) or detect_itk_field(header)


def _read_itk(path: Path, *, fixed: Grid | None, moving: Grid | None, device: _Device) -> Transform:
    if has_nifti_signature(read_head(path)):
        return read_itk_field(path, device=device)
    return read_itk_transform(path, fixed, device)


def _write_itk(transform: Transform, path: Path, *, fixed: Grid | None, moving: Grid | None) -> None:
    if path.name.endswith(_NIFTI_SUFFIXES):
        write_itk_field(to_field(transform, fixed), path)
    else:
        write_itk_transform(transform, path)


def _read_nifti(path: Path, *, fixed: Grid | None, moving: Grid | None, device: _Device) -> Transform:
    return read_nifti_field(path, device=device)


def _write_nifti(transform: Transform, path: Path, *, fixed: Grid | None, moving: Grid | None) -> None:
    write_nifti_field(to_field(transform, fixed), path)


def _read_spm(path: Path, *, fixed: Grid | None, moving: Grid | None, device: _Device) -> Transform:
    return read_spm(path, device=device)


def _write_spm(transform: Transform, path: Path, *, fixed: Grid | None, moving: Grid | None) -> None:
    write_deformation(transform, path, fixed=fixed, name=SPM_NAME)


def _read_niftyreg(path: Path, *, fixed: Grid | None, moving: Grid | None, device: _Device) -> Transform:
    return read_niftyreg(path, device=device)


def _write_niftyreg(transform: Transform, path: Path, *, fixed: Grid | None, moving: Grid | None) -> None:
    write_deformation(transform, path, fixed=fixed, name=NIFTYREG_NAME)


def _read_learn2reg(path: Path, *, fixed: Grid | None, moving: Grid | None, device: _Device) -> Transform:
    assert fixed is not None  # by read_needs
    return read_learn2reg(path, fixed, moving=moving, device=device)


def _read_learn2reg_2021(path: Path, *, fixed: Grid | None, moving: Grid | None, device: _Device) -> Transform:
    assert fixed is not None  # by read_needs
    return read_learn2reg_2021(path, fixed, moving=moving, device=device)


def _read_torch(path: Path, *, fixed: Grid | None, moving: Grid | None, device: _Device) -> Transform:
    return read_torch_grid(path, device=device)


def _write_torch(transform: Transform, path: Path, *, fixed: Grid | None, moving: Grid | None) -> None:
    assert moving is not None  # by write_needs
    write_torch_grid(transform, path, fixed=fixed, moving=moving)


def _read_fsl(path: Path, *, fixed: Grid | None, moving: Grid | None, device: _Device) -> Transform:
    assert moving is not None  # by read_needs
    return read_fsl(path, fixed=fixed, moving=moving, device=device)


def _write_fsl(transform: Transform, path: Path, *, fixed: Grid | None, moving: Grid | None) -> None:
    assert moving is not None  # by write_needs
    write_fsl(transform, path, fixed=fixed, moving=moving)


def _read_x5(path: Path, *, fixed: Grid | None, moving: Grid | None, device: _Device) -> Transform:
    return read_x5(path, device=device)


def _write_x5(transform: Transform, path: Path, *, fixed: Grid | None, moving: Grid | None) -> None:
    write_x5(transform, path, fixed=fixed)


BUILTIN_FORMATS = (
    TransformFormat(
        name="itk",
        convention="mm LPS, as in ITK, ANTs and Slicer",
        contents="NIfTI field `(i, j, k, 1, 3)`, intent 1007; or a transform file: matrices, fields, chains "
        "(`.mat`: one matrix)",
        suffixes=(*_NIFTI_SUFFIXES, *ITK_SUFFIXES),
        default_suffixes=(*_NIFTI_SUFFIXES, *ITK_SUFFIXES),
        detect=_detect_itk,
        read=_read_itk,
        write=_write_itk,
    ),
    TransformFormat(
        name="nifti",
        convention="mm RAS+, NIfTI intent 1006",
        contents="NIfTI field `(i, j, k, 1, 3)`, intent 1006",
        suffixes=_NIFTI_SUFFIXES,
        detect=detect_nifti_field,
        read=_read_nifti,
        write=_write_nifti,
    ),
    TransformFormat(
        name="spm",
        convention="mm RAS+, absolute positions",
        contents="deformation `y_*.nii` or `iy_*.nii`: NIfTI `(i, j, k, 1, 3)`, intent 1007 of name `Mapping`",
        suffixes=_NIFTI_SUFFIXES,
        detect=detect_spm,
        read=_read_spm,
        write=_write_spm,
    ),
    TransformFormat(
        name="niftyreg",
        convention="mm RAS+, absolute positions",
        contents="dense field of NiftyReg: NIfTI `(i, j, k, 1, 3)`, intent name `NREG_TRANS`; displacements are read "
        "as well, control points and velocities are not",
        suffixes=_NIFTI_SUFFIXES,
        detect=detect_niftyreg,
        read=_read_niftyreg,
        write=_write_niftyreg,
    ),
    TransformFormat(
        name="learn2reg",
        convention="voxels",
        contents="field `(i, j, k, 3)`, float16 in `.npz` and float32 in NIfTI; fields of VoxelMorph have this layout",
        suffixes=(".npz", ".nii.gz"),
        default_suffixes=(".npz",),
        read_needs=("fixed",),
        detect=detect_learn2reg,
        read=_read_learn2reg,
        write=write_learn2reg,
    ),
    TransformFormat(
        name="learn2reg-2021",
        convention="voxels of the full grid, at half resolution",
        contents="field `(3, i/2, j/2, k/2)`, float16",
        suffixes=(".npz",),
        read_needs=("fixed",),
        detect=detect_learn2reg_2021,
        read=_read_learn2reg_2021,
        write=write_learn2reg_2021,
    ),
    TransformFormat(
        name="torch",
        convention="positions for grid_sample, -1 to 1",
        contents="sampling grid `[1, i, j, k, 3]` with both affines",
        suffixes=(".pt",),
        default_suffixes=(".pt",),
        write_needs=("moving",),
        detect=detect_torch_grid,
        read=_read_torch,
        write=_write_torch,
    ),
    TransformFormat(
        name="fsl",
        convention="mm in the frames of FSL",
        contents="matrix of FLIRT (`.mat`, from moving to fixed; needs `fixed=` as well), or relative NIfTI field "
        "`(i, j, k, 3)` of FNIRT, intent 2006",
        suffixes=(".mat", *_NIFTI_SUFFIXES),
        read_needs=("moving",),
        write_needs=("moving",),
        detect=detect_fsl,
        read=_read_fsl,
        write=_write_fsl,
    ),
    TransformFormat(
        name="x5",
        convention="mm RAS+",
        contents="one matrix, or one field",
        suffixes=(".x5",),
        default_suffixes=(".x5",),
        detect=detect_x5,
        read=_read_x5,
        write=_write_x5,
    ),
)
"""In the order in which they are detected and listed."""
