"""MIND-SSC as a feature extractor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_count
from convexadam._typing import Channels, Pooled, Triple, Volume
from convexadam.features.intensity import rescale_channels
from convexadam.features.working_memory import pooled_memory_bytes
from convexadam.geometry import Image
from convexadam.kernels import backend_for
from convexadam.kernels.mind_ssc import PAIRS, mind_ssc, pooled_mind_ssc

_WORKING_VALUES = 4.5
"""Float32 values per voxel: weights of both images, and one of these scaled and padded."""

_MOST_RADIUS, _MOST_DILATION = 20, 100
"""Voxels. The compiled kernels are made for each radius, which takes minutes beyond this."""


@final
@dataclass(frozen=True, kw_only=True)
class MindSSC:
    """Self-similarity context descriptors, comparable between contrasts: 12 channels for each image channel.

    Attributes
    ----------
    radius
        Patch radius in voxels of the working grid; 0 compares single voxels.
    dilation
        Distance of the neighbours in voxels of the working grid.

    Raises
    ------
    ConfigError
        If ``radius`` is not a whole number from 0 to 20, or ``dilation`` none from 1 to 100.

    Notes
    -----
    Heinrich et al., MICCAI 2013; see `convexadam.kernels.mind_ssc.mind_ssc`.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image, MindSSC
    >>> image = Image(torch.rand(1, 16, 14, 12, generator=torch.Generator().manual_seed(0)), Grid((16, 14, 12)))
    >>> maps = MindSSC(radius=1, dilation=2)(image)
    >>> tuple(maps.shape)
    (12, 16, 14, 12)
    >>> brighter = Image(3 * image.data + 5, image.grid)  # another contrast: gain and offset
    >>> torch.allclose(MindSSC()(brighter), maps, atol=1e-3)
    True
    """

    radius: int = 1
    dilation: int = 2
    channels_last: ClassVar[bool] = True
    joins_maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_count(self.radius, "radius", most=_MOST_RADIUS)
        check_count(self.dilation, "dilation", least=1, most=_MOST_DILATION)

    @property
    def receptive_radius(self) -> int:
        """Distance in voxels from the edge within which replicated edge values enter a descriptor."""
        return self.radius + self.dilation

    @check_arguments
    def count_channels(self, image_channels: int) -> int | None:
        """Return 12 for each image channel."""
        return len(PAIRS) * image_channels

    @check_arguments
    def memory_bytes_per_voxel(self, channels: int) -> float:
        """Return the working memory of extraction in bytes per voxel; see `EstimatesMemory`."""
        return pooled_memory_bytes(_WORKING_VALUES)

    @check_arguments
    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Return ``[12 c, i, j, k]`` in (0, 1]; a channel without contrast gives ones."""
        maps = [
            mind_ssc(
                channel, radius=self.radius, dilation=self.dilation, weight=_drop_zero_weight(weight, image.data.dtype)
            )
            for channel in rescale_channels(image.data)
        ]
        return maps[0] if len(maps) == 1 else torch.cat(maps)

    @check_arguments
    def extract_pooled(
        self, image: Image, spacings: tuple[Triple, ...], /, *, weight: Volume | None = None
    ) -> tuple[Pooled, ...]:
        """Return ``[12 c, i // si, j // sj, k // sk]`` for each spacing, without a full-resolution map."""
        weight = _drop_zero_weight(weight, image.data.dtype)
        maps = [
            pooled_mind_ssc(channel, spacings, radius=self.radius, dilation=self.dilation, weight=weight)
            for channel in rescale_channels(image.data)
        ]
        return maps[0] if len(maps) == 1 else tuple(torch.cat(parts) for parts in zip(*maps, strict=True))


def _drop_zero_weight(weight: Volume | None, dtype: torch.dtype) -> Volume | None:
    """Return ``None``, or on a GPU ones, for weights that are 0 everywhere, which define no average."""
    if weight is None or not weight.is_cuda:
        return None if weight is None or not bool((weight > 0).any()) else weight
    if dtype != torch.float64 and backend_for(weight) == "triton":  # whose kernels take them for ones
        return weight
    return weight.masked_fill(weight.amax() <= 0, 1.0)  # without waiting for the device
