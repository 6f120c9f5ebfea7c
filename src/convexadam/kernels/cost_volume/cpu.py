"""The cost volume on the CPU: each displacement is a volume of cells that fits into the cache."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from torch.nn import functional

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels._cpu import compiled, constant, in_slabs

_BLOCK = 256
_REACH = 2
"""Cells that the mean filters look to each side."""


def cost_volume(
    fixed: Channels,
    moving: Channels,
    radius: Triple,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
) -> Float[Tensor, "di dj dk i j k"]:
    """See the package."""
    shape, widths = fixed.shape[1:], [2 * r + 1 for r in radius]
    costs = torch.empty((*widths, *shape), dtype=torch.float32)
    target = costs.numpy().reshape(-1, *shape)
    one = torch.ones_like(fixed[0])
    gap = max(radius[2], _REACH)  # whatever leaves a row at one end meets zeros, not the next row
    rows = [functional.pad(t, (0, gap)).contiguous().numpy() for t in (fixed, moving)]
    weights = [functional.pad(one if w is None else w, (0, gap)).numpy() for w in (fixed_weight, moving_weight)]
    in_slabs(_labels, len(target), *rows, *weights, target, radius, constant(fixed.shape[0]))
    in_slabs(_fill, shape.numel(), target.reshape(len(target), -1), multiple=_BLOCK)
    return costs


@no_type_check
@compiled
def _labels(first, last, fixed, moving, fixed_weight, moving_weight, out, radius, channels):
    """Costs of the displacements ``first ... last - 1``; infinite where no neighbour has evidence.

    A plane of cells is one long row: each row of it ends in zeros, so that shifts along it need no care.
    """
    _, n0, n1, wide = fixed.shape
    n2, plane, volume = out.shape[3], n1 * wide, n0 * n1 * wide
    margin = _REACH * wide
    here, there = fixed.reshape(-1), moving.reshape(-1)
    weight_here, weight_there = fixed_weight.reshape(-1), moving_weight.reshape(-1)
    costs, shares = np.zeros((n0, plane), np.float32), np.zeros((n0, plane), np.float32)
    padded, summed = np.zeros(plane + 2 * margin, np.float32), np.zeros((n0 + 2 * _REACH, plane), np.float32)
    for label in range(first, last):
        d0 = label // ((2 * radius[1] + 1) * (2 * radius[2] + 1)) - radius[0]
        d1 = label // (2 * radius[2] + 1) % (2 * radius[1] + 1) - radius[1]
        d2 = label % (2 * radius[2] + 1) - radius[2]
        shift = d1 * wide + d2
        low, high = max(0, -shift), min(plane, plane - shift)
        for i in range(n0):
            cost, share = costs[i], shares[i]
            cost[:], share[:] = 0, 0
            if i + d0 < 0 or i + d0 >= n0:
                continue
            to = (i + d0) * plane + shift
            for p in range(low, high):
                at, partner = np.uintp(i * plane + p), np.uintp(to + p)
                total = np.float32(0)
                for c in range(len(channels)):
                    apart = here[at + np.uintp(c * volume)] - there[partner + np.uintp(c * volume)]
                    total += apart * apart
                weight = weight_here[at] * weight_there[partner]
                share[p] = weight
                cost[p] = weight * total
        _mean(costs, padded, summed, wide)
        _mean(shares, padded, summed, wide)
        for i in range(n0):
            for j in range(n1):
                cost, share, row = costs[i, j * wide :], shares[i, j * wide :], out[label, i, j]
                for k in range(n2):
                    row[k] = cost[k] / share[k] if share[k] > np.float32(0) else np.float32(np.inf)


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
def _fill(first, last, costs):
    """Replace infinite costs by the mean of the cell's finite ones, or by 0 where there is none."""
    total, count = np.empty(_BLOCK, np.float64), np.empty(_BLOCK, np.float64)
    for start in range(first, last, _BLOCK):
        size = min(_BLOCK, last - start)
        total[:], count[:] = 0, 0
        for label in range(len(costs)):
            row = costs[label, start : start + size]
            for n in range(size):
                finite = row[n] < np.float32(np.inf)
                total[n] += row[n] if finite else np.float32(0)
                count[n] += 1.0 if finite else 0.0
        if count[:size].min() == len(costs):
            continue
        for n in range(size):
            total[n] /= max(count[n], 1.0)
        for label in range(len(costs)):
            row = costs[label, start : start + size]
            for n in range(size):
                row[n] = row[n] if row[n] < np.float32(np.inf) else np.float32(total[n])
