"""Cost of the volume changes of a whole field and its gradient, everywhere and within a soft mask."""

from __future__ import annotations

import math
import sys

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.volume_change import volume_change


def stressed(size: Triple, *, weights: int = 0) -> Work:
    """Field in, gradient in and out, a mask in.

    Nine slopes (2), the identity (3), nine cofactors (3) and the determinant (5); logarithm and cost (6), nine
    products, and for each what its slope gives to two nodes (4).
    """
    voxels = math.prod(size)
    return Work(FLOAT * (9 + weights) * voxels, (9 * 2 + 3 + 9 * 3 + 5 + 6 + weights + 9 * 5) * voxels)


def cases(size: Triple, device: str) -> list[Case]:
    """Return a field at full resolution; the mask is a box of half the edge."""
    field = 0.25 * case.field(size, device)
    onto, mask = torch.zeros_like(field), torch.zeros(size, device=device)
    mask[tuple(slice(n // 4, n // 4 + n // 2) for n in size)] = 1

    def of(name: str, soft_mask: torch.Tensor | None) -> Case:
        return Case(
            name=name,
            grid=size,
            make=lambda _: lambda: volume_change(field, soft_mask=soft_mask, onto=onto),
            work=stressed(size, weights=0 if soft_mask is None else 1),
        )

    return [of("everywhere", None), of("masked", mask)]


if __name__ == "__main__":
    sys.exit(case.main("volume_change"))
