"""The cost volume in torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch.nn import functional

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels.smooth import along_axes

Costs: TypeAlias = Float[Tensor, "di dj dk i j k"]
Ranges: TypeAlias = tuple[slice, slice, slice]

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
    """See the package."""
    distances = feature_distances(fixed, moving, radius)
    costs = mean_over_neighbours(distances, fixed_weight=fixed_weight, moving_weight=moving_weight)
    return fill_without_evidence(costs)


def feature_distances(fixed: Channels, moving: Channels, radius: Triple) -> Costs:
    """``|F(x) - M(x + d)|^2`` for all displacements within ``radius``; infinite where ``x + d`` lies outside."""
    shape = fixed.shape[1:]
    widths = [2 * r + 1 for r in radius]
    distances = torch.full((*widths, *shape), torch.inf, dtype=fixed.dtype, device=fixed.device)
    for a, b, c in itertools.product(*(range(w) for w in widths)):
        ranges = _overlap((a, b, c), widths, shape)
        if ranges is None:
            continue
        (i, j, k), (to_i, to_j, to_k) = ranges
        difference = fixed[:, i, j, k] - moving[:, to_i, to_j, to_k]
        distances[a, b, c, i, j, k] = difference.square_().sum(0)
    return distances


def mean_over_neighbours(
    distances: Costs, *, fixed_weight: Volume | None = None, moving_weight: Volume | None = None
) -> Costs:
    """Average each displacement's costs over neighbouring cells, in place; see `cost_volume`."""
    widths, shape = distances.shape[:3], distances.shape[3:]
    ones = torch.ones_like(distances[0, 0, 0])
    fixed_weight = ones if fixed_weight is None else fixed_weight
    margins = tuple(m for w in reversed(widths) for m in (w // 2, w // 2))
    padded = functional.pad(ones if moving_weight is None else moving_weight, margins)
    band_i, band_j, band_k = (_band(n, like=distances) for n in shape)
    for a, b in itertools.product(range(widths[0]), range(widths[1])):
        rows = padded[a : a + shape[0], b : b + shape[1]].unfold(2, shape[2], 1).movedim(2, 0)
        weights = fixed_weight * rows
        share = along_axes(weights, (band_i, band_j, band_k))
        weighted = torch.where(weights > 0, distances[a, b] * weights, 0.0)
        total = along_axes(weighted, (band_i, band_j, band_k))
        distances[a, b] = torch.where(share > 0, total / share, torch.inf)
    return distances


def _overlap(label: Triple, widths: Sequence[int], shape: Sequence[int]) -> tuple[Ranges, Ranges] | None:
    """Cells whose displaced partner is in the volume, and those partners; ``None`` where there are none."""
    steps = [n - w // 2 for n, w in zip(label, widths, strict=True)]
    if any(abs(s) >= n for s, n in zip(steps, shape, strict=True)):
        return None
    i, j, k = (slice(max(-s, 0), n - max(s, 0)) for s, n in zip(steps, shape, strict=True))
    to_i, to_j, to_k = (slice(max(s, 0), n - max(-s, 0)) for s, n in zip(steps, shape, strict=True))
    return (i, j, k), (to_i, to_j, to_k)


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
