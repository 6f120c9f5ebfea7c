"""Inversion of a field, as in `DisplacementField.inverse` on its own grid."""

from __future__ import annotations

import math

import case
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.invert import origins
from convexadam.kernels.warp import identity_positions

_READ = 3 * 7 * 3 + 9 + 6
"""Operations of one interpolation: seven linear interpolations of each component; the cell; the sum."""


def count_work(size: Triple, *, reads: int = 3) -> Work:
    """Field, targets and guesses in, points and residuals out; at least three interpolations per point."""
    voxels = math.prod(size)
    return Work(5 * 3 * FLOAT * voxels, reads * _READ * voxels)


def cases(size: Triple, device: str) -> list[Case]:
    """Return a field at full resolution, with the voxels themselves as initial positions."""
    field = case.make_field(size, device)
    field = field.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    targets = identity_positions(size, like=field).flatten(1)
    return [
        Case(
            name="voxels",
            grid=size,
            make=lambda _: lambda: origins(field, targets, targets),
            work=count_work(size),
        )
    ]
