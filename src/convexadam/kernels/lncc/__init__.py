"""Local correlation under a displacement, its gradient and, on request, its curvature."""

from __future__ import annotations

from convexadam._typing import Channels, Volume
from convexadam.kernels._backend import implementation
from convexadam.kernels.lncc.reference import lncc
from convexadam.kernels.warp_ssd import Comparison

__all__ = ["correlated", "lncc"]


def correlated(
    fixed: Channels,
    moving: Channels,
    *,
    radius: int = 2,
    floor: float = 1e-3,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
) -> Comparison:
    """Prepare two maps to be compared by `lncc`: what does not depend on the displacement is done once.

    `Comparison.curvature` is that of the residual of a local linear fit of intensities, which is what ``1 - cc``
    measures: ``1/3 sum_c h_c |dM_c|^2``, with ``h_c`` the box sum of ``w/W 2 cov^2 / (vf vm^2)``, times ``w/N``.

    Parameters
    ----------
    fixed, moving
        Maps ``[c, i, j, k]`` of one shape.
    radius
        Of the window: ``2 radius + 1`` nodes along each axis.
    floor
        What is added to local variances, as a share of the map's whole variance; more than 0.
    fixed_weight, moving_weight
        Evidence of each node, ``[i, j, k]``, not negative; 1 where ``None``. See `lncc`.
    """
    prepared: Comparison = implementation(__name__, fixed, moving, fixed_weight, moving_weight).Correlation(
        fixed, moving, radius=radius, floor=floor, fixed_weight=fixed_weight, moving_weight=moving_weight
    )
    return prepared
