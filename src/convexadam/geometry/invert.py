"""Inverses of displacement fields."""

from __future__ import annotations

import torch

from convexadam._typing import Field
from convexadam.geometry.grid import Grid
from convexadam.geometry.resample import read_tensor

_ITERATIONS = 60
_CLOSE = 1e-3
"""Change of the inverse, in voxels, that ends the iteration."""


def inverse_field(disp_mm: Field, grid: Grid, onto: Grid) -> tuple[Field, float]:
    """Displacements ``v`` in mm at the voxels of ``onto`` with ``v(y) = -u(y + v(y))``, and the residual in mm.

    Fixed-point iteration (Chen, Lu, Chen, Ruchala and Olivera, Medical Physics 2008).

    Parameters
    ----------
    disp_mm
        ``u``, ``[3, i, j, k]`` in mm on ``grid``.
    grid
        Where ``u`` is known; edge values hold outside.
    onto
        Where the inverse is wanted.
    """
    inverse = read_tensor(disp_mm, grid, onto).neg_()
    residual = torch.zeros((), device=disp_mm.device)
    for _ in range(_ITERATIONS):
        found = read_tensor(disp_mm, grid, onto, disp_mm=inverse).neg_()
        residual = (found - inverse).square_().sum(0).max().sqrt()
        inverse = found
        if float(residual) < _CLOSE * min(grid.spacing_mm):
            break
    found = read_tensor(disp_mm, grid, onto, disp_mm=inverse).add_(inverse)
    return inverse, float(found.square_().sum(0).max().sqrt())
