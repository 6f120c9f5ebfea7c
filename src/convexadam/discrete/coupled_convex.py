"""A smooth field from a cost volume, by alternating a label choice and a smoothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from convexadam._arguments import check_arguments
from convexadam._typing import Field, Float, Tensor
from convexadam.kernels.box_mean import box_mean
from convexadam.kernels.coupled_argmin import coupled_argmin
from convexadam.kernels.window import Window

COUPLING_WEIGHTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""``theta`` of the published method, weak to strong."""


@check_arguments
def coupled_convex(
    costs: Float[Tensor, "n i j k"],
    window: Window,
    *,
    coupling_weights: Sequence[float] = COUPLING_WEIGHTS,
    unit: Float[Tensor, ""] | None = None,
    parabolic_fit: bool = False,
) -> Field:
    """Minimise the cost plus the roughness of the field, by ``u <- mean3(argmin_d C(x, d) + theta |d - u(x)|^2)``.

    The first field is ``mean3(argmin_d C(x, d))``; one pass for each ``theta`` follows.

    Parameters
    ----------
    costs
        Finite costs ``[n, i, j, k]``, of any precision; see `convexadam.discrete.cost_volume`.
    window
        Their displacements.
    coupling_weights
        ``theta`` in cost per squared control point, in order of use.
    unit
        Number on the device whose square is a factor of the coupling weights; see `convexadam.kernels.coupled_argmin`.
    parabolic_fit
        Refine each choice to a fraction of a control point; see `convexadam.kernels.coupled_argmin`.

    Returns
    -------
    Displacements ``[3, i, j, k]`` in control points.

    Notes
    -----
    Heinrich, Papiez, Schnabel, Handels, "Non-parametric discrete registration with convex optimisation",
    WBIR 2014. The mean filter is normalised at the border.

    Examples
    --------
    >>> import torch
    >>> from convexadam.discrete import Window, cost_volume, coupled_convex
    >>> fixed = torch.rand(2, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    >>> window = Window((2, 2, 2))
    >>> costs = cost_volume(fixed, fixed.roll(1, dims=1), window)
    >>> disp = coupled_convex(costs, window)  # in voxels of the maps
    >>> round(disp[0, 4:8, 4:8, 4:8].mean().item()), round(disp[1, 4:8, 4:8, 4:8].mean().item())
    (1, 0)
    """
    choose = partial(coupled_argmin, costs, window, unit=unit, parabolic_fit=parabolic_fit, average=True)
    chosen = choose()
    for theta in coupling_weights:
        chosen = choose(toward=chosen, theta=theta)
    return box_mean(chosen)
