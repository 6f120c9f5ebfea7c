"""Local correlation of volumes under a displacement, its gradient and that of the roughness.

On request with the curvature of each node.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.lncc import correlated


def correlation(size: Triple, *, radius: int, weights: int = 0, curved: int = 0) -> Work:
    """Both volumes and the field in, its gradient out; what passes from sweep to sweep is not counted.

    A node takes some 50 for its position, 28 for value and slopes, 5 for products, 24 for the correlation, 9 for the
    gradient and 36 for the roughness. Nine box sums take ``2 radius`` for each axis; a curvature takes 8.
    """
    voxels = math.prod(size)
    traffic = FLOAT * (8 + weights + curved)
    return Work(voxels * traffic, voxels * (152 + 9 * 3 * 2 * radius + 8 * curved))


def cases(size: Triple, device: str) -> list[Case]:
    """Volumes at full resolution, in small and large windows; with evidence, and with the curvature."""
    fixed, u = case.volume(size, device)[None], case.field(size, device)
    moving, known = fixed.flip(1), torch.ones(size, device=device)
    known[: size[0] // 8] = 0

    def of(name: str, *, radius: int = 2, weight: torch.Tensor | None = None, curved: int = 0) -> Case:
        def make(_: str) -> Callable[[], Any]:
            comparison = correlated(fixed, moving, radius=radius, fixed_weight=weight, moving_weight=weight)
            out = torch.empty_like(u)
            if curved:
                wide = u.new_empty(4, *size)
                return lambda: comparison.curvature(u, diffusion=1.25, out=wide)
            return lambda: comparison(u, diffusion=1.25, out=out)

        counted = correlation(size, radius=radius, weights=0 if weight is None else 2, curved=curved)
        return Case(name=name, grid=size, make=make, work=counted)

    return [of("radius 2"), of("radius 6", radius=6), of("masked", weight=known), of("curvature", curved=1)]


if __name__ == "__main__":
    sys.exit(case.main("lncc"))
