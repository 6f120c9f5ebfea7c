"""Jacobian determinants in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Tensor, Volume


def jacobian_determinant(disp_vox: Field) -> Volume:
    """See the package."""
    (a, b, c), (d, e, f), (g, h, i) = jacobian(disp_vox)
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def jacobian(disp_vox: Field) -> list[list[Volume]]:
    """Return the entries of ``I + du/dx``, one row for each component and one column for each axis."""
    return [[_derivative(disp_vox[c], axis) + (1.0 if c == axis else 0.0) for axis in range(3)] for c in range(3)]


def _derivative(component: Tensor, axis: int) -> Tensor:
    if component.shape[axis] == 1:
        return torch.zeros_like(component)
    (derivative,) = torch.gradient(component, dim=axis)
    return derivative
