"""Intensities as features, for images of one contrast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_number, show
from convexadam._typing import Channels, Float, Shaped, Tensor, Volume
from convexadam.errors import ConfigError
from convexadam.features.working_memory import full_memory_bytes
from convexadam.geometry import Image
from convexadam.geometry.tensors import quantiles, working_dtype
from convexadam.kernels.intensity_range import ROBUST_SHARES, map_quantiles
from convexadam.kernels.rescale import rescale

_SAMPLES = 2**20
"""Largest number of evenly spaced voxels from which quantiles are computed."""

_PADDING_SHARE = 0.25
"""Largest share of padding: a round field of view leaves 0.21 of its square; backgrounds of 0 take more than this."""


@final
@dataclass(frozen=True, kw_only=True)
class Intensity:
    """Intensities mapped linearly, two quantiles to 0 and ``scale``, and clipped to that range.

    For images of the same contrast; use `MindSSC` across contrasts.

    Attributes
    ----------
    quantiles
        Lower and upper quantile, ``0 <= low < high <= 1``, over the voxels of positive weight. Padding is excluded: a
        minimum that few voxels have, far below all others, as outside the field of view of a CT scanner.
    scale
        Value of the upper quantile. Squared feature differences are weighed against the regulariser: a larger scale
        gives the images more weight.

    Raises
    ------
    ConfigError
        If the quantiles or scale are out of range.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image, Intensity
    >>> image = Image(torch.linspace(-1000, 1000, 1000).reshape(1, 10, 10, 10), Grid((10, 10, 10)))
    >>> maps = Intensity()(image)
    >>> tuple(maps.shape), maps.min().item(), maps.max().item()
    ((1, 10, 10, 10), 0.0, 1.0)
    """

    quantiles: tuple[float, float] = (0.005, 0.995)
    scale: float = 1.0
    channels_last: ClassVar[bool] = True
    joins_maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.quantiles, tuple) or len(self.quantiles) != 2:
            raise ConfigError(
                f"quantiles must be a tuple of two numbers, got {show(self.quantiles)}; write quantiles=(low, high)"
            )
        for quantile in self.quantiles:
            check_number(quantile, "each of quantiles")
        low, high = self.quantiles
        if not low < high <= 1:
            raise ConfigError(
                f"quantiles must satisfy 0 <= low < high <= 1, got {show(self.quantiles)}; the defaults are "
                "(0.005, 0.995)"
            )
        check_number(self.scale, "scale", above=True)

    @check_arguments
    def count_channels(self, image_channels: int) -> int | None:
        """Return ``image_channels``."""
        return image_channels

    @check_arguments
    def memory_bytes_per_voxel(self, channels: int) -> float:
        """Return the working memory of extraction in bytes per voxel; see `EstimatesMemory`."""
        return full_memory_bytes(channels)

    @check_arguments
    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Return ``[c, i, j, k]`` in [0, scale]; zeros for a channel whose two quantiles are equal."""
        maps = [self._normalise(channel, weight) for channel in rescale_channels(image.data)]
        return maps[0][None] if len(maps) == 1 else torch.stack(maps)

    def _normalise(self, channel: Volume, weight: Volume | None) -> Volume:
        step = math.ceil(channel.numel() / _SAMPLES)
        if channel.is_cuda:
            return map_quantiles(
                channel, weight, shares=self.quantiles, scale=self.scale, step=step, padding_share=_PADDING_SHARE
            )
        low, high = self._find_range(channel, weight, step)
        span = high - low
        scaled = ((channel - low) / torch.where(span > 0, span, torch.ones_like(span))).clamp(0, 1)
        return torch.where(span > 0, scaled, torch.zeros_like(scaled)) * self.scale

    def _find_range(self, channel: Volume, weight: Volume | None, step: int) -> list[Float[Tensor, ""]]:
        values = channel.flatten()[::step]
        inside = values if weight is None else values[weight.flatten()[::step] > 0]
        return quantiles(_remove_padding(inside if inside.numel() else values), self.quantiles)


def _remove_padding(values: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
    """Remove the minimum if few voxels have it and it lies at least half the range of the others below them."""
    smallest = values.min()
    others = values[values > smallest]
    if others.numel() <= (1 - _PADDING_SHARE) * values.numel():
        return values
    low, high = quantiles(others, ROBUST_SHARES)
    return others if smallest < low - (high - low) / 2 else values


def rescale_channels(data: Shaped[Tensor, "c i j k"]) -> Channels:
    """Map each channel linearly to [-1, 1], its minimum to -1 and its maximum to 1; returns float32.

    The features do not depend on a linear scaling of the intensities, but the squares of raw values might overflow.
    Values that require a gradient keep it, and their precision.
    """
    if data.requires_grad and torch.is_grad_enabled():
        return torch.stack([_rescale_differentiably(channel) for channel in data.to(working_dtype(data))])
    return rescale(data)


def _rescale_differentiably(channel: Volume) -> Volume:
    low, high = torch.aminmax(channel)
    return (channel - (low / 2 + high / 2)) / (high / 2 - low / 2).clamp_min(torch.finfo(channel.dtype).tiny)
