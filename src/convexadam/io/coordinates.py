"""Displacement fields in other coordinates: voxel indices, normalised positions, the frames of other programs."""

from __future__ import annotations

import numpy as np
import torch

from convexadam._typing import Field, Tensor
from convexadam.errors import ConfigError
from convexadam.geometry import DisplacementField, Grid, Transform
from convexadam.geometry.grid import evaluate_affine
from convexadam.geometry.resample import transform_vectors
from convexadam.geometry.tensors import to_device

ZERO_MAP = np.diag([0.0, 0.0, 0.0, 1.0])
"""4x4 map of all indices to 0."""


def field_to_coordinates(field: DisplacementField, moving_map: np.ndarray, fixed_map: np.ndarray = ZERO_MAP) -> Field:
    """Return ``moving_map(T(x)) - fixed_map(i)`` for each voxel ``i`` at ``x`` mm, ``[3, i, j, k]``.

    Parameters
    ----------
    field
        The transform ``T``.
    moving_map
        4x4, from mm RAS+ of moving space to the coordinates of the result.
    fixed_map
        4x4, from voxel indices of the fixed grid to the coordinates that are subtracted. The default subtracts 0, so
        that the result holds positions.
    """
    fixed = evaluate_affine(moving_map @ field.grid.affine - fixed_map, field.grid.shape, field.disp_mm)
    return fixed.add_(transform_vectors(moving_map, field.disp_mm))


def field_from_coordinates(
    values: Field, grid: Grid, moving_map: np.ndarray, fixed_map: np.ndarray = ZERO_MAP
) -> DisplacementField:
    """Return the transform from the values of `field_to_coordinates` with the same maps."""
    to_mm = np.linalg.inv(moving_map)
    fixed = evaluate_affine(to_mm @ fixed_map - grid.affine, grid.shape, values)
    return DisplacementField(fixed.add_(transform_vectors(to_mm, values)), grid)


def world_to_index_matrix(grid: Grid) -> np.ndarray:
    """4x4 from mm RAS+ to voxel indices of a grid."""
    return np.linalg.inv(grid.affine)


def to_field(transform: Transform, fixed: Grid | None) -> DisplacementField:
    """Resample a transform to displacements on the fixed grid; ``None`` takes the grid of the transform.

    Raises
    ------
    ConfigError
        If there is neither.
    """
    grid = transform.fixed_grid if fixed is None else fixed
    if grid is None:
        raise ConfigError(
            f"fixed must be a Grid or an Image to write a field from a transform without a grid "
            f"({type(transform).__name__}), got None; pass fixed="
        )
    return transform.to_displacement_field(grid)


def vectors_to_tensor(values: np.ndarray, device: torch.device | str | None) -> Tensor:
    """Convert vectors ``[i, j, k, 3]`` of any byte order to a tensor ``[3, i, j, k]``, float32 or float64."""
    kind = np.float64 if values.dtype.kind == "f" and values.dtype.itemsize >= 8 else np.float32
    return to_device(torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0), dtype=kind)), device or "cpu")
