"""The range of two feature maps in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Float, Shaped, Tensor, Volume
from convexadam.kernels.warp_ssd import overlap_weight


def measure_range(
    fixed: Channels, moving: Channels, fixed_weight: Volume | None, moving_weight: Volume | None
) -> Float[Tensor, " 6"]:
    """See the package."""
    maps, weights = (fixed, moving), (fixed_weight, moving_weight)
    ends = [_ends(features, None) for features in maps]
    every = torch.stack([torch.stack(pair) for pair in ends])
    span = (every[:, 1].amax(0) - every[:, 0].amin(0)).double()
    overlap = overlap_weight(fixed.new_zeros((3, *fixed.shape[1:])), *weights).amax()
    largest_weights = [torch.ones_like(overlap) if weight is None else weight.amax() for weight in weights]
    within = [
        pair if weight is None else _ends(features, weight)
        for features, weight, pair in zip(maps, weights, ends, strict=True)
    ]
    contrast = _varies(torch.stack([torch.stack(pair) for pair in within]))
    norm = span.square().sum().sqrt()
    least_weight = torch.stack(largest_weights).amin()
    numbers = [every.abs().amax().double(), norm, contrast, least_weight, overlap, _find_power(norm)]
    return torch.stack(numbers)


def _find_power(norm: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Return the largest power of two whose product with a number is at most 1; 1 for 0 and what is not finite."""
    mantissa, exponent = torch.frexp(norm)  # a power of two has the mantissa 1/2
    power = torch.exp2(((mantissa == 0.5).to(exponent.dtype) - exponent).to(norm.dtype))
    return torch.where((norm > 0) & norm.isfinite(), power, 1.0)


def _ends(features: Channels, weight: Volume | None) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Return the smallest and largest value of each channel, where there is weight."""
    if features.device.type == "cpu":  # a device would be waited for
        rows = features.movedim(0, -1).flatten(0, 2)
        known = rows if weight is None else rows[(weight > 0).flatten()]
        if len(known) > 0:
            low, high = torch.aminmax(known, dim=0)
            return low, high
    low = high = features
    if weight is not None:
        unknown = weight <= 0
        low, high = (features.masked_fill(unknown, value) for value in (torch.inf, -torch.inf))
    return low.amin((1, 2, 3)), high.amax((1, 2, 3))


def _varies(ends: Float[Tensor, "2 2 c"]) -> Shaped[Tensor, ""]:
    """Whether in both maps any channel varies by more than the rounding of an average, given its ends."""
    return ((ends[:, 1] - ends[:, 0]) > 1e-6 * ends.abs().amax(1)).any(1).all()
