"""The cost volume in torch."""

from __future__ import annotations

import itertools

import torch
from torch.nn import functional

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels.smooth import along_axes

Costs = Float[Tensor, "di dj dk i j k"]

_TWO_MEANS = (1.0, 2.0, 3.0, 2.0, 1.0)
"""Two mean filters of width 3 in a row, not normalised."""


def cost_volume(
    fixed: Channels,
    moving: Channels,
    radius: Triple,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
) -> Costs:
    """Cost of each displacement ``d`` of each cell: squared feature difference, averaged over neighbours.

    ``C(x, d) = sum_y k(y - x) w(y, d) |F(y) - M(y + d)|^2 / sum_y k(y - x) w(y, d)`` with
    ``w(y, d) = fixed_weight(y) moving_weight(y + d)``, 0 outside the moving volume, and ``k`` the kernel of
    two 3x3x3 mean filters.

    Parameters
    ----------
    fixed, moving
        Pooled features ``[c, i, j, k]`` of one shape.
    radius
        Largest displacement along each axis, in cells.
    fixed_weight, moving_weight
        Evidence of each cell, ``[i, j, k]``, not negative; 1 where ``None``.

    Returns
    -------
    ``[2 ri + 1, 2 rj + 1, 2 rk + 1, i, j, k]``; infinite where no neighbour has evidence.
    """
    shape = fixed.shape[1:]
    ones = torch.ones_like(fixed[0])
    fixed_weight = ones if fixed_weight is None else fixed_weight
    margins = tuple(m for r in reversed(radius) for m in (r, r))
    padded = functional.pad(moving, margins)
    padded_weight = functional.pad(ones if moving_weight is None else moving_weight, margins)
    band = [_band(n, like=fixed) for n in shape]
    widths = [2 * r + 1 for r in radius]
    costs = fixed.new_empty((*widths, *shape))
    row, weights = fixed.new_empty((widths[2], *shape)), fixed.new_empty((widths[2], *shape))
    for a, b in itertools.product(range(widths[0]), range(widths[1])):
        for c in range(widths[2]):
            i, j, k = (slice(s, s + n) for s, n in zip((a, b, c), shape, strict=True))
            torch.mul(fixed_weight, padded_weight[i, j, k], out=weights[c])
            torch.sum((fixed - padded[:, i, j, k]).square_(), 0, out=row[c])
        share = along_axes(weights, (band[0], band[1], band[2]))
        total = along_axes(row.mul_(weights), (band[0], band[1], band[2]))
        costs[a, b] = torch.where(share > 0, total / share, torch.inf)
    return costs


def reverse_cost(costs: Costs) -> Costs:
    """Costs of the reverse direction from the same numbers: ``C_rev(x, d) = C(x + d, -d)``.

    Infinite where ``x + d`` lies outside. Exact up to the border of the mean filters.
    """
    widths, shape = costs.shape[:3], costs.shape[3:]
    reverse = torch.full_like(costs, torch.inf)
    for a, b, c in itertools.product(*(range(w) for w in widths)):
        steps = [n - w // 2 for n, w in zip((a, b, c), widths, strict=True)]
        if any(abs(s) >= n for s, n in zip(steps, shape, strict=True)):
            continue
        i, j, k = (slice(max(-s, 0), n - max(s, 0)) for s, n in zip(steps, shape, strict=True))
        from_i, from_j, from_k = (slice(max(s, 0), n - max(-s, 0)) for s, n in zip(steps, shape, strict=True))
        opposite = costs[widths[0] - 1 - a, widths[1] - 1 - b, widths[2] - 1 - c]
        reverse[a, b, c, i, j, k] = opposite[from_i, from_j, from_k]
    return reverse


def fill_without_evidence(costs: Costs) -> Costs:
    """Replace, in place, infinite costs by the mean of the cell's finite ones: neither for nor against.

    A cell without any finite cost gets 0 throughout, so that only its neighbours decide.
    """
    total, count = torch.zeros_like(costs[0, 0, 0]), torch.zeros_like(costs[0, 0, 0])
    for part in costs:
        finite = part.isfinite()
        count += finite.sum((0, 1))
        total += torch.where(finite, part, 0.0).sum((0, 1))
    mean = total / count.clamp_min(1)
    for part in costs:
        part.copy_(torch.where(part.isfinite(), part, mean))
    return costs


def _band(size: int, *, like: Tensor) -> Tensor:
    matrix = like.new_zeros((size, size))
    for offset, tap in zip(range(-2, 3), _TWO_MEANS, strict=True):
        if abs(offset) < size:
            matrix.diagonal(offset)[:] = tap
    return matrix
