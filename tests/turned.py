"""A transform that is known everywhere, and two grids: oblique, anisotropic and unlike each other."""

from __future__ import annotations

import numpy as np

from convexadam import Grid

ANGLE_DEGREES = 8.0

_COS, _SIN = np.cos(np.radians(ANGLE_DEGREES)), np.sin(np.radians(ANGLE_DEGREES))

MATRIX = np.array([[_COS, -_SIN, 0, 3.0], [_SIN, _COS, 0, -2.0], [0, 0, 1, 4.0], [0, 0, 0, 1]])
"""From fixed to moving space, mm RAS+: a rotation about S, and a shift."""


def transformed(points_mm: np.ndarray, matrix: np.ndarray = MATRIX) -> np.ndarray:
    """Points of fixed space in moving space."""
    return np.asarray(points_mm @ matrix[:3, :3].T + matrix[:3, 3])


def inverse(points_mm: np.ndarray) -> np.ndarray:
    """Points of moving space in fixed space."""
    return transformed(points_mm, np.linalg.inv(MATRIX))


def _centred(shape: tuple[int, int, int], axes: np.ndarray) -> Grid:
    """A grid about the origin."""
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = -axes @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


_TILT = np.array([[1, 0, 0], [0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])

FIXED_GRID = _centred((36, 34, 28), _TILT @ np.diag([-2.0, 2.2, 2.7]))

MOVING_GRID = _centred((32, 26, 40), np.array([[0, 0, 2.0], [2.3, 0, 0], [0, 2.9, 0]]))


def field_of(matrix: np.ndarray, grid: Grid = FIXED_GRID) -> np.ndarray:
    """Displacements in mm of an affine transform at the voxels of a grid, ``[3, i, j, k]``."""
    voxels = np.indices(grid.shape).reshape(3, -1).T
    points = voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return (transformed(points, matrix) - points).T.reshape(3, *grid.shape).astype(np.float32)
