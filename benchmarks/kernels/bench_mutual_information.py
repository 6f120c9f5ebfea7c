"""Mutual information of volumes under a displacement, its gradient and that of the roughness.

On request with the length of the gradient of each node.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.mutual_information import shared


def information(size: Triple, *, weights: int = 0, curved: int = 0) -> Work:
    """Both volumes and the field in, its gradient out; what passes from sweep to sweep and the histogram do not count.

    A node takes some 50 for its position, 28 for value and slopes, twice 14 for its place among the bins, 22 for shares
    of four bins and 16 to add eight products, 14 for four slopes and 16 to take the mean of eight, 6 for the gradient,
    36 for the roughness and, if asked, 6 for the length.
    """
    voxels = math.prod(size)
    return Work(voxels * FLOAT * (8 + weights + curved), voxels * (216 + 6 * curved))


def cases(size: Triple, device: str) -> list[Case]:
    """Volumes at full resolution, of opposite contrast; with and without evidence, and with lengths."""
    fixed, u = case.volume(size, device)[None], case.field(size, device)
    moving, known = -fixed.flip(1), torch.ones(size, device=device)
    known[: size[0] // 8] = 0

    def of(name: str, weight: torch.Tensor | None, *, curved: int = 0) -> Case:
        def make(_: str) -> Callable[[], Any]:
            comparison = shared(fixed, moving, fixed_weight=weight, moving_weight=weight)
            out = torch.empty_like(u)
            if curved:
                wide = u.new_empty(4, *size)
                return lambda: comparison.curvature(u, diffusion=1.25, out=wide)
            return lambda: comparison(u, diffusion=1.25, out=out)

        counted = information(size, weights=0 if weight is None else 2, curved=curved)
        return Case(name=name, grid=size, make=make, work=counted)

    return [of("whole", None), of("masked", known), of("curvature", None, curved=1)]


if __name__ == "__main__":
    sys.exit(case.main("mutual_information"))
