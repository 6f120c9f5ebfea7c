"""Local correlation of volumes under a displacement, its gradient and that of the diffusion energy; curvature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.lncc import prepare_lncc


def count_work(size: Triple, *, radius: int, weights: int = 0, curved: int = 0) -> Work:
    """Both volumes and the field in, its gradient out; intermediate volumes are not counted.

    A point needs about 50 operations for its position, 28 for value and derivatives, 5 for products, 24 for the
    correlation, 9 for the gradient and 36 for the diffusion energy. Nine box sums need ``2 radius`` for each axis, and
    a curvature 8.
    """
    voxels = math.prod(size)
    traffic = FLOAT * (8 + weights + curved)
    return Work(voxels * traffic, voxels * (152 + 9 * 3 * 2 * radius + 8 * curved))


def cases(size: Triple, device: str) -> list[Case]:
    """Return volumes at full resolution with small and large windows, with weights, and with the curvature."""
    fixed, u = case.make_volume(size, device)[None], case.make_field(size, device)
    moving, weight = fixed.flip(1), torch.ones(size, device=device)
    weight[: size[0] // 8] = 0

    def of(name: str, *, radius: int = 2, weight: torch.Tensor | None = None, curved: int = 0) -> Case:
        def make(_: str) -> Callable[[], Any]:
            term = prepare_lncc(fixed, moving, radius=radius, fixed_weight=weight, moving_weight=weight)
            out = torch.empty_like(u)
            if curved:
                wide = u.new_empty(4, *size)
                return lambda: term.curvature(u, diffusion=1.25, out=wide)
            return lambda: term(u, diffusion=1.25, out=out)

        counted = count_work(size, radius=radius, weights=0 if weight is None else 2, curved=curved)
        return Case(name=name, grid=size, make=make, work=counted)

    return [of("radius 2"), of("radius 6", radius=6), of("masked", weight=weight), of("curvature", curved=1)]
