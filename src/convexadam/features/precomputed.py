"""Feature maps that exist already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from convexadam._axes import checked_number
from convexadam._typing import Channels, Volume
from convexadam.geometry import Image


@final
@dataclass(frozen=True, kw_only=True)
class Precomputed:
    """The image's own channels, unchanged: register feature maps ``Image(features, grid)`` instead of images.

    Attributes
    ----------
    weight
        Factor on all channels.

    Raises
    ------
    ConfigError
        If ``weight`` is negative or not finite.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        checked_number(self.weight, "weight")

    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Return ``[c, i, j, k]``, float32."""
        return image.data.float() * self.weight
