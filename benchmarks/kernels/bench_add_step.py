"""Composition of a field with a small step, as in every step of the default preset."""

from __future__ import annotations

import case
import torch
import work
from case import Case, Triple

from convexadam.kernels.warp import add_step


def cases(size: Triple, device: str) -> list[Case]:
    """Return fields on control points of spacing 2."""
    points = case.coarsen_grid(size, 2)
    field = case.make_field(points, device)
    step, out = 0.5 * field, torch.empty_like(field)
    return [
        Case(
            name="step",
            grid=points,
            make=lambda _: lambda: add_step(field, step, longest=0.5, out=out),
            work=work.composed(points),
        )
    ]
