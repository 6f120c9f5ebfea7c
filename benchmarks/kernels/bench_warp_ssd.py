"""Squared feature difference under a displacement, its gradient and that of the diffusion energy; curvature.

It takes most of the time of a step of Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import case
import torch
import work
from case import FLOAT, HALF, Case, Triple, Work

from convexadam.kernels.warp_ssd import prepare_ssd


def count_curvature_work(points: Triple, gradient: Work, *, channels: int = 12) -> Work:
    """Add a curvature to a gradient: one more value per point, of 6 operations per channel and 7 for the weight."""
    count = math.prod(points)
    return Work(gradient.bytes + FLOAT * count, gradient.operations + count * (6 * channels + 7))


def cases(size: Triple, device: str) -> list[Case]:
    """Return 12 channels on control points of spacing 2, without and with weights, and with the curvature."""
    points = case.coarsen_grid(size, 2)
    fixed, u = case.make_random(12, *points, device=device), case.make_field(points, device)
    rows = {"padded": 16, "storage": HALF} if device == "cuda" else {"padded": 12, "storage": FLOAT}
    mask = torch.ones(points, device=device)
    mask[: points[0] // 8] = 0

    def of(name: str, weight: torch.Tensor | None, *, curvature: bool = False) -> Case:
        def make(_: str) -> Callable[[], Any]:
            term = prepare_ssd(fixed, fixed.flip(1), fixed_weight=weight, moving_weight=weight)
            out = torch.empty_like(u)
            if curvature:
                wide = u.new_empty(4, *points)
                return lambda: term.curvature(u, diffusion=1.25, out=wide)
            return lambda: term(u, diffusion=1.25, out=out)

        counted = work.gradient(points, **rows, weights=0 if weight is None else 2)
        return Case(
            name=name, grid=points, make=make, work=count_curvature_work(points, counted) if curvature else counted
        )

    return [of("whole", None), of("masked", mask), of("curvature", None, curvature=True)]
