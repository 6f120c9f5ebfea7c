"""Linear interpolation at a rectilinear grid of positions."""

from __future__ import annotations

from convexadam._typing import Channels, Float, Tensor
from convexadam.kernels._backend import get_implementation

__all__ = ["interpolate"]


def interpolate(
    field: Channels, positions: tuple[Float[Tensor, " a"], Float[Tensor, " b"], Float[Tensor, " d"]]
) -> Float[Tensor, "c a b d"]:
    """Interpolate ``[c, i, j, k]`` linearly at ``(positions[0][a], positions[1][b], positions[2][d])``.

    Parameters
    ----------
    field
        ``[c, i, j, k]``.
    positions
        Indices along each axis, any number of them, float64 on the CPU; outside the grid the edge values are used.

    Returns
    -------
    ``[c, a, b, d]``.
    """
    result: Float[Tensor, "c a b d"] = get_implementation(__name__, field).interpolate(field, positions)
    return result
