"""Linear interpolation on the CPU: two neighbours along each axis, plane by plane."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from convexadam._typing import Channels, Float, Tensor
from convexadam.kernels._cpu import compiled, empty, in_slabs, views


def interpolated(
    field: Channels, positions: tuple[Float[Tensor, " a"], Float[Tensor, " b"], Float[Tensor, " d"]]
) -> Float[Tensor, "c a b d"]:
    """See the package."""
    result = empty(len(field), *(len(p) for p in positions))
    tables = [table for p, n in zip(positions, field.shape[1:], strict=True) for table in _table(p.numpy(), n)]
    in_slabs(_planes, result.shape[0] * result.shape[1], *views(field, result), *tables)
    return result


def _table(positions: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower neighbour of each position, and the share of the upper one."""
    where = np.clip(positions, 0, size - 1)
    low = np.minimum(where.astype(np.int64), max(size - 2, 0))
    return low, (where - low).astype(np.float32)


@no_type_check
@compiled
def _planes(first, last, field, out, low0, share0, low1, share1, low2, share2):
    """Planes ``first ... last - 1`` of all channels in a row."""
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
