"""Squared feature difference under a displacement, its gradient and that of the roughness: most of a step of Adam.

On request with the Gauss-Newton block of each node.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import case
import torch
import work
from case import FLOAT, HALF, Case, Triple

from convexadam.kernels.warp_ssd import compared


def cases(size: Triple, device: str) -> list[Case]:
    """Nodes of 2 voxels, 12 channels; with and without evidence, and with blocks."""
    nodes = case.coarser(size, 2)
    fixed, u = case.random(12, *nodes, device=device), case.field(nodes, device)
    rows = {"padded": 16, "storage": HALF} if device == "cuda" else {"padded": 12, "storage": FLOAT}
    known = torch.ones(nodes, device=device)
    known[: nodes[0] // 8] = 0

    def of(name: str, weight: torch.Tensor | None, *, blocks: int = 0) -> Case:
        def make(_: str) -> Callable[[], Any]:
            comparison = compared(fixed, fixed.flip(1), fixed_weight=weight, moving_weight=weight)
            out = torch.empty_like(u)
            if blocks:
                return lambda: comparison.gauss_newton(u, diffusion=1.25)
            return lambda: comparison(u, diffusion=1.25, out=out)

        counted = work.gradient(nodes, **rows, weights=0 if weight is None else 2, blocks=blocks)
        return Case(name=name, grid=nodes, make=make, work=counted)

    return [of("whole", None), of("masked", known), of("blocks", None, blocks=1)]


if __name__ == "__main__":
    sys.exit(case.main("warp_ssd"))
