"""Diffusion energy of a field and its gradient."""

from __future__ import annotations

import math

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.diffusion import diffusion, diffusion_gradient


def count_work(size: Triple, *, valued: bool = True) -> Work:
    """Field in, gradient in and out; six differences and their sum for each value, three squares and sums of them."""
    values = 3 * math.prod(size)
    return Work(3 * FLOAT * values, (6 + 6 + 1 + (9 if valued else 0)) * values)


def cases(size: Triple, device: str) -> list[Case]:
    """Return a field at full resolution."""
    field = case.make_field(size, device)
    gradient = torch.zeros_like(field)
    return [
        Case(
            name="value and gradient",
            grid=size,
            make=lambda _: lambda: diffusion(field, add_to=gradient),
            work=count_work(size),
        ),
        Case(
            name="gradient",
            grid=size,
            make=lambda _: lambda: diffusion_gradient(field, add_to=gradient),
            work=count_work(size, valued=False),
        ),
    ]
