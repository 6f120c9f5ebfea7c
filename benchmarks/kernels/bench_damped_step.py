"""A damped second-order step, and what it should gain."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.damped_step import damped_step


def stepped(nodes: Triple) -> Work:
    """Two maps of four channels in, three out.

    A node takes 2 for its factor, 3 products, 5 for the length, 4 for the cut and 3 products; then 6 for the slope
    along the step, 5 for its length, 2 for the curvature along it, and 2 sums.
    """
    count = math.prod(nodes)
    return Work(FLOAT * 11 * count, 32 * count)


def cases(size: Triple, device: str) -> list[Case]:
    """Return a gradient and a curvature on nodes of 2 voxels, whose steps are cut where they are long, or not."""
    nodes = case.coarser(size, 2)

    def make(longest: float) -> Callable[[str], Callable[[], Any]]:
        def made(_: str) -> Callable[[], Any]:
            gradient = case.field(nodes, device)
            slopes = torch.cat([gradient, torch.full_like(gradient[:1], 0.5)])
            means = slopes.clone()
            # steps overwrite what they are made of: with a factor of one they stay as long as they are
            return lambda: damped_step(slopes, means, damping=0.5, longest=longest)

        return made

    return [
        Case(name=name, grid=nodes, make=make(longest), work=stepped(nodes))
        for name, longest in (("free", float("inf")), ("cut to half a node", 0.5))
    ]


if __name__ == "__main__":
    sys.exit(case.main("damped_step"))
