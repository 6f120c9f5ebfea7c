"""Bending energy of a field and its gradient."""

from __future__ import annotations

import math

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.bending import bending, bending_gradient


def count_work(size: Triple, *, valued: bool = True) -> Work:
    """Field in, gradient in and out; for each value two Laplacians (12), a product and a sum.

    The value needs six second differences of three operations, and a square and a sum for each.
    """
    values = 3 * math.prod(size)
    return Work(3 * FLOAT * values, (2 * 12 + 2 + (6 * 5 if valued else 0)) * values)


def cases(size: Triple, device: str) -> list[Case]:
    """Return a field at full resolution."""
    field = case.make_field(size, device)
    gradient = torch.zeros_like(field)
    return [
        Case(
            name="value and gradient",
            grid=size,
            make=lambda _: lambda: bending(field, add_to=gradient),
            work=count_work(size),
        ),
        Case(
            name="gradient",
            grid=size,
            make=lambda _: lambda: bending_gradient(field, add_to=gradient),
            work=count_work(size, valued=False),
        ),
    ]
