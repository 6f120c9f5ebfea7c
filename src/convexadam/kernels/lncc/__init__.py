"""Local normalised cross-correlation under a displacement, its gradient and its curvature."""

from __future__ import annotations

from convexadam._typing import Channels, Volume
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.lncc.reference import lncc
from convexadam.kernels.warp_ssd import SimilarityTerm

__all__ = ["lncc", "prepare_lncc"]


def prepare_lncc(
    fixed: Channels,
    moving: Channels,
    *,
    radius: int = 2,
    floor: float = 1e-3,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
) -> SimilarityTerm:
    """Prepare two maps for `lncc`, with all computations that do not depend on the displacement.

    ``1 - cc`` is the relative residual of a local linear fit of intensities, and `SimilarityTerm.curvature` is the
    Gauss-Newton approximation of its second derivative: ``1/3 sum_c h_c |dM_c|^2``, with ``h_c`` the box sum of
    ``w/W 2 cov^2 / (vf vm^2)``, times ``w/N``.

    Parameters
    ----------
    fixed, moving
        Maps ``[c, i, j, k]`` of one shape.
    radius
        Radius of the window, of ``2 radius + 1`` points along each axis.
    floor
        Constant added to local variances, as a fraction of the variance of the map; above 0.
    fixed_weight, moving_weight
        Weight of each point, ``[i, j, k]``, not negative; ``None`` for 1. See `lncc`.
    """
    prepared: SimilarityTerm = get_implementation(__name__, fixed, moving, fixed_weight, moving_weight).Correlation(
        fixed, moving, radius=radius, floor=floor, fixed_weight=fixed_weight, moving_weight=moving_weight
    )
    return prepared
