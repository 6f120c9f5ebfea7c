"""Several kinds of features together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch

from convexadam._axes import checked_number
from convexadam._typing import Channels, Volume
from convexadam.errors import ConfigError
from convexadam.features.protocol import Features, check_no_class, reach_of
from convexadam.geometry import Image


@final
@dataclass(frozen=True, kw_only=True)
class Concat:
    """Channels of several extractors in a row, each scaled so that its *squared* differences get its weight.

    Attributes
    ----------
    parts
        Extractors, at least one.
    weights
        One weight for each part; ``None`` weighs all with 1.

    Raises
    ------
    ConfigError
        If there is no part, a part is a class instead of an extractor, or the weights do not fit the parts.
    """

    parts: tuple[Features, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.parts, tuple) or not self.parts or not all(callable(part) for part in self.parts):
            raise ConfigError(f"parts is a tuple of at least one extractor, but {self.parts!r} came")
        for part in self.parts:
            check_no_class(part, "each of parts")
        if self.weights is None:
            return
        if not isinstance(self.weights, tuple) or len(self.weights) != len(self.parts):
            raise ConfigError(
                f"Concat needs one weight for each of its {len(self.parts)} parts, but {self.weights} came"
            )
        for weight in self.weights:
            checked_number(weight, "each of weights")

    @property
    def reach(self) -> int:
        """The largest of the parts."""
        return max(reach_of(part) for part in self.parts)

    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Return the parts' channels, ``[sum f, i, j, k]``."""
        weights = self.weights or (1.0,) * len(self.parts)
        return torch.cat(
            [part(image, weight=weight) * math.sqrt(w) for part, w in zip(self.parts, weights, strict=True)]
        )
