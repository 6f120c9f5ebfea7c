"""Mutual information of volumes under a displacement, its gradient and that of the diffusion energy; curvature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.mutual_information import prepare_mutual_information


def count_work(size: Triple, *, weights: int = 0, curved: int = 0) -> Work:
    """Both volumes and the field in, its gradient out; intermediate volumes and the histogram are not counted.

    A point needs about 50 operations for its position, 28 for value and derivatives, twice 14 for its bins, 22 for the
    window weights of four bins and 16 to add eight products, 14 for four derivatives and 16 for their sum over eight
    bins, 6 for the gradient, 36 for the diffusion energy, and 6 for the magnitude of the gradient.
    """
    voxels = math.prod(size)
    return Work(voxels * FLOAT * (8 + weights + curved), voxels * (216 + 6 * curved))


def cases(size: Triple, device: str) -> list[Case]:
    """Return volumes at full resolution of inverted contrast, without and with weights, and with the curvature."""
    fixed, u = case.make_volume(size, device)[None], case.make_field(size, device)
    moving, mask = -fixed.flip(1), torch.ones(size, device=device)
    mask[: size[0] // 8] = 0

    def of(name: str, weight: torch.Tensor | None, *, curved: int = 0) -> Case:
        def make(_: str) -> Callable[[], Any]:
            term = prepare_mutual_information(fixed, moving, fixed_weight=weight, moving_weight=weight)
            out = torch.empty_like(u)
            if curved:
                wide = u.new_empty(4, *size)
                return lambda: term.curvature(u, diffusion=1.25, out=wide)
            return lambda: term(u, diffusion=1.25, out=out)

        counted = count_work(size, weights=0 if weight is None else 2, curved=curved)
        return Case(name=name, grid=size, make=make, work=counted)

    return [of("whole", None), of("masked", mask), of("curvature", None, curved=1)]
