"""Cost volume: dissimilarity of all displacements within a window."""

from __future__ import annotations

import torch

from convexadam._arguments import check_arguments
from convexadam._typing import Float, Tensor
from convexadam.kernels._backend import get_implementation
from convexadam.kernels._batch import over_batch
from convexadam.kernels.window import Window

__all__ = ["Window", "cost_volume"]


@over_batch(4)
@check_arguments
def cost_volume(
    fixed: Float[Tensor, "*b c i j k"],
    moving: Float[Tensor, "*b c i j k"],
    window: Window,
    *,
    fixed_weight: Float[Tensor, "*b i j k"] | None = None,
    moving_weight: Float[Tensor, "*b i j k"] | None = None,
    scale: float = 1.0,
    unit: Float[Tensor, ""] | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*b n i j k"]:
    """Compute the cost of each displacement ``d`` of each control point: mean squared feature difference.

    ``C(x, d) = sum_y k(y - x) w(y, d) |F(y) - M(y + d)|^2 / sum_y k(y - x) w(y, d)`` with
    ``w(y, d) = fixed_weight(y) moving_weight(y + d)``, 0 outside the moving volume, and ``k`` the kernel of
    two 3x3x3 mean filters. If all weights of a displacement are 0, its cost is the mean of the other costs of the
    control point, which neither favours nor penalises it; if that holds for all displacements, all costs are 0, so that
    the result depends on the neighbours only.

    The costs of the backward direction are those of exchanged maps (and weights). They cannot be read from this volume:
    the squared differences are the same, but their averages differ near the border.

    Parameters
    ----------
    fixed, moving
        Pooled features ``[c, i, j, k]`` of one shape, or several of them ``[b, c, i, j, k]``.
    window
        Candidate displacements, in control-point spacings.
    fixed_weight, moving_weight
        Weight of each control point, ``[i, j, k]``, not negative; ``None`` for 1.
    scale, unit
        Factors of the features: a number, and one on the device, where the host does not know it; ``None`` for 1.
        Powers of two change costs by their square alone, so that they fill the range of ``dtype``.
    dtype
        Type of the result; ``None`` for that of the features. float16 halves the memory, for costs up to 65504.

    Returns
    -------
    ``[n, i, j, k]`` in the order of ``window.steps``, finite.

    Examples
    --------
    >>> import torch
    >>> from convexadam.discrete import Window, cost_volume
    >>> maps = torch.rand(4, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> costs = cost_volume(maps, maps, Window((1, 1, 1)))
    >>> tuple(costs.shape), costs[13].abs().max().item()  # 13 of 27 is no displacement
    ((27, 8, 8, 8), 0.0)
    """
    module = get_implementation(__name__, fixed, moving, fixed_weight, moving_weight)
    costs: Float[Tensor, "n i j k"] = module.cost_volume(
        fixed,
        moving,
        window,
        fixed_weight=fixed_weight,
        moving_weight=moving_weight,
        scale=scale,
        unit=unit,
        dtype=dtype or fixed.dtype,
    )
    return costs
