"""Dissimilarity in torch."""

from __future__ import annotations

from convexadam._typing import Channels, Float, Tensor, Volume

TINY = 1e-12


def measure_dissimilarity(
    fixed: Channels, moving: Channels, structure: Volume, weight: Volume | None
) -> tuple[Volume, Volume]:
    """See the package."""
    fixed_share = structure / structure.sum().clamp_min(TINY)
    overlap = fixed_share if weight is None else fixed_share * weight
    moving_share = overlap / overlap.sum().clamp_min(TINY)
    fixed_mean, moving_mean = _weighted_mean(fixed, fixed_share), _weighted_mean(moving, moving_share)
    fixed_variance = (fixed_share * (fixed - fixed_mean).square().sum(0)).sum()
    moving_variance = (moving_share * (moving - moving_mean).square().sum(0)).sum()
    unrelated = fixed_variance + moving_variance + (fixed_mean - moving_mean).square().sum()
    return (fixed - moving).square().sum(0) / unrelated.clamp_min(TINY), overlap


def _weighted_mean(features: Channels, share: Volume) -> Float[Tensor, "c 1 1 1"]:
    mean: Tensor = (features * share).sum((1, 2, 3), keepdim=True)
    return mean
