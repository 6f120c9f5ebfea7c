"""Costs of all displacements within a window."""

from __future__ import annotations

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels._backend import implementation

__all__ = ["cost_volume"]


def cost_volume(
    fixed: Channels,
    moving: Channels,
    radius: Triple,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
) -> Float[Tensor, "di dj dk i j k"]:
    """Cost of each displacement ``d`` of each cell: squared feature difference, averaged over neighbours.

    ``C(x, d) = sum_y k(y - x) w(y, d) |F(y) - M(y + d)|^2 / sum_y k(y - x) w(y, d)`` with
    ``w(y, d) = fixed_weight(y) moving_weight(y + d)``, 0 outside the moving volume, and ``k`` the kernel of
    two 3x3x3 mean filters. Where no neighbour has evidence a displacement costs the mean of the cell's others, neither
    for nor against it; a cell without any evidence gets 0 throughout, so that only its neighbours decide.

    The costs of the reverse direction are those of the two maps (and weights) swapped. Reading them off this volume
    instead would be exact for the squared differences alone: the averages differ near the border.

    Parameters
    ----------
    fixed, moving
        Pooled features ``[c, i, j, k]`` of one shape.
    radius
        Largest displacement along each axis, in cells.
    fixed_weight, moving_weight
        Evidence of each cell, ``[i, j, k]``, not negative; 1 where ``None``.

    Returns
    -------
    ``[2 ri + 1, 2 rj + 1, 2 rk + 1, i, j, k]``, finite.
    """
    module = implementation(__name__, fixed, moving, fixed_weight, moving_weight)
    costs: Float[Tensor, "di dj dk i j k"] = module.cost_volume(
        fixed, moving, radius, fixed_weight=fixed_weight, moving_weight=moving_weight
    )
    return costs
