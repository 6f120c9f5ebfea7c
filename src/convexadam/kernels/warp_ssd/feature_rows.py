"""Feature maps in the form that `prepare_ssd` needs on a GPU, made once where nothing else reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

import torch

from convexadam._typing import Channels, Float, Shaped, Tensor


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureRows:
    """A feature map ``[c, i, j, k]`` in half precision, divided by a power of two, with the channels last in memory.

    Attributes
    ----------
    rows
        ``[i, j, k, d]``, float16; channels beyond ``c`` are 0.
    scale
        Power of two, float32, on the device, the same for both maps; the largest value becomes at most 1.
    largest
        Largest absolute value of both maps, on the device; NaN if any value is.
    channels
        ``c``.
    """

    rows: Shaped[Tensor, "i j k d"]
    scale: Float[Tensor, ""]
    largest: Float[Tensor, ""]
    channels: int

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
        return (self.rows[..., : self.channels].float() * self.scale).movedim(-1, 0).contiguous()


FeatureMap: TypeAlias = Channels | FeatureRows
"""Features ``[c, i, j, k]``, as a tensor or in the form that a kernel needs."""


def unpack(features: FeatureMap) -> Channels:
    """Return features as a tensor ``[c, i, j, k]``."""
    return features.unpack() if isinstance(features, FeatureRows) else features


def tensor_of(features: FeatureMap) -> Tensor:
    """Return a tensor that stands for features where a kernel is selected: float32 for `FeatureRows`."""
    return features.scale if isinstance(features, FeatureRows) else features
