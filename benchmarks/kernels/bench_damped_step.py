"""Damped second-order step and predicted decrease of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.damped_step import damped_step


def count_work(points: Triple) -> Work:
    """Two maps of four channels in, three out.

    A point needs 2 operations for its factor, 3 products, 5 for the length, 4 to clip it and 3 products; then 6 for the
    slope along the step, 5 for its length, 2 for the curvature along it, and 2 sums.
    """
    count = math.prod(points)
    return Work(FLOAT * 11 * count, 32 * count)


def cases(size: Triple, device: str) -> list[Case]:
    """Return a gradient and a curvature on control points of spacing 2, with and without clipping of the steps."""
    points = case.coarsen_grid(size, 2)

    def make(longest: float) -> Callable[[str], Callable[[], Any]]:
        def made(_: str) -> Callable[[], Any]:
            gradient = case.make_field(points, device)
            slopes = torch.cat([gradient, torch.full_like(gradient[:1], 0.5)])
            means = slopes.clone()
            # steps overwrite their input: with a factor of -1 they keep their length from call to call
            return lambda: damped_step(slopes, means, damping=0.5, longest=longest)

        return made

    return [
        Case(name=name, grid=points, make=make(longest), work=count_work(points))
        for name, longest in (("free", float("inf")), ("clipped", 0.5))
    ]
