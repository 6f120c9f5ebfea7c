"""Diffusion energy in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Float, Tensor


def diffusion(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    total = sum((field.diff(dim=axis).square().sum() for axis in range(1, 4)), field.new_zeros(()))
    return total * (weight / (3 * field[0].numel())), diffusion_gradient(field, weight=weight, onto=onto)


def diffusion_gradient(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> Field:
    """See the package."""
    gradient = torch.zeros_like(field)
    nodes = field[0].numel()
    for axis in range(1, 4):
        n = field.shape[axis]
        if n == 1:
            continue
        step = field.diff(dim=axis).mul_(2 * weight / (3 * nodes))
        gradient.narrow(axis, 1, n - 1).add_(step)
        gradient.narrow(axis, 0, n - 1).sub_(step)
    return gradient if onto is None else onto.add_(gradient)
