"""Jacobian determinants of a field."""

from __future__ import annotations

import math

import case
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.jacobian import jacobian_determinant


def count_work(size: Triple) -> Work:
    """Field in, determinants out; nine slopes (2), the identity (3), the determinant (14)."""
    voxels = math.prod(size)
    return Work(4 * FLOAT * voxels, (9 * 2 + 3 + 14) * voxels)


def cases(size: Triple, device: str) -> list[Case]:
    """Return a field at full resolution."""
    field = case.make_field(size, device)
    return [Case(name="voxels", grid=size, make=lambda _: lambda: jacobian_determinant(field), work=count_work(size))]
