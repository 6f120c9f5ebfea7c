"""The cost volume on the CPU, in groups of displacements that differ along k only and share cached features.

A group is processed plane by plane; the last five filtered planes of each of its displacements are kept, the number
that the mean filters need along i.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from torch.nn import functional

from convexadam._typing import Channels, Float, Tensor, Volume
from convexadam.kernels._cpu import compile_kernel, empty, fill_weights, run_in_slabs, to_numpy
from convexadam.kernels._half import infinite, read, write
from convexadam.kernels.window import Window

_BLOCK = 256
"""Points whose features remain in the cache during a loop over the displacements of a group."""

_POINTS = 1024
_PARTIAL = 32
"""Points processed at a time by `_fill_gaps`, and costs per partial sum, which reduces the rounding error."""

_UNROLLED = 4
"""Channels per iteration of the inner loop."""

_RADIUS = 2
"""Radius of two mean filters of width 3, in control points."""

_PLANES = 2 * _RADIUS + 1


def cost_volume(
    fixed: Channels,
    moving: Channels,
    window: Window,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
    scale: float = 1.0,
    unit: Float[Tensor, ""] | None = None,
    dtype: torch.dtype,
) -> Float[Tensor, "n i j k"]:
    """See the package."""
    shape = fixed.shape[1:]
    storage = torch.float16 if dtype == torch.float16 else torch.float32
    costs = empty(len(window.steps), *shape, dtype=storage)
    target = (costs.view(torch.uint16) if storage == torch.float16 else costs).numpy()
    padding = max(window.radius[2], _RADIUS)  # zeros between rows, so that no displacement reaches the next one
    extra = -len(fixed) % _UNROLLED
    weights = fill_weights(fixed_weight, moving_weight, like=fixed[0])
    factor = np.float32(scale * (1.0 if unit is None else float(unit)))
    rows = []
    for features in (fixed, moving):
        padded = empty(len(features) + extra, *shape[:2], shape[2] + padding).numpy()
        run_in_slabs(_pad_planes, shape[0], features.detach().permute(1, 2, 3, 0).numpy(), factor, padded)
        rows.append(padded)
    shares = to_numpy(*(functional.pad(weight, (0, padding)) for weight in weights))
    groups = np.flatnonzero(np.any(np.diff(window.table[:, :2], axis=0, prepend=np.inf, append=np.inf), axis=1))
    run_in_slabs(_compute_groups, len(groups) - 1, *rows, *shares, target, window.table, groups)
    run_in_slabs(_fill_gaps, shape.numel(), target.reshape(len(target), -1), multiple=_POINTS)
    return costs.to(dtype)


@no_type_check
@compile_kernel
def _pad_planes(first, last, features, factor, out):
    """Store the planes ``first ... last - 1`` with channels first, times a factor, and zeros beyond."""
    _, n1, n2, channels = features.shape
    for i in range(first, last):
        for c in range(out.shape[0]):
            for j in range(n1):
                row = out[c, i, j]
                row[:] = 0
                if c < channels:
                    source = features[i, j]
                    for k in range(n2):
                        row[k] = factor * source[k, c]


@no_type_check
@compile_kernel
def _compute_groups(first, last, fixed, moving, fixed_weight, moving_weight, out, steps, groups):
    """Compute the costs of the groups ``first ... last - 1``; infinite where the sum of the weights is 0.

    A plane is stored as one row, with zeros after each row of points, so that shifts need no test of the border.
    """
    channels, n0, n1, row_length = fixed.shape
    plane = n1 * row_length
    arrays = fixed.reshape(-1), moving.reshape(-1), fixed_weight.reshape(-1), moving_weight.reshape(-1)
    most = 0  # displacements of a group
    for group in range(len(groups) - 1):
        most = max(most, groups[group + 1] - groups[group])
    costs = np.zeros((most, plane + 2 * _RADIUS), np.float32)  # of one plane, surrounded by zeros
    shares = np.zeros_like(costs)
    rows = np.zeros(plane + 2 * _RADIUS * row_length, np.float32)
    ring = np.zeros((2, most, _PLANES, plane), np.float32)
    for group in range(first, last):
        label, count = groups[group], groups[group + 1] - groups[group]
        d0, shift = steps[label, 0], steps[label, 1] * row_length + steps[label, 2]
        ring[:] = 0
        for i in range(n0 + _RADIUS):
            overlaps = i < n0 and i + d0 >= 0 and i + d0 < n0
            if overlaps:
                _compute_plane(arrays, channels, n0 * plane, i * plane, (i + d0) * plane, shift, count, costs, shares)
            for number in range(count):
                if overlaps:
                    _filter_plane(costs[number], rows, row_length, ring[0, number, i % _PLANES])
                    _filter_plane(shares[number], rows, row_length, ring[1, number, i % _PLANES])
                else:
                    ring[:, number, i % _PLANES] = 0
                if i >= _RADIUS:
                    _write_ratio(
                        ring[0, number], ring[1, number], i - _RADIUS, row_length, out[label + number, i - _RADIUS]
                    )


@no_type_check
@compile_kernel
def _compute_plane(arrays, channels, volume, fixed_start, moving_start, shift, count, costs, shares):
    """Compute weighted squared differences of two planes at ``count`` consecutive shifts, and their weights.

    The planes begin at ``fixed_start`` and ``moving_start`` in each of ``channels`` volumes. They are processed in
    blocks, which remain in the cache during the loop over the shifts.
    """
    fixed, moving, fixed_weight, moving_weight = arrays
    plane, size = costs.shape[1] - 2 * _RADIUS, costs.shape[1]
    cost, share = costs.reshape(-1), shares.reshape(-1)
    costs[:], shares[:] = 0, 0
    for start in range(0, plane, _BLOCK):
        for number in range(count):
            step = shift + number
            low, high = max(start, -step), min(start + _BLOCK, plane, plane - step)
            to, a, b = (
                np.uintp(number * size + _RADIUS + low),
                np.uintp(fixed_start + low),
                np.uintp(moving_start + low + step),
            )
            for c in range(0, channels, _UNROLLED):
                offset = np.uintp(c * volume)
                _add_squares(fixed, a + offset, moving, b + offset, np.uintp(volume), cost, to, high - low)
            for p in range(high - low):
                at = np.uintp(p)
                share[to + at] = fixed_weight[a + at] * moving_weight[b + at]
            for p in range(high - low):
                cost[to + np.uintp(p)] *= share[to + np.uintp(p)]


@no_type_check
@compile_kernel
def _add_squares(fixed, fixed_start, moving, moving_start, volume, out, to, size):
    """Add the squared differences of four channels at distance ``volume``, faster than one channel at a time."""
    for p in range(size):
        a, b = fixed_start + np.uintp(p), moving_start + np.uintp(p)
        first, second = fixed[a] - moving[b], fixed[a + volume] - moving[b + volume]
        a, b = a + volume + volume, b + volume + volume
        third, fourth = fixed[a] - moving[b], fixed[a + volume] - moving[b + volume]
        out[to + np.uintp(p)] += first * first + second * second + third * third + fourth * fourth


@no_type_check
@compile_kernel
def _filter_plane(values, rows, row_length, out):
    """Apply two sums of three neighbours along k and along j; ``values`` are zero-padded, ``rows`` is a buffer."""
    plane, margin = len(out), _RADIUS * row_length
    for p in range(plane):
        at = np.uintp(p)
        pair = values[at + np.uintp(1)] + values[at + np.uintp(3)]
        middle = np.float32(3) * values[at + np.uintp(2)]
        rows[at + np.uintp(margin)] = middle + np.float32(2) * pair + values[at] + values[at + np.uintp(4)]
    for p in range(plane):
        at = np.uintp(p)
        pair = rows[at + np.uintp(row_length)] + rows[at + np.uintp(3 * row_length)]
        middle = np.float32(3) * rows[at + np.uintp(2 * row_length)]
        out[p] = middle + np.float32(2) * pair + rows[at] + rows[at + np.uintp(4 * row_length)]


@no_type_check
@compile_kernel
def _write_ratio(costs, shares, middle, row_length, out):
    """Apply two sums of three planes to costs and weights in a ring buffer, and store their ratio."""
    n1, n2 = out.shape
    target, cost, share = out.reshape(-1), costs.reshape(-1), shares.reshape(-1)
    ratio = np.empty(n2, np.float32)
    for j in range(n1):
        start = j * row_length
        for k in range(n2):
            ratio[k] = _filter_along_i(cost, start + k, middle, n1 * row_length)
        for k in range(n2):
            weight = _filter_along_i(share, start + k, middle, n1 * row_length)
            ratio[k] = ratio[k] / weight if weight > np.float32(0) else np.float32(np.inf)
        for k in range(n2):
            write(target, np.uintp(j * n2 + k), ratio[k])


@no_type_check
@compile_kernel
def _filter_along_i(planes, at, middle, size):
    """Apply two sums of three neighbours along i at one point of the middle of five planes in a ring buffer."""
    outer = planes[_ring_offset(middle - 2, at, size)] + planes[_ring_offset(middle + 2, at, size)]
    inner = planes[_ring_offset(middle - 1, at, size)] + planes[_ring_offset(middle + 1, at, size)]
    return outer + np.float32(2) * inner + np.float32(3) * planes[_ring_offset(middle, at, size)]


@no_type_check
@compile_kernel
def _ring_offset(plane, at, size):
    return np.uintp((plane + _PLANES) % _PLANES * size + at)


@no_type_check
@compile_kernel
def _fill_gaps(first, last, costs):
    """Replace infinite costs by the mean of the finite ones of the control point, or by 0 if there is none."""
    labels, points = costs.shape
    flat_costs = costs.reshape(-1)
    partial, total = np.empty(_POINTS, np.float32), np.empty(_POINTS, np.float32)
    count, fill = np.empty(_POINTS, np.float32), np.empty(_POINTS, costs.dtype)
    for start in range(first, last, _POINTS):
        size = min(_POINTS, last - start)
        total[:], count[:] = 0, 0
        for begin in range(0, labels, _PARTIAL):
            partial[:] = 0
            for label in range(begin, min(begin + _PARTIAL, labels)):
                for n in range(size):
                    at = np.uintp(label * points + start) + np.uintp(n)
                    value, gap = read(flat_costs, at), infinite(flat_costs, at)
                    partial[n] += np.float32(0) if gap else value
                    count[n] += np.float32(0) if gap else np.float32(1)
            for n in range(size):
                total[n] += partial[n]
        least = count[0]
        for n in range(size):
            least = min(least, count[n])
        if least == labels:
            continue
        for n in range(size):
            write(fill, n, total[n] / max(count[n], np.float32(1)))
        for label in range(labels):
            for n in range(size):
                at = np.uintp(label * points + start) + np.uintp(n)
                cost, mean = flat_costs[at], fill[n]
                flat_costs[at] = mean if infinite(flat_costs, at) else cost
