"""Working memory of extractors."""

from __future__ import annotations

_BYTES = 4.0
_WORKING_VALUES = 6
"""Float32 values per voxel that any extractor of this package needs: weights, and scaled and padded copies."""


def pooled_memory_bytes(values: float = _WORKING_VALUES) -> float:
    """Working memory per voxel of an extractor that pools during extraction, in bytes, for a number of values."""
    return _BYTES * values


def full_memory_bytes(channels: int) -> float:
    """Working memory per voxel of an extractor that stores a full-resolution map, in bytes.

    That map and its weighted copy in `convexadam.kernels.resize.pool` come on top of `pooled_memory_bytes`.
    """
    return _BYTES * (_WORKING_VALUES + 2 * channels)
