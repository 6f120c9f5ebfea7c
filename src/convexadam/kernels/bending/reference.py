"""Bending energy in torch."""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch

from convexadam._typing import Field, Float, Tensor

_PAIRS = tuple((a, b, 1 if a == b else 2) for a, b in combinations_with_replacement(range(1, 4), 2))
"""Two axes of a field, and how often their difference counts."""


def bending(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    squares = (times * field.diff(dim=a).diff(dim=b).square().sum() for a, b, times in _PAIRS)
    value = sum(squares, field.new_zeros(())) * (weight / (3 * field[0].numel()))
    return value, bending_gradient(field, weight=weight, onto=onto)


def bending_gradient(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> Field:
    """See the package."""
    factor = 2 * weight / (3 * field[0].numel())
    gradient = torch.zeros_like(field)
    for a, b, times in _PAIRS:
        if min(field.shape[a], field.shape[b]) > (2 if a == b else 1):
            gradient += _transposed(_transposed(field.diff(dim=a).diff(dim=b), b), a) * (times * factor)
    return gradient if onto is None else onto.add_(gradient)


def _transposed(differences: Float[Tensor, "3 a b d"], axis: int) -> Float[Tensor, "3 e f g"]:
    """Apply the transposed map of ``diff`` along an axis."""
    edge = torch.zeros_like(differences.narrow(axis, 0, 1))
    return torch.cat([edge, differences, edge], axis).diff(dim=axis).neg_()
