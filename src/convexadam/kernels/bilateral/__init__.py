"""Edge-preserving smoothing of a field, which allows organs to slide along each other."""

from __future__ import annotations

from convexadam._typing import Channels, Field
from convexadam.kernels._backend import get_implementation

__all__ = ["bilateral"]


def bilateral(
    field: Field,
    guide: Channels,
    *,
    sigma: float,
    sigma_guide: float,
    sigma_field: float | None = None,
    radius: int = 1,
    out: Field | None = None,
) -> Field:
    """Compute ``v(x) = sum_y k(x, y) u(y) / sum_y k(x, y)`` over the points ``y`` of a window around ``x``.

    ``k(x, y) = exp(-|x - y|^2 / 2 sigma^2 - sum_c (g_c(x) - g_c(y))^2 / 2 sigma_guide^2
    - |u(x) - u(y)|^2 / 2 sigma_field^2)``. The window has ``2 radius + 1`` points along each axis, fewer at the border.
    A constant field is reproduced exactly.

    Papiez, Heinrich, Fehrenbach, Risser, Schnabel, "An implicit sliding-motion preserving regularisation via bilateral
    filtering for deformable image registration", Medical Image Analysis 2014.

    Parameters
    ----------
    field
        ``u``, ``[3, i, j, k]``, in grid units.
    guide
        ``g``, ``[c, i, j, k]`` on the same grid: intensities, or channels that distinguish organs.
    sigma, sigma_guide
        Standard deviations, above 0, in grid units and in units of the guide.
    sigma_field
        Standard deviation in units of the field; ``None`` omits this term.
    radius
        Radius of the window, in grid units.
    out
        Tensor to which the result is written, not ``field``; ``None`` for a new one.

    Returns
    -------
    ``[3, i, j, k]``; ``out`` if given.
    """
    sigmas = {"sigma": sigma, "sigma_guide": sigma_guide, "sigma_field": sigma_field}
    module = get_implementation(__name__, field, guide, out)
    result: Field = module.bilateral(field, guide, **sigmas, radius=radius, out=out)
    return result
