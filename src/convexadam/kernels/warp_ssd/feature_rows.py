"""Feature maps in the 16 bits that `prepare_ssd` reads, made once where nothing else reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

import torch

from convexadam._typing import Channels, Float, Shaped, Tensor

LARGEST = 32767
"""Largest integer of a row."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureRows:
    """A feature map ``[c, i, j, k]`` in 16 bits, with the channels last in memory.

    On a GPU in half precision, divided by a power of two. On the CPU in integers up to `LARGEST`, because not every
    processor converts halves, nor does each compiler know those that do.

    Attributes
    ----------
    rows
        ``[i, j, k, d]``, float16 or int16; channels beyond ``c`` are 0.
    scale
        What the rows are multiplied by, float32, on the device, the same for both maps: a power of two, such that the
        largest value of the rows becomes at most 1, or a factor for each channel, ``[c]``.
    channels
        ``c``.
    largest
        Largest absolute value of both maps, on the device, NaN if any value is; ``None`` if it is not known.
    """

    rows: Shaped[Tensor, "i j k d"]
    scale: Float[Tensor, "*c"]
    channels: int
    largest: Float[Tensor, ""] | None = None

    @property
    def shape(self) -> torch.Size:
        """``(c, i, j, k)``."""
        return torch.Size((self.channels, *self.rows.shape[:3]))

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.rows.device

    def unpack(self) -> Channels:
        """Return the features as float32, ``[c, i, j, k]``."""
        return self.select(0, self.channels)

    def select(self, first: int, count: int) -> Float[Tensor, "n i j k"]:
        """Return some channels as float32, ``[n, i, j, k]``."""
        chosen = slice(first, first + count)
        scale = self.scale.expand(self.channels)[chosen]
        return (self.rows[..., chosen].float() * scale).movedim(-1, 0).contiguous()


FeatureMap: TypeAlias = Channels | FeatureRows
"""Features ``[c, i, j, k]``, as a tensor or in the form that a kernel needs."""


def unpack(features: FeatureMap) -> Channels:
    """Return features as a tensor ``[c, i, j, k]``."""
    return features.unpack() if isinstance(features, FeatureRows) else features


def select_channels(features: FeatureMap, first: int, count: int) -> Float[Tensor, "n i j k"]:
    """Return some channels as a tensor ``[n, i, j, k]``."""
    if isinstance(features, FeatureRows):
        return features.select(first, count)
    return features[first : first + count]


def tensor_of(features: FeatureMap) -> Tensor:
    """Return a tensor that stands for features where a kernel is selected: float32 for `FeatureRows`."""
    return features.scale if isinstance(features, FeatureRows) else features
