"""Squared feature difference under a displacement, its gradient and that of the roughness: most of a step of Adam.

On request with the curvature of each node.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import case
import torch
import work
from case import FLOAT, HALF, Case, Triple, Work

from convexadam.kernels.warp_ssd import compared


def curved(nodes: Triple, gradient: Work, *, channels: int = 12) -> Work:
    """Curvature beside a gradient: one value more for each node, which takes 6 a channel and 7 for the weight."""
    count = math.prod(nodes)
    return Work(gradient.bytes + FLOAT * count, gradient.operations + count * (6 * channels + 7))


def cases(size: Triple, device: str) -> list[Case]:
    """Nodes of 2 voxels, 12 channels; with and without evidence, and with the curvature."""
    nodes = case.coarser(size, 2)
    fixed, u = case.random(12, *nodes, device=device), case.field(nodes, device)
    rows = {"padded": 16, "storage": HALF} if device == "cuda" else {"padded": 12, "storage": FLOAT}
    known = torch.ones(nodes, device=device)
    known[: nodes[0] // 8] = 0

    def of(name: str, weight: torch.Tensor | None, *, curvature: bool = False) -> Case:
        def make(_: str) -> Callable[[], Any]:
            comparison = compared(fixed, fixed.flip(1), fixed_weight=weight, moving_weight=weight)
            out = torch.empty_like(u)
            if curvature:
                wide = u.new_empty(4, *nodes)
                return lambda: comparison.curvature(u, diffusion=1.25, out=wide)
            return lambda: comparison(u, diffusion=1.25, out=out)

        counted = work.gradient(nodes, **rows, weights=0 if weight is None else 2)
        return Case(name=name, grid=nodes, make=make, work=curved(nodes, counted) if curvature else counted)

    return [of("whole", None), of("masked", known), of("curvature", None, curvature=True)]


if __name__ == "__main__":
    sys.exit(case.main("warp_ssd"))
