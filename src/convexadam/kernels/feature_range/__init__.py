"""What the values of two feature maps decide on: their size, and whether they can be matched."""

from __future__ import annotations

from convexadam._typing import Channels, Float, Tensor, Volume
from convexadam.kernels._backend import backend_for
from convexadam.kernels.feature_range import reference

__all__ = ["measure_range"]


def measure_range(
    fixed: Channels, moving: Channels, fixed_weight: Volume | None, moving_weight: Volume | None
) -> Float[Tensor, " 6"]:
    """Measure two feature maps; on the device, which is not waited for.

    Parameters
    ----------
    fixed, moving
        Features ``[c, i, j, k]`` of one shape.
    fixed_weight, moving_weight
        Weight of each point, ``[i, j, k]``, not negative; ``None`` for 1.

    Returns
    -------
    Float64: the largest absolute value (NaN if any value is); the norm over channels of the difference between the
    largest and the smallest value of both maps; 1 if in both maps a channel varies, where there is weight, by more than
    a millionth of its largest value, else 0; the smaller one of the largest weights; the largest product of both; and
    the largest power of two whose product with the norm is at most 1, or 1 if there is none.
    """
    if backend_for(fixed, moving, fixed_weight, moving_weight) == "triton":
        from convexadam.kernels.feature_range import triton

        return triton.measure_range(fixed, moving, fixed_weight, moving_weight)
    return reference.measure_range(fixed, moving, fixed_weight, moving_weight)  # its reductions are compiled
