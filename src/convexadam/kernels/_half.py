"""Half-precision storage of costs for CPU kernels, as 16-bit integers, because numba has no float16 arithmetic on CPUs.

The bits of a non-negative float16, shifted left by 13, are those of a float32 with its value divided by ``2**112``.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from convexadam.kernels._cpu import compile_kernel

_SCALE = np.float32(2.0**112)
_LARGEST_HALF, _LARGEST = np.float32(65504), np.float32(np.finfo(np.float32).max)
_INFINITE = np.float32(65536)
"""Float32 value that converts to an infinite float16."""


@no_type_check
@compile_kernel
def read(costs, at):
    """Read a cost, stored as float32 or as the bits of a float16, as float32; for kernels."""
    if costs.itemsize == 2:
        return np.int32(np.int32(costs[at]) << np.int32(13)).view(np.float32) * _SCALE
    return np.float32(costs[at])


@no_type_check
@compile_kernel
def write(costs, at, value):
    """Store a non-negative cost, rounded to nearest; finite costs remain finite; for kernels."""
    if costs.itemsize == 2:
        clamped = min(value, _LARGEST_HALF) if value <= _LARGEST else _INFINITE
        costs[at] = (np.float32(clamped / _SCALE).view(np.int32) + np.int32(0x1000)) >> np.int32(13)
    else:
        costs[at] = value


@no_type_check
@compile_kernel
def infinite(costs, at):
    """Whether a cost is infinite or NaN; for kernels."""
    return costs[at] >= np.uint16(0x7C00) if costs.itemsize == 2 else not costs[at] <= _LARGEST
