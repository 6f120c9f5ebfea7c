"""Concatenation of several feature extractors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar, final

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_number, show
from convexadam._typing import Channels, Pooled, Triple, Volume
from convexadam.errors import ConfigError
from convexadam.features.protocol import (
    Extractor,
    FeatureInput,
    Features,
    Pair,
    check_extractor,
    count_channels,
    extract_pair_features,
    memory_bytes_per_voxel,
    receptive_radius,
    run_extractor,
    segmentation_bytes_per_voxel,
    uses_labels,
)
from convexadam.geometry import Image
from convexadam.kernels._device import allocate, release_memory

_MOST_PARTS = 100


@final
@dataclass(frozen=True, kw_only=True)
class Concat:
    """Concatenated channels of several extractors, each scaled by the square root of its weight.

    The weights are therefore those of the *squared* feature differences.

    Attributes
    ----------
    parts
        Feature extractors, at least one.
    weights
        One weight for each part; ``None`` for 1.

    Raises
    ------
    ConfigError
        If ``parts`` is empty or contains a class instead of an extractor, or ``weights`` has another length.

    Examples
    --------
    >>> from convexadam import Concat, Intensity, MindSSC
    >>> features = Concat(parts=(MindSSC(), Intensity()), weights=(1.0, 0.5))
    >>> features.count_channels(1)
    13
    """

    parts: tuple[Extractor, ...]
    weights: tuple[float, ...] | None = None
    channels_last: ClassVar[bool] = False
    joins_maps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.parts, tuple) or not self.parts:
            raise ConfigError(
                f"parts must be a tuple of at least one feature extractor, got {show(self.parts)}; write for "
                "example parts=(MindSSC(), Intensity())"
            )
        for part in self.parts:
            check_extractor(part, "each of parts")
        if self.size > _MOST_PARTS or self.depth > _MOST_PARTS:
            raise ConfigError(
                f"parts must hold at most {_MOST_PARTS} extractors, nested at most as deep, got {self.size} in "
                f"{self.depth} levels; write each of them once, in one Concat"
            )
        if self.weights is None:
            return
        if not isinstance(self.weights, tuple) or len(self.weights) != len(self.parts):
            raise ConfigError(
                f"weights must be a tuple of {len(self.parts)} numbers, one weight for each part, got "
                f"{show(self.weights)}; omit it to weight all parts by 1"
            )
        for weight in self.weights:
            check_number(weight, "each of weights")

    @cached_property
    def size(self) -> int:
        """Number of extractors, those of parts that are a `Concat` counted one by one."""
        return sum(part.size if isinstance(part, Concat) else 1 for part in self.parts)

    @cached_property
    def depth(self) -> int:
        """Number of `Concat` within each other."""
        return 1 + max(part.depth if isinstance(part, Concat) else 0 for part in self.parts)

    # kept, because whoever asks whether this fits a protocol reads them as well, at each level of nesting
    @cached_property
    def receptive_radius(self) -> int:
        """Largest receptive radius of the parts, in voxels."""
        return max(receptive_radius(part) for part in self.parts)

    @cached_property
    def uses_labels(self) -> bool:
        """Whether any of the parts needs segmentations."""
        return any(uses_labels(part) for part in self.parts)

    @check_arguments
    def count_channels(self, image_channels: int) -> int | None:
        """Return the sum over the parts; ``None`` if it is unknown for one of them."""
        counts = [count_channels(part, image_channels) for part in self.parts]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    @check_arguments
    def memory_bytes_per_voxel(self, channels: int) -> float:
        """Return the largest value of the parts, which run one after the other; see `EstimatesMemory`.

        A part whose number of channels is known has that of an image of one channel, any other one has ``channels``.
        """
        counts = [count_channels(part, 1) for part in self.parts]
        return max(
            memory_bytes_per_voxel(part, channels if count is None else count)
            for part, count in zip(self.parts, counts, strict=True)
        )

    @check_arguments
    def segmentation_bytes_per_voxel(self, channels: int) -> float:
        """Return the largest value of the parts, which share segmentations; see `HoldsSegmentations`."""
        return max(segmentation_bytes_per_voxel(part, channels) for part in self.parts)

    @check_arguments
    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Return the channels of all parts, ``[sum f, i, j, k]``.

        Raises
        ------
        ConfigError
            If one of the parts extracts features from pairs of images only.
        """
        maps = []
        for part, factor in zip(self.parts, self._factors, strict=True):
            if not isinstance(part, Features):
                raise ConfigError(
                    f"parts must extract features from a single image here, got {show(part)}, which needs both images; "
                    "call extract_pair"
                )
            maps.append(run_extractor(part, partial(part, image, weight=weight)) * factor)
        return torch.cat(maps)

    @check_arguments
    def extract_pair(self, fixed: FeatureInput, moving: FeatureInput, spacings: tuple[Triple, ...]) -> tuple[Pair, ...]:
        """Return the channels of all parts of both images for each spacing."""
        parts = [list(extract_pair_features(part, fixed, moving, spacings)) for part in self.parts]
        return tuple(self._join([part.pop(0) for part in parts]) for _ in spacings)

    def _join(self, pairs: list[Pair]) -> Pair:
        """Concatenate the maps of all parts, whose list is emptied: those of one image are released before the next."""
        fixed, moving = [f for f, _ in pairs], [m for _, m in pairs]
        pairs.clear()
        release_memory()  # of the extraction
        return self._concatenate(fixed), self._concatenate(moving)

    def _concatenate(self, maps: list[Pooled]) -> Pooled:
        joined = allocate(sum(map(len, maps)), *maps[0].shape[1:], like=maps[0])
        rest = joined
        for m, factor in zip(maps, self._factors, strict=True):
            _copy_channels(m, rest[: len(m)])
            if factor != 1:
                rest[: len(m)] *= factor
            rest = rest[len(m) :]
        maps.clear()
        return joined

    @property
    def _factors(self) -> list[float]:
        return [math.sqrt(w) for w in self.weights or (1.0,) * len(self.parts)]


def _copy_channels(source: Pooled, target: Pooled) -> None:
    """Copy a map to one with channels first; a matrix is transposed twice as fast as a view of four axes is copied."""
    if source.movedim(0, -1).is_contiguous() and not source.is_cuda:
        target.view(len(target), -1).copy_(source.movedim(0, -1).reshape(-1, len(source)).t())
    else:
        target.copy_(source)
