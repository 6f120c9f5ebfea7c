"""The cost volume on the CPU: each displacement is a volume of cells that fits into the cache."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from torch.nn import functional

from convexadam._typing import Channels, Float, Tensor, Volume
from convexadam.kernels._cpu import HALF_SCALE, compiled, empty, in_slabs
from convexadam.kernels.window import Window

_BLOCK = 256
_LARGEST_HALF, _LARGEST = np.float32(65504), np.float32(np.finfo(np.float32).max)
_INFINITE_HALF, _INFINITE_BITS = np.float32(65536) / HALF_SCALE, 0x7C00
"""What stands for infinite in 16 bits; as a float32 it is 65536."""

_REACH = 2
"""Cells that the mean filters look to each side."""


def cost_volume(
    fixed: Channels,
    moving: Channels,
    window: Window,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
    dtype: torch.dtype,
) -> Float[Tensor, "n i j k"]:
    """See the package."""
    shape = fixed.shape[1:]
    kind = torch.float16 if dtype == torch.float16 else torch.float32
    costs = empty(len(window.steps), *shape, dtype=kind)
    target = (costs.view(torch.uint16) if kind == torch.float16 else costs).numpy()
    one = torch.ones_like(fixed[0])
    gap = max(window.radius[2], _REACH)  # whatever leaves a row at one end meets zeros, not the next row
    rows = [functional.pad(t, (0, gap)).contiguous().numpy() for t in (fixed, moving)]
    weights = [functional.pad(one if w is None else w, (0, gap)).numpy() for w in (fixed_weight, moving_weight)]
    in_slabs(_labels, len(target), *rows, *weights, target, window.table)
    in_slabs(_fill, shape.numel(), target.reshape(len(target), -1), multiple=_BLOCK)
    return costs.to(dtype)


@no_type_check
@compiled
def _labels(first, last, fixed, moving, fixed_weight, moving_weight, out, steps):
    """Costs of the displacements ``first ... last - 1``; infinite where no neighbour has evidence.

    A plane of cells is one long row: each row of it ends in zeros, so that shifts along it need no care.
    """
    channels, n0, n1, wide = fixed.shape
    n2, plane = out.shape[3], n1 * wide
    margin = _REACH * wide
    here, there = fixed.reshape(channels, n0 * plane), moving.reshape(channels, n0 * plane)
    weight_here, weight_there = fixed_weight.reshape(-1), moving_weight.reshape(-1)
    costs, shares = np.zeros((n0, plane), np.float32), np.zeros((n0, plane), np.float32)
    bits, stored = np.empty(plane, np.int32), np.empty(plane, out.dtype)
    padded, summed = np.zeros(plane + 2 * margin, np.float32), np.zeros((n0 + 2 * _REACH, plane), np.float32)
    for label in range(first, last):
        d0, shift = steps[label, 0], steps[label, 1] * wide + steps[label, 2]
        low, high = max(0, -shift), min(plane, plane - shift)
        for i in range(n0):
            cost, share = costs[i], shares[i]
            cost[:], share[:] = 0, 0
            if i + d0 < 0 or i + d0 >= n0:
                continue
            start, to, size = i * plane + low, (i + d0) * plane + low + shift, max(high - low, 0)
            target = cost[low : low + size]
            for c in range(channels):
                a, b = here[c, start : start + size], there[c, to : to + size]
                for p in range(size):
                    apart = a[p] - b[p]
                    target[p] += apart * apart
            a, b, weight = weight_here[start : start + size], weight_there[to : to + size], share[low : low + size]
            for p in range(size):
                weight[p] = a[p] * b[p]
            for p in range(size):
                target[p] *= weight[p]
        _mean(costs, padded, summed, wide)
        _mean(shares, padded, summed, wide)
        for i in range(n0):
            cost, share = costs[i], shares[i]
            for p in range(plane):
                cost[p] = cost[p] / share[p] if share[p] > np.float32(0) else np.float32(np.inf)
            _write(cost, bits, stored)
            rows = out[label, i]
            for j in range(n1):
                row, source = rows[j], stored[j * wide :]
                for k in range(n2):
                    row[k] = source[k]


@no_type_check
@compiled
def _mean(planes, padded, summed, wide):
    """Two sums of three neighbours along each axis, in place; zeros outside."""
    n0, plane = planes.shape
    margin = _REACH * wide
    middle = padded[margin : margin + plane]
    for i in range(n0):
        for axis in range(2):
            step = wide if axis else 1
            middle[:] = planes[i]
            target, near, far = planes[i], padded[margin - step :], padded[margin - 2 * step :]
            for p in range(plane):
                at = np.uintp(p)
                pair = near[at] + near[at + np.uintp(2 * step)]
                target[p] = np.float32(3) * middle[p] + np.float32(2) * pair + far[at] + far[at + np.uintp(4 * step)]
            if axis == 0:
                for p in range(0, plane, wide):
                    target[p + wide - _REACH : p + wide] = 0
        summed[i + _REACH] = planes[i]
    for i in range(n0):
        a, b, c, d, e, target = summed[i], summed[i + 1], summed[i + 2], summed[i + 3], summed[i + 4], planes[i]
        for p in range(plane):
            target[p] = a[p] + np.float32(2) * b[p] + np.float32(3) * c[p] + np.float32(2) * d[p] + e[p]


@no_type_check
@compiled
def _write(values, bits, out):
    """Store costs, which are not negative, as float32 or as the 16 bits of float16, rounded to the nearest."""
    if out.itemsize == 2:
        scaled = bits.view(np.float32)
        for n in range(len(values)):
            scaled[n] = min(values[n], _LARGEST_HALF) / HALF_SCALE if values[n] < np.float32(np.inf) else _INFINITE_HALF
        for n in range(len(values)):
            out[n] = (bits[n] + np.int32(0x1000)) >> np.int32(13)
    else:
        for n in range(len(values)):
            out[n] = values[n]


@no_type_check
@compiled
def _fill(first, last, costs):
    """Replace infinite costs by the mean of the cell's finite ones, or by 0 where there is none."""
    total, count = np.empty(_BLOCK, np.float64), np.empty(_BLOCK, np.float64)
    bits = np.empty(_BLOCK, np.int32)
    values, mean = bits.view(np.float32), np.empty(_BLOCK, np.float32)
    fill = np.empty(_BLOCK, costs.dtype)
    for start in range(first, last, _BLOCK):
        size = min(_BLOCK, last - start)
        total[:], count[:] = 0, 0
        for label in range(len(costs)):
            row = costs[label, start : start + size]
            if row.itemsize == 2:
                for n in range(size):
                    bits[n] = np.int32(row[n]) << np.int32(13)
                for n in range(size):
                    values[n] *= HALF_SCALE
            else:
                for n in range(size):
                    values[n] = np.float32(row[n])
            limit = _LARGEST_HALF if row.itemsize == 2 else _LARGEST
            for n in range(size):
                finite = values[n] <= limit
                total[n] += values[n] if finite else np.float32(0)
                count[n] += 1.0 if finite else 0.0
        if count[:size].min() == len(costs):
            continue
        for n in range(size):
            mean[n] = np.float32(total[n] / max(count[n], 1.0))
        _write(mean[:size], bits, fill[:size])
        for label in range(len(costs)):
            row = costs[label, start : start + size]
            for n in range(size):
                missing = row[n] == _INFINITE_BITS if row.itemsize == 2 else np.float32(row[n]) > _LARGEST
                row[n] = fill[n] if missing else row[n]
