"""Class probabilities, such as the output of a segmentation network, as features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_flag, check_number
from convexadam._typing import Channels, Float, Pooled, Shaped, Tensor, Triple, Volume
from convexadam.errors import InputError
from convexadam.features.protocol import FeatureInput, Pair
from convexadam.features.segmentation import compute_class_factors, get_segmentation
from convexadam.features.working_memory import pooled_memory_bytes
from convexadam.kernels.resize import pool

_TOLERANCE = 1e-3
"""Probabilities stored in half precision and interpolated may leave [0, 1] by this much."""

_CHUNK_VALUES = 2**20


@final
@dataclass(frozen=True, kw_only=True)
class ProbabilityFeatures:
    """Class probabilities, averaged over blocks: one channel for each class.

    Pass one channel for each class with ``register(..., fixed_segmentation=..., moving_segmentation=...)``.
    `Precomputed` uses feature maps unchanged; this extractor applies a softmax to logits, omits the background and
    gives small structures more weight.

    Attributes
    ----------
    scale
        Factor of all channels. Squared feature differences are weighed against the regulariser: a larger scale gives
        the probabilities more weight.
    class_balance
        Exponent of the class weights. A channel is multiplied by ``n ** -class_balance``, ``n`` being the sum of its
        probabilities over the voxels of both images, over the mean of that over all channels. It is a factor of the
        features; squared differences get its square. 0 weights all classes equally.
    include_background
        Whether channel 0 is used as well.
    logits
        Whether the channels are logits, whose softmax is taken.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Examples
    --------
    >>> from convexadam import RegistrationConfig
    >>> from convexadam.features import ProbabilityFeatures
    >>> RegistrationConfig(features=ProbabilityFeatures(logits=True)).features.logits
    True
    """

    scale: float = 5.0
    class_balance: float = 0.3
    include_background: bool = False
    logits: bool = False
    uses_labels: ClassVar[bool] = True
    channels_last: ClassVar[bool] = False
    joins_maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number(self.scale, "scale", above=True)
        check_number(self.class_balance, "class_balance")
        check_flag(self.include_background, "include_background")
        check_flag(self.logits, "logits")

    @check_arguments
    def count_channels(self, image_channels: int) -> int | None:
        """Return ``None``: the number of classes depends on the segmentations."""
        return None

    @check_arguments
    def memory_bytes_per_voxel(self, channels: int) -> float:
        """Return the working memory of extraction in bytes per voxel; see `EstimatesMemory`."""
        return pooled_memory_bytes()

    @check_arguments
    def segmentation_bytes_per_voxel(self, channels: int) -> float:
        """Return the memory of the float32 probabilities of both images; see `HoldsSegmentations`."""
        return 2 * 4.0 * (channels + 1)

    @check_arguments
    def extract_pair(self, fixed: FeatureInput, moving: FeatureInput, spacings: tuple[Triple, ...]) -> tuple[Pair, ...]:
        """Return ``[classes, i // si, j // sj, k // sk]`` of both images for each spacing.

        Raises
        ------
        ConfigError
            If an input has no segmentation.
        InputError
            If the segmentations are not probabilities of the same classes, or the classes other than the background
            sum to less than one voxel.
        """
        sides = {"fixed": fixed, "moving": moving}
        maps = {name: self._get_channels(side, name) for name, side in sides.items()}
        if len(maps["fixed"]) != len(maps["moving"]):
            raise InputError(
                "fixed_segmentation and moving_segmentation must have the same classes, got "
                f"{len(maps['fixed'])} and {len(maps['moving'])} channels; pass the same channels for both"
            )
        sums = {name: self._sum_classes(m, sides[name].weight, name) for name, m in maps.items()}
        total = sums["fixed"] + sums["moving"]
        factors = (self.scale * compute_class_factors(total, self.class_balance)).reshape(-1, 1, 1, 1)
        fixed_maps, moving_maps = (
            [self._pool(m, spacing, sides[name].weight).mul_(factors) for spacing in spacings]
            for name, m in maps.items()
        )
        return tuple(zip(fixed_maps, moving_maps, strict=True))

    def _get_channels(self, side: FeatureInput, name: str) -> Shaped[Tensor, "c i j k"]:
        labels = get_segmentation(side, "ProbabilityFeatures")
        if labels.is_label or labels.data.shape[0] < 2:
            raise InputError(
                f"{name}_segmentation must be at least two channels of a floating-point type, the background first, "
                f"got {labels.data.shape[0]} of {labels.data.dtype}; use LabelFeatures for label maps"
            )
        return labels.data

    def _iterate_slabs(
        self, channels: Shaped[Tensor, "c i j k"], weight: Volume | None, rows: int
    ) -> Iterator[tuple[Channels, Volume | None]]:
        """Yield probabilities of the classes in use and weights, a multiple of ``rows`` planes at a time."""
        planes = rows * max(1, _CHUNK_VALUES // (rows * channels[:, 0].numel()))
        for first in range(0, channels.shape[1], planes):
            part = channels[:, first : first + planes].float()
            if self.logits:
                part = part.softmax(0)
            yield (
                part if self.include_background else part[1:],
                None if weight is None else weight[first : first + planes],
            )

    def _sum_classes(
        self, channels: Shaped[Tensor, "c i j k"], weight: Volume | None, name: str
    ) -> Float[Tensor, " n"]:
        """Sum each class over the voxels of positive weight."""
        sums, ends = [], []
        for part, share in self._iterate_slabs(channels, weight, 1):
            ends.append(torch.stack(torch.aminmax(part)))
            sums.append((part if share is None else part * (share > 0)).sum((1, 2, 3)))
        low, high = (float(end) for end in (torch.stack(ends).amin(0)[0], torch.stack(ends).amax(0)[1]))
        if low < -_TOLERANCE or high > 1 + _TOLERANCE:
            raise InputError(
                f"{name}_segmentation must contain probabilities in [0, 1], got values from {low:g} to {high:g}; set "
                "logits=True if they are logits"
            )
        total = torch.stack(sums).sum(0)
        if not bool((total[1:] if self.include_background else total).sum() >= 1):
            raise InputError(
                f"{name}_segmentation must contain a class other than the background (channel 0) inside the mask and "
                "the field of view, got none; check the probabilities, or omit the mask"
            )
        return total

    def _pool(self, channels: Shaped[Tensor, "c i j k"], spacing: Triple, weight: Volume | None) -> Pooled:
        end = channels.shape[1] // spacing[0] * spacing[0]
        slabs = self._iterate_slabs(channels[:, :end], None if weight is None else weight[:end], spacing[0])
        return torch.cat([pool(part, spacing, weight=share) for part, share in slabs], dim=1)
