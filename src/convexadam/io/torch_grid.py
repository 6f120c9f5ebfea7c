"""Sampling grids of ``torch.nn.functional.grid_sample``, as tensors and files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._atomic import atomic_path
from convexadam._claims import check_archive, check_claim
from convexadam._typing import Float, Tensor
from convexadam.errors import FileError, GeometryError, InputError
from convexadam.geometry import DisplacementField, Grid, Transform
from convexadam.geometry.tensors import to_device
from convexadam.io.coordinates import field_from_coordinates, field_to_coordinates, to_field, world_to_index_matrix
from convexadam.io.reading import StrPath, check_file, is_zip
from convexadam.io.transform_format import FileHeader

_FORMAT = "sampling grid, version 1"


@check_arguments
def to_torch_grid(
    transform: Transform, fixed: Grid | None, moving: Grid, *, align_corners: bool = False
) -> Float[Tensor, "1 i j k 3"]:
    """Convert a transform to the sampling grid of ``torch.nn.functional.grid_sample``.

    ``grid_sample(moving.data[None], grid, align_corners=align_corners)`` is the moving image on the fixed grid.

    Parameters
    ----------
    transform
        From fixed to moving space.
    fixed
        The fixed grid; ``None`` takes the grid of the transform.
    moving
        The grid of the volume that is sampled, ``[1, c, i, j, k]``.
    align_corners
        Whether -1 and 1 are the centres of the outer voxels of the moving volume (True) or their outer edges (False).
        Pass the same to ``grid_sample``.

    Returns
    -------
    ``[1, i, j, k, 3]`` of the type and on the device of the transform; the last axis holds the coordinates along k, j
    and i of the moving volume, the order of torch.

    Raises
    ------
    ConfigError
        If there is no fixed grid.
    GeometryError
        If ``align_corners`` is true and an axis of the moving volume has one voxel.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Affine, Grid
    >>> from convexadam.io import to_torch_grid
    >>> grid = Grid((6, 7, 8))
    >>> image = torch.rand(1, 1, 6, 7, 8)
    >>> same = torch.nn.functional.grid_sample(image, to_torch_grid(Affine(), grid, grid), align_corners=False)
    >>> torch.allclose(same, image, atol=1e-5)
    True
    """
    field = to_field(transform, fixed)
    where = field_to_coordinates(field, _normalising_matrix(moving, align_corners) @ world_to_index_matrix(moving))
    return where.flip(0).movedim(0, -1)[None].contiguous()


@check_arguments
def from_torch_grid(
    grid: Float[Tensor, "1 i j k 3"], fixed: Grid, moving: Grid, *, align_corners: bool = False
) -> DisplacementField:
    """Convert a sampling grid of ``torch.nn.functional.grid_sample`` to a transform; see `to_torch_grid`.

    Raises
    ------
    GeometryError
        If the grid's shape is not ``(1, *fixed.shape, 3)``, or it holds NaN.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Affine, Grid
    >>> from convexadam.io import from_torch_grid, to_torch_grid
    >>> grid = Grid((6, 7, 8))
    >>> transform = from_torch_grid(to_torch_grid(Affine(), grid, grid), grid, grid)
    >>> bool(transform.disp_mm.abs().max() < 1e-4)
    True
    """
    if tuple(grid.shape) != (1, *fixed.shape, 3) or not grid.is_floating_point():
        raise GeometryError(
            f"grid must be a floating-point tensor of shape {(1, *fixed.shape, 3)}, got shape {tuple(grid.shape)} and "
            f"type {grid.dtype}; pass the fixed grid that it was made for"
        )
    where = grid[0].movedim(-1, 0).flip(0)
    where = where if where.dtype == torch.float64 else where.float()
    return field_from_coordinates(
        where, fixed, _normalising_matrix(moving, align_corners) @ world_to_index_matrix(moving)
    )


@check_arguments
def write_torch_grid(
    transform: Transform, path: StrPath, *, fixed: Grid | None = None, moving: Grid, align_corners: bool = False
) -> None:
    """Write the grid of `to_torch_grid` with ``torch.save``, as a dictionary of plain values.

    Its keys: ``grid`` (float32), ``align_corners``, ``fixed_affine`` and ``moving_affine`` (4x4 float64, voxel indices
    to mm RAS+), ``moving_shape``, ``format``.

    Raises
    ------
    ConfigError, GeometryError
        As `to_torch_grid`.
    FileError
        If the file cannot be written.

    Examples
    --------
    >>> from convexadam import Affine, Grid
    >>> from convexadam.io import read_torch_grid, write_torch_grid
    >>> grid = Grid((6, 7, 8))
    >>> write_torch_grid(Affine(), "grid.pt", fixed=grid, moving=grid)
    >>> read_torch_grid("grid.pt").grid.shape
    (6, 7, 8)
    """
    field = to_field(transform, fixed)
    values = {
        "format": _FORMAT,
        "grid": to_torch_grid(field, None, moving, align_corners=align_corners).detach().cpu().float(),
        "align_corners": align_corners,
        "fixed_affine": torch.from_numpy(field.grid.affine.copy()),
        "moving_affine": torch.from_numpy(moving.affine.copy()),
        "moving_shape": list(moving.shape),
    }
    with atomic_path(path) as temporary:
        torch.save(values, temporary)


@check_arguments
def read_torch_grid(path: StrPath, *, device: torch.device | str | None = None) -> DisplacementField:
    """Read a file of `write_torch_grid`. No code in it is executed.

    Raises
    ------
    FileError
        If the file is damaged, or is another file of ``torch.save``.

    Examples
    --------
    >>> from convexadam import Affine, Grid
    >>> from convexadam.io import read_torch_grid, write_torch_grid
    >>> grid = Grid((6, 7, 8))
    >>> write_torch_grid(Affine(), "grid.pt", fixed=grid, moving=grid)
    >>> bool(read_torch_grid("grid.pt").disp_mm.abs().max() < 1e-4)
    True
    """
    with check_file(path, "a sampling grid of torch") as source:
        if is_zip(source):
            check_archive(source)
        try:
            found = torch.load(source, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError) as error:
            raise FileError(
                f"cannot read a sampling grid of torch from {source}; check whether it is damaged"
            ) from error
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise FileError(
                f"{source} must be a sampling grid of torch, got another file of torch.save; write it with "
                "write_transform"
            )
        field = _parse_saved(found, source)
        return field if device is None else DisplacementField(to_device(field.disp_mm, device), field.grid)


def detect_torch_grid(header: FileHeader) -> bool:
    """Whether a file is one of ``torch.save``."""
    return header.archive is not None and any(name.endswith("/data.pkl") for name in header.archive)


def _parse_saved(found: dict[str, Any], source: Path) -> DisplacementField:
    try:
        stored = found["grid"].untyped_storage().nbytes()  # a tensor of stride 0 has more values than it stores
        check_claim(found["grid"].numel() * found["grid"].element_size(), stored, source, packed=False)
        i, j, k = found["grid"].shape[1:4]
        fixed = Grid((i, j, k), found["fixed_affine"].numpy())
        moving = Grid(tuple(found["moving_shape"]), found["moving_affine"].numpy())
        return from_torch_grid(found["grid"], fixed, moving, align_corners=found["align_corners"])
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"a sampling grid must have all of its entries, got {error!r}; write it again") from error


def _normalising_matrix(grid: Grid, align_corners: bool) -> np.ndarray:
    """4x4 from voxel indices to the normalised coordinates of torch, -1 to 1."""
    matrix = np.eye(4)
    for axis, size in enumerate(grid.shape):
        if align_corners and size == 1:
            raise GeometryError(
                f"the moving volume must have two voxels or more along each axis for align_corners=True, got one along "
                f"axis {axis}; pass align_corners=False"
            )
        matrix[axis, axis] = 2 / (size - 1) if align_corners else 2 / size
        matrix[axis, 3] = -1 if align_corners else 1 / size - 1
    return matrix
