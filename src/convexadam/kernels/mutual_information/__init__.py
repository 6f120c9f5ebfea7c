"""Normalised mutual information under a displacement, its gradient and a surrogate of its curvature."""

from __future__ import annotations

from convexadam._typing import Float, Tensor, Volume
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.mutual_information.reference import nmi_loss
from convexadam.kernels.warp_ssd import SimilarityTerm

__all__ = ["nmi_loss", "prepare_mutual_information"]


def prepare_mutual_information(
    fixed: Float[Tensor, "1 i j k"],
    moving: Float[Tensor, "1 i j k"],
    *,
    bins: int = 32,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
) -> SimilarityTerm:
    """Prepare two maps of one channel for `nmi_loss`, with all computations that do not depend on the displacement.

    The loss is a function of the joint histogram, not a sum of squares, and has no Gauss-Newton approximation. Instead,
    the fourth channel of `SimilarityTerm.curvature` is the magnitude of the gradient at each point, without that of the
    diffusion energy, so that an optimiser that divides by it takes steps of unit length.

    Parameters
    ----------
    fixed, moving
        Maps ``[1, i, j, k]`` of one shape.
    bins
        Number of bins of the histogram along each axis, at least 4.
    fixed_weight, moving_weight
        Weight of each point, ``[i, j, k]``, not negative; ``None`` for 1. See `nmi_loss`.
    """
    term: SimilarityTerm = get_implementation(__name__, fixed, moving, fixed_weight, moving_weight).MutualInformation(
        fixed, moving, bins=bins, fixed_weight=fixed_weight, moving_weight=moving_weight
    )
    return term
