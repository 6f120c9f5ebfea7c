"""Penalty of volume changes in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Float, Tensor, Volume
from convexadam.kernels.jacobian.reference import jacobian

MIN_DETERMINANT = 0.05
"""Jacobian determinant below which the penalty is continued by its tangent."""


def volume_change(
    field: Field, *, soft_mask: Volume | None = None, weight: float = 1.0, add_to: Field | None = None
) -> tuple[Float[Tensor, ""], Field]:
    """See the package."""
    a, b, c = (torch.stack(row) for row in jacobian(field))
    cofactors = torch.linalg.cross(b, c, dim=0), torch.linalg.cross(c, a, dim=0), torch.linalg.cross(a, b, dim=0)
    determinant = (a * cofactors[0]).sum(0)
    clamped = determinant.clamp_min(MIN_DETERMINANT)
    log = clamped.log()
    weights = weight / determinant.numel() * (torch.ones_like(determinant) if soft_mask is None else soft_mask)
    slope = 2 * log / clamped
    value = (weights * (log.square() + slope * (determinant - clamped))).sum()
    return value, _gradient(field, [c.detach() for c in cofactors], (weights * slope).detach(), add_to)


@torch.no_grad()
def _gradient(field: Field, cofactors: list[Tensor], slopes: Volume, add_to: Field | None) -> Field:
    gradient = torch.zeros_like(field)
    for component, row in zip(gradient, cofactors, strict=True):
        for axis in range(3):
            _add_transposed_gradient(component, slopes * row[axis], axis)
    return gradient if add_to is None else add_to.add_(gradient)


def _add_transposed_gradient(out: Volume, values: Volume, axis: int) -> None:
    """Apply the transpose of ``torch.gradient`` along an axis and add the result."""
    n = out.shape[axis]
    if n > 1:
        scaled = values / 2
        for end in (0, n - 1):
            scaled.select(axis, end).mul_(2)
        out.narrow(axis, 1, n - 1).add_(scaled.narrow(axis, 0, n - 1))
        out.narrow(axis, 0, n - 1).sub_(scaled.narrow(axis, 1, n - 1))
        out.select(axis, 0).sub_(scaled.select(axis, 0))
        out.select(axis, n - 1).add_(scaled.select(axis, n - 1))
