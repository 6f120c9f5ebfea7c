"""Means over blocks of voxels, weighted or not, and weights of complete blocks."""

from __future__ import annotations

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels._backend import backend_for
from convexadam.kernels.block_mean import reference

__all__ = ["block_mean", "complete_weight"]


def block_mean(volume: Channels, spacing: Triple, weight: Volume | None = None) -> Float[Tensor, "c a b d"]:
    """Average ``[c, i, j, k]`` over blocks of ``spacing`` voxels; incomplete blocks are omitted.

    With a ``weight`` (``[i, j, k]``, not negative) the averages are weighted, and a block of zero weight gets 0.
    """
    if backend_for(volume, weight) == "triton":
        from convexadam.kernels.block_mean import triton

        return triton.block_mean(volume, spacing, weight)
    return reference.block_mean(volume, spacing, weight)  # which is compiled


def complete_weight(weight: Volume, spacing: Triple) -> Float[Tensor, "a b d"]:
    """Average weights ``[i, j, k]`` over blocks; 0 unless all voxels of a block have some.

    If no block is complete, partial ones count.
    """
    if backend_for(weight) == "triton":
        from convexadam.kernels.block_mean import triton

        return triton.complete_weight(weight, spacing)
    return reference.complete_weight(weight, spacing)
