"""Smoothing of a field on control points, as in every step of Adam."""

from __future__ import annotations

import case
import torch
import work
from case import BOX3, Case, Triple

from convexadam.kernels.smooth import smooth


def cases(size: Triple, device: str) -> list[Case]:
    """Return three mean filters of width 3, seven taps along each axis."""
    points = case.coarsen_grid(size, 2)
    field, after = case.make_field(points, device), case.make_random(*points, device=device)
    out = torch.empty_like(field)
    return [
        Case(
            name="box3",
            grid=points,
            make=lambda _: lambda: smooth(field, BOX3, after=after, out=out),
            work=work.smoothed(points, len(BOX3)),
        )
    ]
