"""Local normalisation in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Float, Shaped, Tensor, Volume
from convexadam.kernels.lncc.reference import normalise
from convexadam.kernels.smooth import smooth
from convexadam.kernels.warp_ssd.feature_rows import LARGEST


def normalise_locally(
    features: Channels,
    *,
    radius: int,
    floor: float,
    weight: Volume | None = None,
    out: Shaped[Tensor, "c i j k"] | None = None,
    step: float | None = None,
) -> Shaped[Tensor, "c i j k"]:
    """See the package; one channel at a time."""
    inverse, share = prepare_windows(features, radius, weight)
    result = torch.empty_like(features, memory_format=torch.contiguous_format) if out is None else out
    taps = (1.0,) * (2 * radius + 1)
    for number in range(len(features)):
        values = normalise(features[number : number + 1].contiguous(), weight)
        mean = smooth(values, taps, before=weight, after=inverse)
        variance = smooth(values.square(), taps, before=weight, after=inverse).addcmul_(mean, mean, value=-1)
        normalised = (values - mean).mul_(variance.clamp_min_(0).add_(floor).rsqrt_())
        values = normalised if share is None else normalised.mul_(share)
        result[number] = (values if step is None else values.div_(step).round_().clamp_(-LARGEST, LARGEST))[0]
    return result


def prepare_windows(features: Channels, radius: int, weight: Volume | None) -> tuple[Volume, Volume | None]:
    """Return one over the sum of weights of each window, 0 where that is 0, and the factor of points of little weight.

    The second one is ``None`` without weights.
    """
    taps = (1.0,) * (2 * radius + 1)
    known = torch.ones_like(features[0], memory_format=torch.contiguous_format) if weight is None else weight
    total = smooth(known[None], taps)[0]
    empty = total <= 0
    inverse = total.masked_fill_(empty, 1.0).reciprocal_().masked_fill_(empty, 0.0)
    return inverse, None if weight is None else (inverse * weight).mul_(len(taps) ** 3).clamp_(max=1.0)


def mean_squared_slopes(features: Channels, weight: Volume | None = None) -> Float[Tensor, " c"]:
    """See the package."""
    known = features[0].numel() if weight is None else weight.sum(dtype=torch.float64).clamp_min(1e-12)
    return torch.stack([_sum_squared_slopes(channel, weight) / known for channel in features]).to(features.dtype)


def _sum_squared_slopes(channel: Volume, weight: Volume | None) -> Float[Tensor, ""]:
    total = torch.zeros((), dtype=torch.float64, device=channel.device)
    for axis in range(3):
        squares = channel.diff(dim=axis).square_()
        if weight is not None:
            squares *= _least_of_neighbours(weight, axis)
        total = total + squares.sum(dtype=torch.float64)
    return total


def _least_of_neighbours(weight: Volume, axis: int) -> Float[Tensor, "a b d"]:
    size = weight.shape[axis] - 1
    return torch.minimum(weight.narrow(axis, 0, size), weight.narrow(axis, 1, size))


def scale_channels(features: Channels, factors: Float[Tensor, " c"]) -> None:
    """See the package."""
    features.mul_(factors.reshape(-1, 1, 1, 1))
