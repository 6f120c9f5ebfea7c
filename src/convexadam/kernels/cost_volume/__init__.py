"""Costs of all displacements within a window."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Float, Tensor, Volume
from convexadam.kernels._backend import implementation
from convexadam.kernels.window import Window

__all__ = ["Window", "cost_volume"]


def cost_volume(
    fixed: Channels,
    moving: Channels,
    window: Window,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "n i j k"]:
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
    window
        The displacements, in cells.
    fixed_weight, moving_weight
        Evidence of each cell, ``[i, j, k]``, not negative; 1 where ``None``.
    dtype
        Type of the result; ``None`` takes that of the features. float16 halves the memory, and holds costs below 65504.

    Returns
    -------
    ``[n, i, j, k]`` in the order of ``window.steps``, finite.
    """
    module = implementation(__name__, fixed, moving, fixed_weight, moving_weight)
    costs: Float[Tensor, "n i j k"] = module.cost_volume(
        fixed,
        moving,
        window,
        fixed_weight=fixed_weight,
        moving_weight=moving_weight,
        dtype=dtype or fixed.dtype,
    )
    return costs
