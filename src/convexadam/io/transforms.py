"""Transforms in the files of any program: one function to read, one to write."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch

from convexadam.errors import ConfigError, FileError, InputError
from convexadam.geometry import Grid, Image, Transform
from convexadam.io.detect import TransformFormat, detected
from convexadam.io.fields import read_itk_field, read_nifti_field, write_itk_field, write_nifti_field
from convexadam.io.fsl import read_fsl, write_fsl
from convexadam.io.itk_transforms import ITK_ENDINGS, read_itk_transform, write_itk_transform
from convexadam.io.learn2reg import (
    read_learn2reg,
    read_learn2reg_2021,
    write_learn2reg,
    write_learn2reg_2021,
)
from convexadam.io.nifti import StrPath
from convexadam.io.places import as_field_on
from convexadam.io.reading import reading
from convexadam.io.torch_grid import read_torch_grid, write_torch_grid
from convexadam.io.x5 import read_x5, write_x5

_FORMAT_OF_ENDING: dict[str, TransformFormat] = {
    ".nii": "itk",
    ".nii.gz": "itk",
    **dict.fromkeys(ITK_ENDINGS, "itk"),
    ".npz": "learn2reg",
    ".pt": "torch",
    ".x5": "x5",
}


def write_transform(
    transform: Transform,
    path: StrPath,
    *,
    format: TransformFormat | None = None,  # noqa: A002 - the word that users know from other libraries
    fixed: Grid | Image | None = None,
    moving: Grid | Image | None = None,
) -> None:
    """Write a transform for another program, whole or not at all.

    Parameters
    ----------
    transform
        From fixed to moving space.
    path
        An old file is replaced. Formats that hold a field alone resample affine transforms and chains onto the fixed
        grid.
    format
        ``None`` chooses by the ending:

        - ``.nii``, ``.nii.gz``: ``"itk"``, the field of ITK, ANTs and Slicer (intent 1007, mm LPS);
        - ``.h5``, ``.tfm``, ``.txt``: ``"itk"``, a transform file, in which chains stay chains; ``.mat`` for an affine
          transform alone;
        - ``.npz``: ``"learn2reg"`` (`write_learn2reg`); that format also takes ``.nii.gz`` when named;
        - ``.pt``: ``"torch"``, a sampling grid (`write_torch_grid`);
        - ``.x5``: ``"x5"`` (`write_x5`).

        Only by name: ``"nifti"`` (a field of intent 1006, mm RAS+), ``"learn2reg-2021"`` (half resolution, components
        first, ``.npz``), ``"fsl"`` (``.mat`` for FLIRT, ``.nii.gz`` for a relative field).
    fixed
        The fixed grid, or an image that has it; ``None`` takes the transform's own. ITK's transform files use none.
    moving
        The moving grid, or an image that has it: ``"torch"`` and ``"fsl"`` need it. ``"learn2reg"`` takes the fixed
        grid without it.

    Raises
    ------
    ConfigError
        If there is no such format, or a grid is missing.
    FileError
        If the ending says nothing or does not fit the format or transform, or the file cannot be written.
    GeometryError
        If the format knows no such grids: those of ITK have right angles.
    MissingExtraError
        If an optional package is needed: SimpleITK for ITK's transform files, nitransforms for X5.
    """
    if not isinstance(transform, Transform):
        raise InputError(f"a transform is written, but a {type(transform).__name__} came; wrap a matrix in Affine(...)")
    chosen = _format_of(path) if format is None else _known(format)
    onto, source = _grid(fixed, "fixed"), _grid(moving, "moving")
    if chosen == "itk" and Path(path).suffix in ITK_ENDINGS:
        write_itk_transform(transform, path)
    elif chosen == "itk":
        write_itk_field(as_field_on(transform, onto), path)
    elif chosen == "nifti":
        write_nifti_field(as_field_on(transform, onto), path)
    elif chosen == "learn2reg":
        write_learn2reg(transform, path, fixed=onto, moving=source)
    elif chosen == "learn2reg-2021":
        write_learn2reg_2021(transform, path, fixed=onto, moving=source)
    elif chosen == "torch":
        write_torch_grid(transform, path, fixed=onto, moving=_needed(source, "moving", chosen))
    elif chosen == "fsl":
        write_fsl(transform, path, fixed=onto, moving=_needed(source, "moving", chosen))
    else:
        write_x5(transform, path, fixed=onto)


def read_transform(
    path: StrPath,
    *,
    format: TransformFormat | None = None,  # noqa: A002 - as in write_transform
    fixed: Grid | Image | None = None,
    moving: Grid | Image | None = None,
    device: torch.device | str | None = None,
) -> Transform:
    """Read a transform of another program; what `write_transform` writes comes back.

    Parameters
    ----------
    path
        The file.
    format
        As in `write_transform`. ``None`` looks into the file; its name is not believed. Where the content does not say
        what the numbers mean (a NIfTI of shape ``(i, j, k, 3)`` may be of FSL, Learn2Reg or VoxelMorph; 4 x 4 numbers
        may map either way, in any frame) the file is refused, and the message says what to pass.
    fixed
        The fixed grid, or an image that has it: for files that do not say where their voxels are (``"learn2reg"``,
        ``"learn2reg-2021"``), matrices of FSL, and splines of ITK. Other fields bring their own grid.
    moving
        The moving grid, or an image that has it: for ``"fsl"``; ``"learn2reg"`` takes the fixed grid without it.
    device
        Where vectors go; ``None`` is the CPU.

    Returns
    -------
    `Affine`, `DisplacementField` or `Composite`, from fixed to moving space.

    Raises
    ------
    FileError
        If the file is missing, damaged, of an unknown kind, or does not say enough.
    ConfigError
        If there is no such format, or a grid is missing.
    MissingExtraError
        If an optional package is needed: SimpleITK for ITK's transform files, nitransforms for X5.
    """
    onto, source_grid = _grid(fixed, "fixed"), _grid(moving, "moving")
    with reading(path, "a transform") as source:
        found = detected(source, fixed=onto, named=format is not None)
        chosen = found.format if format is None else _known(format)
        if chosen is None:
            raise FileError(f"{source} {found.reason}")
        return _read(source, chosen, found.is_nifti, onto, source_grid, device)


def _read(
    source: Path,
    chosen: TransformFormat,
    is_nifti: bool,
    fixed: Grid | None,
    moving: Grid | None,
    device: torch.device | str | None,
) -> Transform:
    complete = {"nifti": read_nifti_field, "torch": read_torch_grid, "x5": read_x5}
    if chosen in complete:
        return complete[chosen](source, device=device)
    if chosen == "itk":
        return read_itk_field(source, device=device) if is_nifti else read_itk_transform(source, fixed, device)
    if chosen == "fsl":
        return read_fsl(source, fixed=fixed, moving=_needed(moving, "moving", chosen), device=device)
    read = read_learn2reg if chosen == "learn2reg" else read_learn2reg_2021
    return read(source, _needed(fixed, "fixed", chosen), moving=moving, device=device)


def _format_of(path: StrPath) -> TransformFormat:
    name = Path(path).name
    for ending, found in _FORMAT_OF_ENDING.items():
        if name.endswith(ending):
            return found
    raise FileError(
        f"the name {path} does not say which kind of transform to write; end it in one of "
        f"{', '.join(_FORMAT_OF_ENDING)}, or pass format="
    )


def _known(name: TransformFormat) -> TransformFormat:
    if name not in get_args(TransformFormat):
        raise ConfigError(f"a format of transforms is one of {', '.join(get_args(TransformFormat))}, but {name!r} came")
    return name


def _grid(value: Grid | Image | None, name: str) -> Grid | None:
    grid = value.grid if isinstance(value, Image) else value
    if grid is not None and not isinstance(grid, Grid):
        raise ConfigError(f"{name} is a Grid, or an Image that has it, but a {type(value).__name__} came")
    return grid


def _needed(grid: Grid | None, name: str, chosen: str) -> Grid:
    if grid is None:
        raise ConfigError(f"the format {chosen!r} does not say where the {name} voxels are; pass {name}=")
    return grid
