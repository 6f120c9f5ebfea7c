"""The cheapest displacement of each cell, with or without a pull towards a given field."""

from __future__ import annotations

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import implementation

__all__ = ["coupled_argmin"]


def coupled_argmin(
    costs: Float[Tensor, "di dj dk i j k"], *, toward: Field | None = None, theta: float = 0.0, subcell: bool = False
) -> Field:
    """Find ``argmin_d C(x, d) + theta |d - toward(x)|^2`` for each cell ``x``; the sum is never stored.

    Parameters
    ----------
    costs
        Finite costs, ``[2 ri + 1, 2 rj + 1, 2 rk + 1, i, j, k]``.
    toward
        Field ``[3, i, j, k]`` in cells; ``None`` leaves the second term out.
    theta
        Weight of the pull, in cost per squared cell.
    subcell
        Fit a parabola along each axis through the minimum and its two neighbours, and take its lowest point.

    Returns
    -------
    Displacements ``[3, i, j, k]`` in cells, whole-numbered without ``subcell``. Of equal costs the smallest
    displacement wins.
    """
    module = implementation(__name__, costs, toward)
    found: Field = module.coupled_argmin(costs, toward=toward, theta=theta, subcell=subcell)
    return found
