"""Diffusion energy in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Float, Tensor


def diffusion(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    total = sum((field.diff(dim=axis).square().sum() for axis in range(1, 4)), field.new_zeros(()))
    return total * (weight / (3 * field[0].numel())), diffusion_gradient(field, weight=weight, add_to=add_to)


def diffusion_gradient(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> Field:
    """See the package."""
    gradient = torch.zeros_like(field)
    points = field[0].numel()
    for axis in range(1, 4):
        n = field.shape[axis]
        if n == 1:
            continue
        step = field.diff(dim=axis).mul_(2 * weight / (3 * points))
        gradient.narrow(axis, 1, n - 1).add_(step)
        gradient.narrow(axis, 0, n - 1).sub_(step)
    return gradient if add_to is None else add_to.add_(gradient)
