"""Mutual information of volumes under a displacement, its gradient and that of the roughness."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.mutual_information import shared


def information(size: Triple, *, weights: int = 0) -> Work:
    """Both volumes and the field in, its gradient out; what passes from sweep to sweep and the histogram do not count.

    A node takes some 50 for its position, 28 for value and slopes, twice 14 for its place among the bins, 22 for shares
    of four bins and 16 to add eight products, 14 for four slopes and 16 to take the mean of eight, 6 for the gradient
    and 36 for the roughness.
    """
    voxels = math.prod(size)
    return Work(voxels * FLOAT * (8 + weights), voxels * (50 + 28 + 2 * 14 + 22 + 16 + 14 + 16 + 6 + 36))


def cases(size: Triple, device: str) -> list[Case]:
    """Volumes at full resolution, of opposite contrast; with and without evidence."""
    fixed, u = case.volume(size, device)[None], case.field(size, device)
    moving, known = -fixed.flip(1), torch.ones(size, device=device)
    known[: size[0] // 8] = 0

    def of(name: str, weight: torch.Tensor | None) -> Case:
        def make(_: str) -> Callable[[], Any]:
            comparison = shared(fixed, moving, fixed_weight=weight, moving_weight=weight)
            out = torch.empty_like(u)
            return lambda: comparison(u, diffusion=1.25, out=out)

        return Case(name=name, grid=size, make=make, work=information(size, weights=0 if weight is None else 2))

    return [of("whole", None), of("masked", known)]


if __name__ == "__main__":
    sys.exit(case.main("mutual_information"))
