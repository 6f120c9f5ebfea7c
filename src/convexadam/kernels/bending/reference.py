"""Bending energy in torch."""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch

from convexadam._typing import Field, Float, Tensor

_PAIRS = tuple((a, b, 1 if a == b else 2) for a, b in combinations_with_replacement(range(1, 4), 2))
"""Pairs of axes of a field, and the multiplicity of their second difference."""


def bending(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    squares = (count * field.diff(dim=a).diff(dim=b).square().sum() for a, b, count in _PAIRS)
    value = sum(squares, field.new_zeros(())) * (weight / (3 * field[0].numel()))
    return value, bending_gradient(field, weight=weight, add_to=add_to)


def bending_gradient(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> Field:
    """See the package."""
    factor = 2 * weight / (3 * field[0].numel())
    gradient = torch.zeros_like(field)
    for a, b, count in _PAIRS:
        if min(field.shape[a], field.shape[b]) > (2 if a == b else 1):
            gradient += _apply_transpose(_apply_transpose(field.diff(dim=a).diff(dim=b), b), a) * (count * factor)
    return gradient if add_to is None else add_to.add_(gradient)


def _apply_transpose(differences: Float[Tensor, "3 a b d"], axis: int) -> Float[Tensor, "3 e f g"]:
    """Apply the transpose of ``diff`` along an axis."""
    edge = torch.zeros_like(differences.narrow(axis, 0, 1))
    return torch.cat([edge, differences, edge], axis).diff(dim=axis).neg_()
