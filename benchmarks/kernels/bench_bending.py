"""Bending energy of a whole field and its gradient, as a term of a cost."""

from __future__ import annotations

import math
import sys

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.bending import bending, bending_gradient


def second_differences(size: Triple, *, valued: bool = True) -> Work:
    """Field in, gradient in and out; for each value two Laplacians (12), a product and a sum.

    The value takes six second differences of three operations, and a square and a sum for each.
    """
    values = 3 * math.prod(size)
    return Work(3 * FLOAT * values, (2 * 12 + 2 + (6 * 5 if valued else 0)) * values)


def cases(size: Triple, device: str) -> list[Case]:
    """Return a field at full resolution."""
    field = case.field(size, device)
    onto = torch.zeros_like(field)
    return [
        Case(
            name="value and gradient",
            grid=size,
            make=lambda _: lambda: bending(field, onto=onto),
            work=second_differences(size),
        ),
        Case(
            name="gradient",
            grid=size,
            make=lambda _: lambda: bending_gradient(field, onto=onto),
            work=second_differences(size, valued=False),
        ),
    ]


if __name__ == "__main__":
    sys.exit(case.main("bending"))
