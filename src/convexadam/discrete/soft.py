"""Displacements from a cost volume as expectations, for networks that are trained through it."""

from __future__ import annotations

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_number
from convexadam._typing import Field, Float, Tensor
from convexadam.errors import InputError
from convexadam.kernels._batch import over_batch
from convexadam.kernels.window import Window


@over_batch(4)
@check_arguments
def soft_displacement(
    costs: Float[Tensor, "*b n i j k"], window: Window, *, sharpness: float = 1.0
) -> Float[Tensor, "*b 3 i j k"]:
    """Compute the mean displacement ``sum_d d p(d)`` with ``p = softmax_d(-sharpness C(x, d))``; differentiable.

    Parameters
    ----------
    costs
        Finite costs ``[n, i, j, k]``, or several of them ``[b, n, i, j, k]``; see `convexadam.discrete.cost_volume`.
    window
        Their displacements.
    sharpness
        In units of one over the cost, at least 0. The larger it is, the closer is the result to that of
        `convexadam.kernels.coupled_argmin`.

    Returns
    -------
    Displacements ``[3, i, j, k]`` in control points, of the type of the costs.

    Raises
    ------
    InputError
        If there are not as many costs as displacements.

    Notes
    -----
    Heinrich, "Closing the gap between deep and conventional image registration using probabilistic dense displacement
    networks", MICCAI 2019.

    Examples
    --------
    >>> costs = torch.ones(27, 2, 2, 2)
    >>> soft_displacement(costs, Window((1, 1, 1))).abs().max().item() < 1e-6
    True
    """
    check_number(sharpness, "sharpness")
    if len(costs) != len(window.table):
        raise InputError(
            f"costs must be those of {len(window.table)} displacements, got {len(costs)}; pass the window they were "
            "computed with"
        )
    shares = torch.softmax(-sharpness * costs.flatten(1), 0)
    steps = torch.from_numpy(window.table).to(shares)
    displacement: Field = (steps.T @ shares).reshape(3, *costs.shape[1:])
    return displacement
