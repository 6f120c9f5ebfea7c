"""Voxel sizes that no image has, by which a damaged header can be told."""

from __future__ import annotations

from convexadam.errors import GeometryError
from convexadam.geometry import Grid

_SMALLEST_MM, _LARGEST_MM = 1e-9, 1e9
"""A picometre and a thousand kilometres."""


def check_spacing(grid: Grid) -> Grid:
    """Return the grid of a file unless its voxel sizes can only come from damage.

    Raises
    ------
    GeometryError
        If a voxel is smaller than a picometre or larger than a thousand kilometres.
    """
    if not _SMALLEST_MM <= min(grid.spacing_mm) <= max(grid.spacing_mm) <= _LARGEST_MM:
        raise GeometryError(
            f"voxel sizes must be from {_SMALLEST_MM:g} to {_LARGEST_MM:g} mm, got {grid.spacing_mm}; correct the "
            "header, which may be damaged"
        )
    return grid
