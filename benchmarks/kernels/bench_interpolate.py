"""Linear interpolation of a field from control points to voxels, the last step of every registration."""

from __future__ import annotations

import math

import case
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.resize import control_points_to_voxels


def count_work(points: Triple, to: Triple, *, channels: int = 3) -> Work:
    """Field in and out once; 3 operations for each value after interpolation along one, two and three axes."""
    values = [math.prod((*to[:axis], *points[axis:])) for axis in (1, 2, 3)]
    return Work(FLOAT * channels * (math.prod(points) + math.prod(to)), 3 * channels * sum(values))


def cases(size: Triple, device: str) -> list[Case]:
    """Return a field on control points of spacing 2."""
    points = case.coarsen_grid(size, 2)
    field = case.make_field(points, device)
    return [
        Case(
            name="to voxels",
            grid=size,
            make=lambda _: lambda: control_points_to_voxels(field, (2, 2, 2), size),
            work=count_work(points, size),
        )
    ]
