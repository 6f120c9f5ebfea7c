"""Quantiles in torch, without an array whose size the host would have to know."""

from __future__ import annotations

import math

import torch

from convexadam._typing import Float, Shaped, Tensor, Volume

ROBUST_SHARES = (0.005, 0.995)
"""Of the quantiles between which samples are but for noise."""


def map_quantiles(
    channel: Volume,
    weight: Volume | None,
    *,
    shares: tuple[float, float],
    scale: float,
    step: int,
    padding_share: float,
) -> Volume:
    """See the package."""
    values = channel.flatten()[::step]
    if weight is not None:
        inside = weight.flatten()[::step] > 0
        values = torch.where(inside | ~inside.any(), values, math.inf)
    low, high = _find_range(values.sort().values, shares, padding_share)
    span = high - low
    scaled = ((channel - low) / torch.where(span > 0, span, torch.ones_like(span))).clamp(0, 1)
    return torch.where(span > 0, scaled, torch.zeros_like(scaled)) * scale


def _find_range(
    ordered: Float[Tensor, " n"], shares: tuple[float, float], padding_share: float
) -> list[Float[Tensor, ""]]:
    """Return the quantiles of the finite values, of which there is at least one; without padding."""
    count = ordered.isfinite().sum()
    above = count - torch.searchsorted(ordered, ordered[:1], right=True)[0]
    first = count - above
    low, high = (_quantile(ordered, first, above, share) for share in ROBUST_SHARES)
    is_padding = (above > (1 - padding_share) * count) & (ordered[0] < low - (high - low) / 2)
    first, count = torch.where(is_padding, first, 0), torch.where(is_padding, above, count)
    return [_quantile(ordered, first, count, share) for share in shares]


def _quantile(
    ordered: Float[Tensor, " n"], first: Shaped[Tensor, ""], count: Shaped[Tensor, ""], share: float
) -> Float[Tensor, ""]:
    """Interpolate linearly between ``count`` sorted values from ``first`` on; numbers on the device."""
    rank = (share * (count - 1).double()).clamp_min(0)
    neighbours = first + torch.stack([rank.floor(), rank.ceil()]).long()
    low, high = ordered.gather(0, neighbours.clamp_max(len(ordered) - 1))
    value: Tensor = low.lerp(high, rank.frac().to(ordered.dtype))
    return value
