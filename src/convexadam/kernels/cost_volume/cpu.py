"""The cost volume on the CPU: displacements that differ along k alone share what the cache holds.

They are one group. It passes through the volume plane by plane, and for each of its displacements keeps the last five
planes of filtered costs: as many as the mean filters need along i.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from torch.nn import functional

from convexadam._typing import Channels, Float, Tensor, Volume
from convexadam.kernels._cpu import compiled, empty, in_slabs, views, weights_or_ones
from convexadam.kernels._half import infinite, read, write
from convexadam.kernels.window import Window

_BLOCK = 256
"""Cells in a row whose features stay near while the displacements of a group pass by."""

_CELLS = 1024
_SUMMED = 32
"""Cells that are filled at a time; costs added up before their sum joins the others, so that none loses digits."""

_TOGETHER = 4
"""Channels that are read in one go."""

_REACH = 2
"""Cells that the mean filters look to each side."""

_PLANES = 2 * _REACH + 1


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
    gap = max(window.radius[2], _REACH)  # whatever leaves a row at one end meets zeros, not the next row
    more = -len(fixed) % _TOGETHER
    weights = weights_or_ones(fixed_weight, moving_weight, like=fixed[0])
    rows = views(*(functional.pad(features, (0, gap, 0, 0, 0, 0, 0, more)) for features in (fixed, moving)))
    shares = views(*(functional.pad(weight, (0, gap)) for weight in weights))
    groups = np.flatnonzero(np.any(np.diff(window.table[:, :2], axis=0, prepend=np.inf, append=np.inf), axis=1))
    in_slabs(_groups, len(groups) - 1, *rows, *shares, target, window.table, groups)
    in_slabs(_fill, shape.numel(), target.reshape(len(target), -1), multiple=_CELLS)
    return costs.to(dtype)


@no_type_check
@compiled
def _groups(first, last, fixed, moving, fixed_weight, moving_weight, out, steps, groups):
    """Costs of the groups ``first ... last - 1``; infinite where no neighbour has evidence.

    A plane of cells is one long row: each row of it ends in zeros, so that shifts along it need no care.
    """
    channels, n0, n1, wide = fixed.shape
    plane = n1 * wide
    flat = fixed.reshape(-1), moving.reshape(-1), fixed_weight.reshape(-1), moving_weight.reshape(-1)
    most = np.diff(groups).max()
    costs = np.zeros((most, plane + 2 * _REACH), np.float32)  # of one plane, and nothing around it
    shares = np.zeros_like(costs)
    rows = np.zeros(plane + 2 * _REACH * wide, np.float32)
    kept = np.zeros((2, most, _PLANES, plane), np.float32)
    for group in range(first, last):
        label, members = groups[group], groups[group + 1] - groups[group]
        d0, shift = steps[label, 0], steps[label, 1] * wide + steps[label, 2]
        kept[:] = 0
        for i in range(n0 + _REACH):
            meets = i < n0 and i + d0 >= 0 and i + d0 < n0
            if meets:
                _compare(flat, channels, n0 * plane, i * plane, (i + d0) * plane, shift, members, costs, shares)
            for number in range(members):
                if meets:
                    _mean(costs[number], rows, wide, kept[0, number, i % _PLANES])
                    _mean(shares[number], rows, wide, kept[1, number, i % _PLANES])
                else:
                    kept[:, number, i % _PLANES] = 0
                if i >= _REACH:
                    _store(kept[0, number], kept[1, number], i - _REACH, wide, out[label + number, i - _REACH])


@no_type_check
@compiled
def _compare(flat, channels, volume, here, there, shift, members, costs, shares):
    """Weighted squared differences of two planes at ``members`` shifts in a row, and their weights.

    The planes begin at ``here`` and ``there``, and go on in ``channels`` volumes. They are short enough to stay near
    while all shifts pass by.
    """
    fixed, moving, fixed_weight, moving_weight = flat
    plane, size = costs.shape[1] - 2 * _REACH, costs.shape[1]
    cost, share = costs.reshape(-1), shares.reshape(-1)
    costs[:], shares[:] = 0, 0
    for start in range(0, plane, _BLOCK):
        for number in range(members):
            apart = shift + number
            low, high = max(start, -apart), min(start + _BLOCK, plane, plane - apart)
            to, a, b = np.uintp(number * size + _REACH + low), np.uintp(here + low), np.uintp(there + low + apart)
            for c in range(0, channels, _TOGETHER):
                skipped = np.uintp(c * volume)
                _add_squares(fixed, a + skipped, moving, b + skipped, np.uintp(volume), cost, to, high - low)
            for p in range(high - low):
                at = np.uintp(p)
                share[to + at] = fixed_weight[a + at] * moving_weight[b + at]
            for p in range(high - low):
                cost[to + np.uintp(p)] *= share[to + np.uintp(p)]


@no_type_check
@compiled
def _add_squares(fixed, here, moving, there, volume, out, to, size):
    """Add the squared differences of four channels, which are ``volume`` apart; one at a time would be slower."""
    for p in range(size):
        a, b = here + np.uintp(p), there + np.uintp(p)
        first, second = fixed[a] - moving[b], fixed[a + volume] - moving[b + volume]
        a, b = a + volume + volume, b + volume + volume
        third, fourth = fixed[a] - moving[b], fixed[a + volume] - moving[b + volume]
        out[to + np.uintp(p)] += first * first + second * second + third * third + fourth * fourth


@no_type_check
@compiled
def _mean(values, rows, wide, out):
    """Two sums of three neighbours along k and along j; ``values`` with zeros around them, ``rows`` as scratch."""
    plane, margin = len(out), _REACH * wide
    for p in range(plane):
        at = np.uintp(p)
        pair = values[at + np.uintp(1)] + values[at + np.uintp(3)]
        middle = np.float32(3) * values[at + np.uintp(2)]
        rows[at + np.uintp(margin)] = middle + np.float32(2) * pair + values[at] + values[at + np.uintp(4)]
    for p in range(plane):
        at = np.uintp(p)
        pair = rows[at + np.uintp(wide)] + rows[at + np.uintp(3 * wide)]
        middle = np.float32(3) * rows[at + np.uintp(2 * wide)]
        out[p] = middle + np.float32(2) * pair + rows[at] + rows[at + np.uintp(4 * wide)]


@no_type_check
@compiled
def _store(costs, shares, middle, wide, out):
    """Two sums of three planes around the middle one, from a ring of them; store their ratio."""
    n1, n2 = out.shape
    target, cost, share = out.reshape(-1), costs.reshape(-1), shares.reshape(-1)
    ratio = np.empty(n2, np.float32)
    for j in range(n1):
        start = j * wide
        for k in range(n2):
            ratio[k] = _sum(cost, start + k, middle, n1 * wide)
        for k in range(n2):
            known = _sum(share, start + k, middle, n1 * wide)
            ratio[k] = ratio[k] / known if known > np.float32(0) else np.float32(np.inf)
        for k in range(n2):
            write(target, np.uintp(j * n2 + k), ratio[k])


@no_type_check
@compiled
def _sum(planes, at, middle, size):
    """Two sums of three neighbours at a place of the middle one of five planes, which lie in a ring."""
    outer = planes[_in(middle - 2, at, size)] + planes[_in(middle + 2, at, size)]
    inner = planes[_in(middle - 1, at, size)] + planes[_in(middle + 1, at, size)]
    return outer + np.float32(2) * inner + np.float32(3) * planes[_in(middle, at, size)]


@no_type_check
@compiled
def _in(plane, at, size):
    return np.uintp((plane + _PLANES) % _PLANES * size + at)


@no_type_check
@compiled
def _fill(first, last, costs):
    """Replace infinite costs by the mean of the cell's finite ones, or by 0 where there is none."""
    labels, cells = costs.shape
    every = costs.reshape(-1)
    some, total = np.empty(_CELLS, np.float32), np.empty(_CELLS, np.float32)
    count, fill = np.empty(_CELLS, np.float32), np.empty(_CELLS, costs.dtype)
    for start in range(first, last, _CELLS):
        size = min(_CELLS, last - start)
        total[:], count[:] = 0, 0
        for begin in range(0, labels, _SUMMED):
            some[:] = 0
            for label in range(begin, min(begin + _SUMMED, labels)):
                for n in range(size):
                    at = np.uintp(label * cells + start) + np.uintp(n)
                    value, missing = read(every, at), infinite(every, at)
                    some[n] += np.float32(0) if missing else value
                    count[n] += np.float32(0) if missing else np.float32(1)
            for n in range(size):
                total[n] += some[n]
        if count[:size].min() == labels:
            continue
        for n in range(size):
            write(fill, n, total[n] / max(count[n], np.float32(1)))
        for label in range(labels):
            for n in range(size):
                at = np.uintp(label * cells + start) + np.uintp(n)
                cost, other = every[at], fill[n]
                every[at] = other if infinite(every, at) else cost
