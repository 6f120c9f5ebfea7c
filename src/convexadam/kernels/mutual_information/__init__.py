"""Normalised mutual information under a displacement, and its gradient."""

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

    It is a function of the histogram of the whole maps, and no sum of squares: its `Comparison.gauss_newton` raises
    `ConfigError`.

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
