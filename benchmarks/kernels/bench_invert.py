"""Inverse of a whole field, as in `DisplacementField.inverse` on its own grid."""

from __future__ import annotations

import math
import sys

import case
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.invert import origins
from convexadam.kernels.warp import identity_positions

_READ = 3 * 7 * 3 + 9 + 6
"""Operations of a displacement between eight voxels: seven means of two for each component; the cell, the sum."""


def inverted(size: Triple, *, reads: int = 3) -> Work:
    """Field, targets and guesses in, points and misses out; at the least a start, a look at it, and one step."""
    voxels = math.prod(size)
    return Work(5 * 3 * FLOAT * voxels, reads * _READ * voxels)


def cases(size: Triple, device: str) -> list[Case]:
    """Return a field at full resolution; the guess is the voxel itself."""
    field = case.field(size, device)
    field = field.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    targets = identity_positions(size, like=field).flatten(1)
    return [
        Case(
            name="voxels",
            grid=size,
            make=lambda _: lambda: origins(field, targets, targets),
            work=inverted(size),
        )
    ]


if __name__ == "__main__":
    sys.exit(case.main("invert"))
