"""Penalty of the volume changes of a field and its gradient, without and with a soft mask."""

from __future__ import annotations

import math

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.volume_change import volume_change


def count_work(size: Triple, *, weights: int = 0) -> Work:
    """Field in, gradient in and out, a mask in.

    Nine derivatives (2), the identity (3), nine cofactors (3) and the determinant (5); logarithm and penalty (6), nine
    products, each of which is added to two points (4).
    """
    voxels = math.prod(size)
    return Work(FLOAT * (9 + weights) * voxels, (9 * 2 + 3 + 9 * 3 + 5 + 6 + weights + 9 * 5) * voxels)


def cases(size: Triple, device: str) -> list[Case]:
    """Return a field at full resolution, and a mask of half the edge length."""
    field = 0.25 * case.make_field(size, device)
    gradient, mask = torch.zeros_like(field), torch.zeros(size, device=device)
    mask[tuple(slice(n // 4, n // 4 + n // 2) for n in size)] = 1

    def of(name: str, soft_mask: torch.Tensor | None) -> Case:
        return Case(
            name=name,
            grid=size,
            make=lambda _: lambda: volume_change(field, soft_mask=soft_mask, add_to=gradient),
            work=count_work(size, weights=0 if soft_mask is None else 1),
        )

    return [of("everywhere", None), of("masked", mask)]
