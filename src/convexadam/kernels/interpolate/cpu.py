"""Linear interpolation on the CPU, one axis after the other within each plane of the result."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from convexadam._typing import Channels, Float, Tensor
from convexadam.kernels._cpu import compile_kernel, empty, run_in_slabs, to_numpy


def interpolate(
    field: Channels, positions: tuple[Float[Tensor, " a"], Float[Tensor, " b"], Float[Tensor, " d"]]
) -> Float[Tensor, "c a b d"]:
    """See the package."""
    result = empty(len(field), *(len(p) for p in positions))
    tables = [
        table for p, n in zip(positions, field.shape[1:], strict=True) for table in _find_neighbours(p.numpy(), n)
    ]
    run_in_slabs(_interpolate_planes, result.shape[0] * result.shape[1], *to_numpy(field, result), *tables)
    return result


def _find_neighbours(positions: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower neighbour of each position and the weight of the upper one."""
    clamped = np.clip(positions, 0, size - 1)
    low = np.minimum(clamped.astype(np.int64), max(size - 2, 0))
    return low, (clamped - low).astype(np.float32)


@no_type_check
@compile_kernel
def _interpolate_planes(first, last, field, out, low0, share0, low1, share1, low2, share2):
    """Compute the planes ``first ... last - 1`` of the result, counted over all channels."""
    _, n0, n1, n2 = field.shape
    m0, m1, m2 = out.shape[1:]
    plane, row = np.empty((n1, n2), np.float32), np.empty(n2 + 1, np.float32)
    for number in range(first, last):
        c, i = number // m0, number % m0
        below, above, share = field[c, low0[i]], field[c, min(low0[i] + 1, n0 - 1)], share0[i]
        for j in range(n1):
            target, start, stop = plane[j], below[j], above[j]
            for k in range(n2):
                target[k] = start[k] + share * (stop[k] - start[k])
        for j in range(m1):
            start, stop, share, target = plane[low1[j]], plane[min(low1[j] + 1, n1 - 1)], share1[j], out[c, i, j]
            for k in range(n2):
                row[k] = start[k] + share * (stop[k] - start[k])
            row[n2] = row[n2 - 1]
            for k in range(m2):
                at = np.uintp(low2[k])
                target[k] = row[at] + share2[k] * (row[at + np.uintp(1)] - row[at])
