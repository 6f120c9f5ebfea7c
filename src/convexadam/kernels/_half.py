"""Costs in half precision on CPUs, which store it as 16 bits and do not calculate with it.

The 15 bits of a float16 that is not negative, moved up by 13, are a float32: that number divided by ``2**112``.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from convexadam.kernels._cpu import compiled

_SCALE = np.float32(2.0**112)
_LARGEST_HALF, _LARGEST = np.float32(65504), np.float32(np.finfo(np.float32).max)
_INFINITE = np.float32(65536)
"""What float32 reads where float16 says infinite."""


@no_type_check
@compiled
def read(costs, at):
    """Return one of the costs, kept as float32 or as the 16 bits of float16, as float32; in kernels."""
    if costs.itemsize == 2:
        return np.int32(np.int32(costs[at]) << np.int32(13)).view(np.float32) * _SCALE
    return np.float32(costs[at])


@no_type_check
@compiled
def write(costs, at, value):
    """Store a cost, which is not negative, rounded to the nearest; finite ones stay finite; in kernels."""
    if costs.itemsize == 2:
        kept = min(value, _LARGEST_HALF) if value <= _LARGEST else _INFINITE
        costs[at] = (np.float32(kept / _SCALE).view(np.int32) + np.int32(0x1000)) >> np.int32(13)
    else:
        costs[at] = value


@no_type_check
@compiled
def infinite(costs, at):
    """Whether one of the costs is infinite, or no number; in kernels."""
    return costs[at] >= np.uint16(0x7C00) if costs.itemsize == 2 else not costs[at] <= _LARGEST
