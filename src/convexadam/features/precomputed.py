"""Precomputed feature maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from convexadam._arguments import check_arguments
from convexadam._checks import check_number
from convexadam._typing import Channels, Volume
from convexadam.features.working_memory import full_memory_bytes
from convexadam.geometry import Image


@final
@dataclass(frozen=True, kw_only=True)
class Precomputed:
    """The channels of the image itself: register feature maps ``Image(features, grid)`` instead of images.

    Attributes
    ----------
    weight
        Factor of all channels.

    Raises
    ------
    ConfigError
        If ``weight`` is negative or not finite.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image, Precomputed, RegistrationConfig, register
    >>> maps = torch.rand(4, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> image = Image(maps, Grid((16, 16, 16)))
    >>> result = register(image, image, RegistrationConfig(features=Precomputed(), linear=None))
    >>> bool(result.transform.disp_mm.abs().max() < 0.1)
    True
    """

    weight: float = 1.0
    channels_last: ClassVar[bool] = False
    joins_maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number(self.weight, "weight")

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
        """Return ``[c, i, j, k]``, float32."""
        return image.data.float() * self.weight
