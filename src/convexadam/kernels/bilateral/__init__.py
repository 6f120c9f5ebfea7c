"""Smoothing of a field that stops at edges, so that organs may slide along each other."""

from __future__ import annotations

from convexadam._typing import Channels, Field
from convexadam.kernels._backend import implementation

__all__ = ["bilateral"]


def bilateral(
    field: Field,
    guide: Channels,
    *,
    sigma_nodes: float,
    sigma_guide: float,
    sigma_field: float | None = None,
    radius: int = 1,
    out: Field | None = None,
) -> Field:
    """Return ``v(x) = sum_y k(x, y) u(y) / sum_y k(x, y)`` over the nodes ``y`` of a window around ``x``.

    ``k(x, y) = exp(-|x - y|^2 / 2 sigma_nodes^2 - sum_c (g_c(x) - g_c(y))^2 / 2 sigma_guide^2
    - |u(x) - u(y)|^2 / 2 sigma_field^2)``. The window has ``2 radius + 1`` nodes along each axis, fewer at the border.
    A constant field stays the same to the last digit.

    Papiez, Heinrich, Fehrenbach, Risser, Schnabel, "An implicit sliding-motion preserving regularisation via bilateral
    filtering for deformable image registration", Medical Image Analysis 2014.

    Parameters
    ----------
    field
        ``u``, ``[3, i, j, k]``, in nodes.
    guide
        ``g``, ``[c, i, j, k]``: intensities, or channels that tell organs apart, on the same nodes.
    sigma_nodes, sigma_guide
        Standard deviations above 0, in nodes and in units of the guide.
    sigma_field
        The same in units of the field; ``None`` leaves this term out.
    radius
        Reach of the window, in nodes.
    out
        Where to write the result (not ``field`` itself); ``None`` takes new memory.

    Returns
    -------
    ``[3, i, j, k]``, ``out`` where it was given.
    """
    sigmas = {"sigma_nodes": sigma_nodes, "sigma_guide": sigma_guide, "sigma_field": sigma_field}
    module = implementation(__name__, field, guide, out)
    result: Field = module.bilateral(field, guide, **sigmas, radius=radius, out=out)
    return result
