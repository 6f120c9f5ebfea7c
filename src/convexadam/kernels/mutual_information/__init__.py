"""Normalised mutual information under a displacement, its gradient and, on request, a curvature."""

from __future__ import annotations

from convexadam._typing import Float, Tensor, Volume
from convexadam.kernels._backend import implementation
from convexadam.kernels.mutual_information.reference import nmi_loss
from convexadam.kernels.warp_ssd import Comparison

__all__ = ["nmi_loss", "shared"]


def shared(
    fixed: Float[Tensor, "1 i j k"],
    moving: Float[Tensor, "1 i j k"],
    *,
    bins: int = 32,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
) -> Comparison:
    """Prepare two maps of one channel for `nmi_loss`: what does not depend on the displacement is done once.

    It is a function of the histogram of the whole maps, no sum of squares, and has no Gauss-Newton blocks. Instead, a
    gradient is taken for an error of one node: the fourth channel of `Comparison.curvature` is the length of the node's
    gradient, without that of the roughness, so that an optimiser that divides by it takes normalised steps.

    Parameters
    ----------
    fixed, moving
        Maps ``[1, i, j, k]`` of one shape.
    bins
        Of the histogram along each axis, at least 4.
    fixed_weight, moving_weight
        Evidence of each node, ``[i, j, k]``, not negative; 1 where ``None``. See `nmi_loss`.
    """
    prepared: Comparison = implementation(__name__, fixed, moving, fixed_weight, moving_weight).MutualInformation(
        fixed, moving, bins=bins, fixed_weight=fixed_weight, moving_weight=moving_weight
    )
    return prepared
