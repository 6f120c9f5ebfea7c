"""Linear interpolation of a field from the nodes to the voxels, which ends every registration."""

from __future__ import annotations

import math
import sys

import case
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.resize import nodes_to_voxels


def interpolated(nodes: Triple, to: Triple, *, channels: int = 3) -> Work:
    """Field in and out once; 3 operations for each value after the first axis, after the second and at the end."""
    values = [math.prod((*to[:axis], *nodes[axis:])) for axis in (1, 2, 3)]
    return Work(FLOAT * channels * (math.prod(nodes) + math.prod(to)), 3 * channels * sum(values))


def cases(size: Triple, device: str) -> list[Case]:
    """Nodes of 2 voxels."""
    nodes = case.coarser(size, 2)
    field = case.field(nodes, device)
    return [
        Case(
            name="to voxels",
            grid=size,
            make=lambda _: lambda: nodes_to_voxels(field, (2, 2, 2), size),
            work=interpolated(nodes, size),
        )
    ]


if __name__ == "__main__":
    sys.exit(case.main("interpolate"))
