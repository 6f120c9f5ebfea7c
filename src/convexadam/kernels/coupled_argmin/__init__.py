"""Displacement of minimal cost at each control point, with optional quadratic coupling to a field."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.window import Window

_HALF = (torch.float16, torch.bfloat16)

__all__ = ["coupled_argmin"]


def coupled_argmin(
    costs: Float[Tensor, "n i j k"],
    window: Window,
    *,
    toward: Field | None = None,
    theta: float = 0.0,
    unit: Float[Tensor, ""] | None = None,
    parabolic_fit: bool = False,
    average: bool = False,
) -> Field:
    """Compute ``argmin_d C(x, d) + theta |d - toward(x)|^2`` for each control point ``x``, without storing the sum.

    Parameters
    ----------
    costs
        Finite costs, ``[n, i, j, k]`` in the order of ``window.steps``; half precision is compared in float32.
    window
        Candidate displacements, in control-point spacings.
    toward
        Field ``[3, i, j, k]`` in control-point spacings; ``None`` omits the coupling term.
    theta
        Coupling weight, in cost per squared control-point spacing.
    unit
        Number on the device whose square is a factor of ``theta``; ``None`` for 1. See
        `convexadam.kernels.cost_volume`.
    parabolic_fit
        Refine to the vertex of a parabola through the minimum and its two neighbours along each axis, if both are in
        the window.
    average
        Whether ``toward`` is replaced by its `convexadam.kernels.box_mean` first.

    Returns
    -------
    Displacements ``[3, i, j, k]`` in control points, integers without ``parabolic_fit``. Of equal costs that of the
    shortest displacement is selected.
    """
    like = costs if costs.dtype not in _HALF else costs.new_empty(0, dtype=torch.float32)
    module = get_implementation(__name__, like, toward)
    displacement: Field = module.coupled_argmin(
        costs, window, toward=toward, theta=theta, unit=unit, parabolic_fit=parabolic_fit, average=average
    )
    return displacement
