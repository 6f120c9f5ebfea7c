"""Sum of a mass of voxels, and of the mass times each index."""

from __future__ import annotations

from convexadam._typing import Float, Tensor, Volume
from convexadam.kernels._backend import get_implementation

__all__ = ["sum_moments"]


def sum_moments(
    volume: Volume, middle: Float[Tensor, ""], limit: Float[Tensor, ""], mask: Volume | None
) -> Float[Tensor, " 4"]:
    """Compute ``sum_x m(x)`` and ``sum_x m(x) x`` with ``m(x) = min(|volume(x) - middle|, limit) mask(x)``.

    Parameters
    ----------
    volume
        ``[i, j, k]``.
    middle, limit
        On its device, which is not waited for.
    mask
        ``[i, j, k]``; ``None`` for 1.

    Returns
    -------
    Float64, on the device.
    """
    module = get_implementation(__name__, volume, middle, limit, mask)
    moments: Float[Tensor, " 4"] = module.sum_moments(volume, middle, limit, mask)
    return moments
