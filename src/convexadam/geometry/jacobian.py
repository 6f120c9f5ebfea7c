"""Local volume change of a displacement field."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Tensor, Volume


def jacobian_determinant(disp_vox: Field) -> Volume:
    """Local volume change ``det(I + du/dx)``; 1 means unchanged, <= 0 means folded.

    Central differences inside, one-sided ones at the outer voxels; an axis of one voxel does not vary. The
    determinant is the same in voxels and in mm.

    Parameters
    ----------
    disp_vox
        Displacements ``[3, i, j, k]`` in voxels of their own grid.

    Returns
    -------
    ``[i, j, k]``, no unit.

    Examples
    --------
    >>> import torch
    >>> jacobian_determinant(torch.zeros(3, 4, 5, 6)).unique().tolist()
    [1.0]
    """
    rows = [[_derivative(disp_vox[c], axis) + (1.0 if c == axis else 0.0) for axis in range(3)] for c in range(3)]
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _derivative(component: Tensor, axis: int) -> Tensor:
    if component.shape[axis] == 1:
        return torch.zeros_like(component)
    (derivative,) = torch.gradient(component, dim=axis)
    return derivative
