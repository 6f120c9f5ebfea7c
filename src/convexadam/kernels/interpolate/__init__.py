"""Linear interpolation at all combinations of positions along the axes."""

from __future__ import annotations

from convexadam._typing import Channels, Float, Tensor
from convexadam.kernels._backend import implementation

__all__ = ["interpolated"]


def interpolated(
    field: Channels, positions: tuple[Float[Tensor, " a"], Float[Tensor, " b"], Float[Tensor, " d"]]
) -> Float[Tensor, "c a b d"]:
    """Read ``[c, i, j, k]`` linearly at ``(positions[0][a], positions[1][b], positions[2][d])``.

    Parameters
    ----------
    field
        ``[c, i, j, k]``.
    positions
        Indices along each axis, any number of them, float64 on the CPU; beyond the ends the edge values hold.
    """
    result: Float[Tensor, "c a b d"] = implementation(__name__, field).interpolated(field, positions)
    return result
