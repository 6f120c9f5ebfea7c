"""Transforms in files of any format of the table: one function to read, one to write."""

from __future__ import annotations

from pathlib import Path

import torch

from convexadam._arguments import check_arguments
from convexadam.errors import ConfigError, FileError, InputError
from convexadam.geometry import Grid, Transform
from convexadam.geometry.conversion import GridLike, to_grid
from convexadam.geometry.delegates import implement
from convexadam.io.detect import detect_format
from convexadam.io.formats import choose_format, get_format
from convexadam.io.reading import StrPath, check_file
from convexadam.io.transform_format import TransformFormat, WriteTransform


@implement("Transform.save")
@check_arguments
def write_transform(
    transform: Transform,
    path: StrPath,
    *,
    format: str | None = None,  # noqa: A002 - the word that users know from other libraries
    fixed: GridLike | None = None,
    moving: GridLike | None = None,
) -> None:
    """Write a transform for another program. The file is complete, or the old one is left as it was.

    Parameters
    ----------
    transform
        From fixed to moving space.
    path
        An existing file is replaced. Formats that hold one field resample affine transforms and chains to the fixed
        grid.
    format
        Name of the format, see ``convexadam.io.transform_formats()``. ``None`` chooses it by the ending: NIfTI and
        ITK's transform files for ``"itk"``, ``.npz`` for ``"learn2reg"``, ``.pt`` for ``"torch"``, ``.x5`` for
        ``"x5"``. Others, such as ``"fsl"``, have to be named.
    fixed
        The fixed grid, or an image on it in any form that `as_image` takes; ``None`` takes the grid of the transform.
    moving
        The moving grid, or an image on it. ``"torch"`` and ``"fsl"`` need it; ``"learn2reg"`` takes the fixed grid if
        it is ``None``.

    Raises
    ------
    ConfigError
        If there is no such format, or a grid is missing.
    FileError
        If the ending does not fit the format or the transform, or the file cannot be written.
    GeometryError
        If the format cannot hold the grid: the axes of ITK's are orthogonal.
    MissingExtraError
        If an optional package is missing: SimpleITK for ITK's transform files, nitransforms for X5.

    Examples
    --------
    >>> import torch
    >>> from convexadam import DisplacementField, Grid, read_transform, write_transform
    >>> transform = DisplacementField(torch.zeros(3, 8, 7, 6), Grid((8, 7, 6)))
    >>> write_transform(transform, "transform.nii.gz")  # for ITK, ANTs and Slicer
    >>> write_transform(transform, "disp.nii.gz", format="learn2reg")
    >>> read_transform("transform.nii.gz").grid.shape
    (8, 7, 6)
    """
    if not isinstance(transform, Transform):
        raise InputError(
            f"transform must be a Transform, got {type(transform).__name__}; wrap a 4x4 matrix in Affine(...)"
        )
    chosen, write = _choose_to_write(path, format)
    fixed_grid, moving_grid = _to_grid(fixed, "fixed"), _to_grid(moving, "moving")
    _check_needs(chosen, chosen.write_needs, fixed_grid or transform.fixed_grid, moving_grid)
    write(transform, Path(path), fixed=fixed_grid, moving=moving_grid)


@check_arguments
def check_transform_name(path: StrPath, format: str | None = None) -> None:  # noqa: A002 - as in write_transform
    """Raise `FileError` or `ConfigError` unless `write_transform` can write a file of this name and format.

    Examples
    --------
    >>> from convexadam.io import check_transform_name
    >>> check_transform_name("transform.nii.gz")
    >>> check_transform_name("transform.png")
    Traceback (most recent call last):
    convexadam.errors.FileError: ...
    """
    _choose_to_write(path, format)


def _choose_to_write(path: StrPath, name: str | None) -> tuple[TransformFormat, WriteTransform]:
    chosen = choose_format(path) if name is None else get_format(name)
    if chosen.write is None:
        raise ConfigError(f"format must be one that can be written, got {chosen.name!r}; it can only be read")
    if not Path(path).name.endswith(chosen.suffixes):
        raise FileError(
            f"the name of a file of format {chosen.name!r} must end in {' or '.join(chosen.suffixes)}, got {path}; "
            "change the ending"
        )
    return chosen, chosen.write


@check_arguments
def read_transform(
    path: StrPath,
    *,
    format: str | None = None,  # noqa: A002 - as in write_transform
    fixed: GridLike | None = None,
    moving: GridLike | None = None,
    device: torch.device | str | None = None,
) -> Transform:
    """Read a transform of another program, or one of `write_transform`.

    Parameters
    ----------
    path
        The file.
    format
        As in `write_transform`. ``None`` detects it by the content of the file, not by its name. A file whose content
        does not determine its meaning is refused, and the message names the formats to choose from: a NIfTI file of
        shape ``(i, j, k, 3)`` may be a field of FSL, Learn2Reg or VoxelMorph, and a 4 x 4 matrix may have any frame
        and direction.
    fixed
        The fixed grid, or an image on it. Needed for files without a grid (``"learn2reg"``, ``"learn2reg-2021"``),
        matrices of FSL, and splines of ITK. Other fields hold their grid.
    moving
        The moving grid, or an image on it. Needed for ``"fsl"``; ``"learn2reg"`` takes the fixed grid if it is
        ``None``.
    device
        Where the vectors go; ``None`` is the CPU.

    Returns
    -------
    `Affine`, `DisplacementField` or `Composite`, from fixed to moving space.

    Raises
    ------
    FileError
        If the file is missing or damaged, or its format is unknown or ambiguous.
    ConfigError
        If there is no such format, or a grid is missing.
    MissingExtraError
        If an optional package is missing: SimpleITK for ITK's transform files, nitransforms for X5.

    Examples
    --------
    >>> from convexadam import DisplacementField, Grid, read_transform, write_transform
    >>> import torch
    >>> write_transform(DisplacementField(torch.ones(3, 8, 7, 6), Grid((8, 7, 6))), "transform.nii.gz")
    >>> transform = read_transform("transform.nii.gz")  # what ITK and ANTs write is read in the same way
    >>> transform.warp_points([[2.0, 2.0, 2.0]], space="mm").tolist()
    [[3.0, 3.0, 3.0]]
    """
    fixed_grid, moving_grid = _to_grid(fixed, "fixed"), _to_grid(moving, "moving")
    chosen = None if format is None else get_format(format)
    with check_file(path, "a transform") as source:
        if chosen is None:
            detection = detect_format(source, fixed=fixed_grid)
            if detection.format is None:
                raise FileError(f"cannot read a transform from {source}: {detection.problem}")
            chosen = detection.format
        if chosen.read is None:
            raise ConfigError(f"format must be one that can be read, got {chosen.name!r}; it can only be written")
        _check_needs(chosen, chosen.read_needs, fixed_grid, moving_grid)
        transform = chosen.read(source, fixed=fixed_grid, moving=moving_grid, device=device)
    if not isinstance(transform, Transform):
        raise ConfigError(
            f"read of format {chosen.name!r} must return a Transform, got {type(transform).__name__}; "
            "correct the definition of the format"
        )
    return transform


def _to_grid(value: GridLike | None, name: str) -> Grid | None:
    return None if value is None else to_grid(value, name)


def _check_needs(chosen: TransformFormat, needs: tuple[str, ...], fixed: Grid | None, moving: Grid | None) -> None:
    for name in needs:
        if {"fixed": fixed, "moving": moving}[name] is None:
            raise ConfigError(
                f"{name} must be a Grid or an Image for format {chosen.name!r}, which does not hold that grid, "
                f"got None; pass {name}="
            )
