"""Intensities as features, for images of one contrast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch

from convexadam._axes import checked_number
from convexadam._typing import Channels, Float, Shaped, Tensor, Volume
from convexadam.errors import ConfigError
from convexadam.geometry import Image
from convexadam.geometry.tensors import finest_float

_CHUNK_VOXELS = 2**17

_SAMPLES = 2**20
"""Quantiles are read from at most this many evenly spaced voxels."""

_PADDED = 0.25
"""Largest share of padding: a round field of view leaves 0.21 of its square; backgrounds of 0 take more than this."""


@final
@dataclass(frozen=True, kw_only=True)
class Intensity:
    """Intensities mapped linearly so that two quantiles become 0 and ``scale``, and clipped there.

    For pairs of one contrast, whose intensities mean the same; across contrasts use `MindSSC`.

    Attributes
    ----------
    low, high
        Quantiles, ``0 <= low < high <= 1``, over the voxels that have evidence and are not padding: a smallest value
        of few, far below all others, as outside the field of view of a CT scanner.
    scale
        Value of the upper quantile. The regulariser is weighed against squared feature differences, so that a larger
        scale trusts the images more.

    Raises
    ------
    ConfigError
        If the quantiles or scale are out of range.
    """

    low: float = 0.005
    high: float = 0.995
    scale: float = 1.0

    def __post_init__(self) -> None:
        checked_number(self.low, "low")
        checked_number(self.high, "high", above=True)
        if not self.low < self.high <= 1:
            raise ConfigError(f"quantiles are 0 <= low < high <= 1, but {self.low} and {self.high} came")
        checked_number(self.scale, "scale", above=True)

    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Return ``[c, i, j, k]`` in [0, scale]; a channel whose two quantiles agree gives zeros."""
        return torch.stack([self._normalised(channel, weight) for channel in centred(image.data)])

    def _normalised(self, channel: Volume, weight: Volume | None) -> Volume:
        values = channel.flatten() if weight is None else channel[weight > 0]
        if values.numel() == 0:
            values = channel.flatten()
        values = values[:: math.ceil(values.numel() / _SAMPLES)]
        both = torch.tensor([self.low, self.high], dtype=values.dtype, device=values.device)
        low, high = torch.quantile(_without_padding(values), both)
        span = high - low
        scaled = ((channel - low) / torch.where(span > 0, span, torch.ones_like(span))).clamp(0, 1)
        return torch.where(span > 0, scaled, torch.zeros_like(scaled)) * self.scale


def _without_padding(values: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
    """Leave out a smallest value that few hold and that lies half a range or more below the others."""
    smallest = values.min()
    others = values[values > smallest]
    if others.numel() <= (1 - _PADDED) * values.numel():
        return values
    low, high = torch.quantile(others, torch.tensor([0.005, 0.995], dtype=others.dtype, device=others.device))
    return others if smallest < low - (high - low) / 2 else values


def centred(data: Shaped[Tensor, "c i j k"]) -> Channels:
    """Float32 copy with each channel's mid-range at 0 and largest magnitude 1, whatever its type and scale.

    Features do not depend on a linear scaling; squares of raw values might overflow.
    """
    finest = finest_float(data.device)
    scaled = torch.empty(data.shape, dtype=torch.float32, device=data.device)
    for channel, target in zip(data, scaled, strict=True):
        low, high = (end.to(finest) for end in torch.aminmax(channel))
        half = (high / 2 - low / 2).clamp_min(torch.finfo(finest).tiny)
        middle = low / 2 + high / 2
        rows = max(1, _CHUNK_VOXELS // channel[0].numel())  # in float64 only as much as fits into a cache
        for part, out in zip(channel.split(rows), target.split(rows), strict=True):
            out.copy_((part.to(finest) - middle).div_(half))
    return scaled
