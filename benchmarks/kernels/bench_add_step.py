"""Composition of a field with a small step, as in every step of the default preset."""

from __future__ import annotations

import sys

import case
import torch
import work
from case import Case, Triple

from convexadam.kernels.warp import add_step


def cases(size: Triple, device: str) -> list[Case]:
    """Fields on nodes of 2 voxels."""
    nodes = case.coarser(size, 2)
    field = case.field(nodes, device)
    step, out = 0.5 * field, torch.empty_like(field)
    return [
        Case(
            name="step",
            grid=nodes,
            make=lambda _: lambda: add_step(field, step, longest=0.5, out=out),
            work=work.composed(nodes),
        )
    ]


if __name__ == "__main__":
    sys.exit(case.main("add_step"))
