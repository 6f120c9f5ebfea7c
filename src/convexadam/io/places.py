"""Displacement fields in the coordinates of others: indices, normalised positions, frames of other programs."""

from __future__ import annotations

import numpy as np
import torch

from convexadam._typing import Field, Tensor
from convexadam.errors import ConfigError
from convexadam.geometry import DisplacementField, Grid, Transform
from convexadam.geometry.grid import linear_field
from convexadam.geometry.resample import linear_part
from convexadam.geometry.tensors import to_device

NOTHING = np.diag([0.0, 0.0, 0.0, 1.0])
"""The map of all indices to 0."""


def places_of(field: DisplacementField, after: np.ndarray, before: np.ndarray = NOTHING) -> Field:
    """Return ``after(T(x)) - before(i)`` at each voxel, ``[3, i, j, k]``.

    Parameters
    ----------
    field
        The transform ``T``.
    after
        4x4, from mm RAS+ of moving space to the coordinates that are wanted there.
    before
        4x4, from voxel indices ``i`` of the fixed grid to what is subtracted; default: nothing.
    """
    fixed = linear_field(after @ field.grid.affine - before, field.grid.shape, field.disp_mm)
    return fixed.add_(linear_part(after, field.disp_mm))


def field_of(values: Field, grid: Grid, after: np.ndarray, before: np.ndarray = NOTHING) -> DisplacementField:
    """Return the transform of which `places_of` makes these values, on the same grid."""
    to_mm = np.linalg.inv(after)
    fixed = linear_field(to_mm @ before - grid.affine, grid.shape, values)
    return DisplacementField(fixed.add_(linear_part(to_mm, values)), grid)


def indices_in(grid: Grid) -> np.ndarray:
    """4x4 from mm RAS+ to voxel indices of a grid."""
    return np.linalg.inv(grid.affine)


def as_field_on(transform: Transform, fixed: Grid | None) -> DisplacementField:
    """Return a transform as vectors on the fixed grid; ``None`` takes its own.

    Raises
    ------
    ConfigError
        If there is none.
    """
    grid = transform.fixed_grid if fixed is None else fixed
    if grid is None:
        raise ConfigError(
            f"a field holds a vector for each voxel of the fixed grid, and a {type(transform).__name__} has none; "
            "pass fixed="
        )
    return transform.resample_onto(grid)


def as_field(values: np.ndarray, device: torch.device | str | None) -> Tensor:
    """Vectors ``[i, j, k, 3]`` of any byte order as a tensor ``[3, i, j, k]``, at least float32."""
    kind = np.float64 if values.dtype.kind == "f" and values.dtype.itemsize >= 8 else np.float32
    return to_device(torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0), dtype=kind)), device or "cpu")
