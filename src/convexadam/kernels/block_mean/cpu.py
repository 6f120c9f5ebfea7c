"""Means over blocks on the CPU, in one pass over memory: the rows of a block are added, then the voxels of each."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels._cpu import compile_kernel, empty, run_in_slabs, to_numpy
from convexadam.kernels.block_mean.reference import select_complete

_NO_WEIGHT = np.empty((0, 0, 0), np.float32)
_ZERO = np.float32(0)


def block_mean(volume: Channels, spacing: Triple, weight: Volume | None = None) -> Float[Tensor, "c a b d"]:
    """See the package."""
    i, j, k = (n // s for n, s in zip(volume.shape[1:], spacing, strict=True))
    result = empty(len(volume), i, j, k)
    (values,) = to_numpy(volume)
    weights = _NO_WEIGHT if weight is None else to_numpy(weight)[0]
    run_in_slabs(_average_planes, i, values, weights, result.numpy(), *spacing)
    return result


def complete_weight(weight: Volume, spacing: Triple) -> Float[Tensor, "a b d"]:
    """See the package."""
    return select_complete(*(block_mean(w[None], spacing)[0] for w in (weight, weight.sign())))


@no_type_check
@compile_kernel
def _average_planes(first, last, values, weights, out, step_i, step_j, step_k):
    """Compute the planes ``first ... last - 1`` of blocks of all channels."""
    channels, n2, m1 = values.shape[0], values.shape[3], out.shape[2]
    total, share = np.empty(n2, np.float32), np.empty(n2, np.float32)
    volume = np.float32(step_i * step_j * step_k)
    for c in range(channels):
        for i in range(first, last):
            for j in range(m1):
                total[:], share[:] = 0, 0
                for a in range(i * step_i, (i + 1) * step_i):
                    for b in range(j * step_j, (j + 1) * step_j):
                        row = values[c, a, b]
                        if weights.size == 0:
                            for k in range(n2):
                                total[k] += row[k]
                        else:
                            factor = weights[a, b]
                            for k in range(n2):
                                total[k] += factor[k] * row[k]
                                share[k] += factor[k]
                _average_row(total, share, weights.size > 0, step_k, volume, out[c, i, j])


@no_type_check
@compile_kernel
def _average_row(total, share, weighted, width, volume, out):
    """Sum the blocks of a row, and divide by the weight or the number of voxels of each."""
    for k in range(len(out)):
        value, weight, start = _ZERO, _ZERO, k * width
        for n in range(width):
            value += total[np.uintp(start + n)]
        if weighted:
            for n in range(width):
                weight += share[np.uintp(start + n)]
            out[k] = value / weight if weight > _ZERO else _ZERO
        else:
            out[k] = value / volume
