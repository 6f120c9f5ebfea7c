"""Several kinds of features together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch

from convexadam._axes import checked_number
from convexadam._typing import Channels, Pooled, Triple, Volume
from convexadam.errors import ConfigError
from convexadam.features.protocol import (
    Extractor,
    Features,
    Pair,
    Scan,
    check_no_class,
    is_extractor,
    pooled_pair,
    reach_of,
    uses_labels,
)
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

    parts: tuple[Extractor, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.parts, tuple) or not self.parts or not all(is_extractor(p) for p in self.parts):
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

    @property
    def uses_labels(self) -> bool:
        """Whether any of the parts does."""
        return any(uses_labels(part) for part in self.parts)

    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Return the parts' channels, ``[sum f, i, j, k]``.

        Raises
        ------
        ConfigError
            If a part describes pairs of images only.
        """
        described = []
        for part, factor in zip(self.parts, self._factors, strict=True):
            if not isinstance(part, Features):
                raise ConfigError(f"{part!r} describes two images together, but one came; see pooled_pair")
            described.append(part(image, weight=weight) * factor)
        return torch.cat(described)

    def pooled_pair(self, fixed: Scan, moving: Scan, spacings: tuple[Triple, ...]) -> tuple[Pair, ...]:
        """Return the parts' channels of both images for each spacing, each part pooled by its own way."""
        described = [pooled_pair(part, fixed, moving, spacings) for part in self.parts]
        return tuple(
            (self._together([f for f, _ in pairs]), self._together([m for _, m in pairs]))
            for pairs in zip(*described, strict=True)
        )

    def _together(self, maps: list[Pooled]) -> Pooled:
        return torch.cat([m if factor == 1 else m * factor for m, factor in zip(maps, self._factors, strict=True)])

    @property
    def _factors(self) -> list[float]:
        return [math.sqrt(w) for w in self.weights or (1.0,) * len(self.parts)]
