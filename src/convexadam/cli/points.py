"""Landmarks of the command line, and whether they lie where their image is."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from convexadam._typing import Float, Points, Tensor
from convexadam.geometry import Grid
from convexadam.io import read_landmarks_mm

_MARGIN = 0.1
"""Share of the size of an image up to which points outside count as near."""


def warn_if_outside(points_mm: Points, grid: Grid, name: str, advice: str) -> None:
    """Warn if points, in mm RAS+, lie neither in an image nor near it.

    Parameters
    ----------
    points_mm
        ``(n, 3)``.
    grid
        The grid of the image.
    name
        What the points are, for the message: ``"landmarks of fixed.csv"``.
    advice
        What to check.
    """
    beyond = measure_distance(grid.world_to_index(points_mm).cpu(), grid)
    spacing = torch.tensor(grid.spacing_mm, dtype=torch.float64, device="cpu")
    far = (beyond > _MARGIN * torch.tensor(grid.shape, device="cpu")).any(1)
    if bool(far.any()):
        distance = float((beyond.double() * spacing).norm(dim=1).max())
        warnings.warn(
            f"{int(far.sum())} of {len(beyond)} {name} lie outside the image, up to {distance:.4g} mm from it; "
            f"{advice}",
            stacklevel=2,
        )


def read_points(path: Path | None, grid: Grid, advice: str) -> Points | None:
    """Return the landmarks of a file in mm RAS+, and warn if they lie far from their image; ``None`` without a file."""
    if path is None:
        return None
    points_mm = read_landmarks_mm(path, grid)
    name = f"landmarks of {path} (voxel indices of its image, or mm in files of Slicer)"  # how its numbers are read
    warn_if_outside(points_mm, grid, name, advice)
    return points_mm


def measure_distance(points_vox: Points, grid: Grid) -> Float[Tensor, "n 3"]:
    """Return how far points are outside the field of view, in voxels along each axis."""
    last = torch.tensor(grid.shape, dtype=points_vox.dtype, device=points_vox.device) - 0.5
    return (-0.5 - points_vox).clamp(min=0) + (points_vox - last).clamp(min=0)


def is_inside(points_vox: Points, grid: Grid) -> bool:
    """Whether all points lie within the field of view."""
    return not bool(measure_distance(points_vox, grid).any())
