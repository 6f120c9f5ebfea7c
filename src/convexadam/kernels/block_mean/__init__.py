"""Means over blocks of voxels, weighted or not, and weights of complete blocks."""

from __future__ import annotations

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels._backend import get_implementation

__all__ = ["block_mean", "complete_weight"]


def block_mean(volume: Channels, spacing: Triple, weight: Volume | None = None) -> Float[Tensor, "c a b d"]:
    """Average ``[c, i, j, k]`` over blocks of ``spacing`` voxels; incomplete blocks are omitted.

    With a ``weight`` (``[i, j, k]``, not negative) the averages are weighted, and a block of zero weight gets 0.
    """
    module = get_implementation(__name__, volume, weight)
    result: Float[Tensor, "c a b d"] = module.block_mean(volume, spacing, weight)
    return result


def complete_weight(weight: Volume, spacing: Triple) -> Float[Tensor, "a b d"]:
    """Average weights ``[i, j, k]`` over blocks; 0 unless all voxels of a block have some.

    If no block is complete, partial ones count.
    """
    result: Float[Tensor, "a b d"] = get_implementation(__name__, weight).complete_weight(weight, spacing)
    return result
