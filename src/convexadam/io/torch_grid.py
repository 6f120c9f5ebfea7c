"""Transforms as the sampling grids of ``torch.nn.functional.grid_sample``, and files of them."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch

from convexadam._atomic import atomic_path
from convexadam._typing import Float, Tensor
from convexadam.errors import FileError, GeometryError, InputError
from convexadam.geometry import DisplacementField, Grid, Transform
from convexadam.geometry.tensors import to_device
from convexadam.io.nifti import StrPath
from convexadam.io.places import as_field_on, field_of, indices_in, places_of
from convexadam.io.reading import reading

_FORMAT = "sampling grid, version 1"


def to_torch_grid(
    transform: Transform, fixed: Grid | None, moving: Grid, *, align_corners: bool = False
) -> Float[Tensor, "1 i j k 3"]:
    """Return where to read the moving volume: the grid that ``torch.nn.functional.grid_sample`` takes.

    ``grid_sample(moving.data[None], grid, align_corners=align_corners)`` is the moving image on the fixed grid.

    Parameters
    ----------
    transform
        From fixed to moving space.
    fixed
        Where the result's voxels lie; ``None`` takes the transform's grid.
    moving
        The grid of the volume that is read, ``[1, c, i, j, k]``.
    align_corners
        What -1 and 1 mean: the outer voxel *edges* of the moving volume (False), or the outer voxel *centres* (True).
        Pass the same to ``grid_sample``.

    Returns
    -------
    ``[1, i, j, k, 3]`` of the type and on the device of the transform; its last axis runs along k, j, i of the moving
    volume, as torch has it.

    Raises
    ------
    ConfigError
        If there is no fixed grid.
    GeometryError
        If corners are to be aligned along an axis of one voxel.
    """
    field = as_field_on(transform, fixed)
    where = places_of(field, _normalised(moving, align_corners) @ indices_in(moving))
    return where.flip(0).movedim(0, -1)[None].contiguous()


def from_torch_grid(
    grid: Float[Tensor, "1 i j k 3"], fixed: Grid, moving: Grid, *, align_corners: bool = False
) -> DisplacementField:
    """Make a transform of a grid for ``torch.nn.functional.grid_sample``; see `to_torch_grid`.

    Raises
    ------
    GeometryError
        If the grid's shape is not ``(1, *fixed.shape, 3)``, or it holds NaN.
    """
    if tuple(grid.shape) != (1, *fixed.shape, 3) or not grid.is_floating_point():
        raise GeometryError(
            f"a sampling grid on this fixed grid is a floating-point tensor of shape {(1, *fixed.shape, 3)}, but "
            f"{tuple(grid.shape)} of type {grid.dtype} came"
        )
    where = grid[0].movedim(-1, 0).flip(0)
    where = where if where.dtype == torch.float64 else where.float()
    return field_of(where, fixed, _normalised(moving, align_corners) @ indices_in(moving))


def write_torch_grid(
    transform: Transform, path: StrPath, *, fixed: Grid | None = None, moving: Grid, align_corners: bool = False
) -> None:
    """Save the grid of `to_torch_grid` with ``torch.save``, as a dictionary of plain values.

    Its keys: ``grid`` (float32), ``align_corners``, ``fixed_affine`` and ``moving_affine`` (4x4 float64, voxel indices
    to mm RAS+), ``moving_shape``, ``format``.

    Raises
    ------
    ConfigError, GeometryError
        As `to_torch_grid`.
    FileError
        If the file cannot be written.
    """
    field = as_field_on(transform, fixed)
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


def read_torch_grid(path: StrPath, *, device: torch.device | str | None = None) -> DisplacementField:
    """Read a file of `write_torch_grid`; nothing in it is run.

    Raises
    ------
    FileError
        If the file is damaged, or is another one of torch's.
    """
    with reading(path, "a sampling grid of torch") as source:
        try:
            found = torch.load(source, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError) as error:
            raise FileError(f"{source} cannot be read as a sampling grid of torch; is it damaged?") from error
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise FileError(f"{source} holds something else of torch; write sampling grids with write_transform")
        field = _from_saved(found)
        return field if device is None else DisplacementField(to_device(field.disp_mm, device), field.grid)


def _from_saved(found: dict[str, Any]) -> DisplacementField:
    try:
        i, j, k = found["grid"].shape[1:4]
        fixed = Grid((i, j, k), found["fixed_affine"].numpy())
        moving = Grid(tuple(found["moving_shape"]), found["moving_affine"].numpy())
        return from_torch_grid(found["grid"], fixed, moving, align_corners=found["align_corners"])
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"the sampling grid is incomplete ({error!r}); write it anew") from error


def _normalised(grid: Grid, align_corners: bool) -> np.ndarray:
    """4x4 from voxel indices to what torch calls -1 ... 1."""
    matrix = np.eye(4)
    for axis, size in enumerate(grid.shape):
        if align_corners and size == 1:
            raise GeometryError(
                f"the moving volume has one voxel along axis {axis}, whose ends are one centre: align_corners=False"
            )
        matrix[axis, axis] = 2 / (size - 1) if align_corners else 2 / size
        matrix[axis, 3] = -1 if align_corners else 1 / size - 1
    return matrix
