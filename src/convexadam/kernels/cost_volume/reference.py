"""The cost volume in torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels.smooth import along_axes
from convexadam.kernels.window import Window

Costs: TypeAlias = Float[Tensor, "n i j k"]
Ranges: TypeAlias = tuple[slice, slice, slice]

_TWO_MEANS = (1.0, 2.0, 3.0, 2.0, 1.0)
"""Coefficients of two successive mean filters of width 3, not normalised."""


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
) -> Costs:
    """See the package."""
    fixed, moving = (features * scale * (1.0 if unit is None else unit) for features in (fixed, moving))
    distances = feature_distances(fixed, moving, window)
    costs = mean_over_neighbours(distances, window, fixed_weight=fixed_weight, moving_weight=moving_weight)
    return fill_gaps(costs).to(dtype)


def feature_distances(fixed: Channels, moving: Channels, window: Window) -> Costs:
    """Compute ``|F(x) - M(x + d)|^2`` for all displacements of a window; infinite where ``x + d`` is outside."""
    shape = fixed.shape[1:]
    distances = torch.full((len(window.steps), *shape), torch.inf, dtype=fixed.dtype, device=fixed.device)
    for number, step in enumerate(window.steps):
        ranges = _overlap_ranges(step, shape)
        if ranges is None:
            continue
        (i, j, k), (to_i, to_j, to_k) = ranges
        difference = fixed[:, i, j, k] - moving[:, to_i, to_j, to_k]
        distances[number, i, j, k] = difference.square().sum(0)
    return distances


def mean_over_neighbours(
    distances: Costs, window: Window, *, fixed_weight: Volume | None = None, moving_weight: Volume | None = None
) -> Costs:
    """Average the costs of each displacement over neighbouring control points; see `cost_volume`."""
    shape = distances.shape[1:]
    ones = torch.ones_like(distances[0])
    fixed_weight = ones if fixed_weight is None else fixed_weight
    moving_weight = ones if moving_weight is None else moving_weight
    band_i, band_j, band_k = (_band_matrix(n, like=distances) for n in shape)
    costs = torch.empty_like(distances)
    for number, step in enumerate(window.steps):
        weights = torch.zeros_like(ones)
        ranges = _overlap_ranges(step, shape)
        if ranges is not None:
            weights[ranges[0]] = fixed_weight[ranges[0]] * moving_weight[ranges[1]]
        # both sides of a selection have a gradient, which must not be NaN where the other one is selected
        weighted = torch.where(weights > 0, distances[number], 0.0) * weights
        sums = along_axes(torch.stack([weights, weighted]), (band_i, band_j, band_k))
        known = sums[0] > 0
        costs[number] = torch.where(known, sums[1] / torch.where(known, sums[0], 1.0), torch.inf)
    return costs


def fill_gaps(costs: Costs) -> Costs:
    """Replace infinite costs by the mean of the finite ones of a point, or by 0 if there is none."""
    total, count = torch.zeros_like(costs[0]), torch.zeros_like(costs[0])
    for part in costs:
        finite = part.isfinite()
        count += finite
        total = total + torch.where(finite, part, 0.0)
    return torch.where(costs.isfinite(), costs, total / count.clamp_min(1))


def _overlap_ranges(step: Triple, shape: Sequence[int]) -> tuple[Ranges, Ranges] | None:
    """Return the ranges of points that a step keeps in the volume, before and after it; ``None`` if there are none."""
    if any(abs(s) >= n for s, n in zip(step, shape, strict=True)):
        return None
    i, j, k = (slice(max(-s, 0), n - max(s, 0)) for s, n in zip(step, shape, strict=True))
    to_i, to_j, to_k = (slice(max(s, 0), n - max(-s, 0)) for s, n in zip(step, shape, strict=True))
    return (i, j, k), (to_i, to_j, to_k)


def _band_matrix(size: int, *, like: Tensor) -> Tensor:
    matrix = like.new_zeros((size, size))
    for offset, tap in zip(range(-2, 3), _TWO_MEANS, strict=True):
        if abs(offset) < size:
            matrix.diagonal(offset)[:] = tap
    return matrix
