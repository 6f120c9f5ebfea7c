"""Smoothing of a field on the nodes, as in every step of Adam."""

from __future__ import annotations

import sys

import case
import torch
import work
from case import BOX3, Case, Triple

from convexadam.kernels.smooth import smooth


def cases(size: Triple, device: str) -> list[Case]:
    """Three mean filters of width 3 as seven taps along each axis."""
    nodes = case.coarser(size, 2)
    field, after = case.field(nodes, device), case.random(*nodes, device=device)
    out = torch.empty_like(field)
    return [
        Case(
            name="box3",
            grid=nodes,
            make=lambda _: lambda: smooth(field, BOX3, after=after, out=out),
            work=work.smoothed(nodes, len(BOX3)),
        )
    ]


if __name__ == "__main__":
    sys.exit(case.main("smooth"))
