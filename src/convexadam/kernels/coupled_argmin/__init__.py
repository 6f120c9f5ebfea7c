"""The cheapest displacement of each cell, with or without a pull towards a given field."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import implementation
from convexadam.kernels.window import Window

_HALF = (torch.float16, torch.bfloat16)

__all__ = ["coupled_argmin"]


def coupled_argmin(
    costs: Float[Tensor, "n i j k"],
    window: Window,
    *,
    toward: Field | None = None,
    theta: float = 0.0,
    subcell: bool = False,
) -> Field:
    """Find ``argmin_d C(x, d) + theta |d - toward(x)|^2`` for each cell ``x``; the sum is never stored.

    Parameters
    ----------
    costs
        Finite costs, ``[n, i, j, k]`` in the order of ``window.steps``; half precision is compared in float32.
    window
        The displacements, in cells.
    toward
        Field ``[3, i, j, k]`` in cells; ``None`` leaves the second term out.
    theta
        Weight of the pull, in cost per squared cell.
    subcell
        Fit a parabola along each axis through the minimum and its two neighbours, where both are in the window, and
        take its lowest point.

    Returns
    -------
    Displacements ``[3, i, j, k]`` in cells, whole-numbered without ``subcell``. Of equal costs the smallest
    displacement wins.
    """
    like = costs if costs.dtype not in _HALF else costs.new_empty(0, dtype=torch.float32)
    module = implementation(__name__, like, toward)
    found: Field = module.coupled_argmin(costs, window, toward=toward, theta=theta, subcell=subcell)
    return found
