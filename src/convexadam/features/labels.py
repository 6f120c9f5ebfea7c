"""Label maps as features."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_flag, check_number
from convexadam._typing import Shaped, Tensor, Triple, Volume
from convexadam.errors import InputError
from convexadam.features.protocol import FeatureInput, Pair
from convexadam.features.segmentation import compute_class_factors, get_segmentation
from convexadam.features.working_memory import pooled_memory_bytes
from convexadam.kernels._device import send
from convexadam.kernels.label_shares import pool_one_hot

_MAX_LABELS = 255
"""More distinct values indicate an image instead of a label map."""

_CHUNK_VOXELS = 2**20


@final
@dataclass(frozen=True, kw_only=True)
class LabelFeatures:
    """One-hot label maps: one channel for each label of either image, averaged over blocks.

    Pass label maps with ``register(..., fixed_segmentation=..., moving_segmentation=...)``. A label must have the same
    meaning in both images.

    Attributes
    ----------
    scale
        Factor of all channels. Squared feature differences are weighed against the regulariser: a larger scale gives
        the labels more weight.
    class_balance
        Exponent of the class weights. A channel is multiplied by ``n ** -class_balance``, ``n`` being the number of
        its voxels in both images, over the mean of that over all channels, so that small structures count more. It is
        a factor of the features; squared differences get its square. 0 weights all labels equally.
    include_background
        Whether label 0 is a channel as well.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Notes
    -----
    Siebert, Hansen and Heinrich, Learn2Reg 2021, with ``scale=10``, ``class_balance=0.3`` and the background as a
    channel.

    Examples
    --------
    >>> import torch
    >>> from convexadam import RegistrationConfig, register
    >>> from convexadam.features import LabelFeatures
    >>> labels = torch.zeros(16, 16, 16, dtype=torch.int16)
    >>> labels[5:11, 5:11, 5:11] = 1
    >>> config = RegistrationConfig(features=LabelFeatures(), linear=None)
    >>> result = register(labels, labels, config, fixed_segmentation=labels, moving_segmentation=labels)
    >>> bool(result.transform.disp_mm.abs().max() < 0.1)
    True
    """

    scale: float = 5.0
    class_balance: float = 0.3
    include_background: bool = False
    uses_labels: ClassVar[bool] = True
    channels_last: ClassVar[bool] = True
    joins_maps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number(self.scale, "scale", above=True)
        check_number(self.class_balance, "class_balance")
        check_flag(self.include_background, "include_background")

    @check_arguments
    def count_channels(self, image_channels: int) -> int | None:
        """Return ``None``: the number of labels depends on the segmentations."""
        return None

    @check_arguments
    def memory_bytes_per_voxel(self, channels: int) -> float:
        """Return the working memory of extraction in bytes per voxel; see `EstimatesMemory`."""
        return pooled_memory_bytes()

    @check_arguments
    def segmentation_bytes_per_voxel(self, channels: int) -> float:
        """Return the memory of both label maps, of one byte per voxel; see `HoldsSegmentations`."""
        return 2.0

    @check_arguments
    def extract_pair(self, fixed: FeatureInput, moving: FeatureInput, spacings: tuple[Triple, ...]) -> tuple[Pair, ...]:
        """Return ``[labels, i // si, j // sj, k // sk]`` of both images for each spacing, in ascending order of labels.

        Raises
        ------
        ConfigError
            If an input has no segmentation.
        InputError
            If a segmentation is not an integer label map, there are more than 255 labels, or an image has no label
            but the background at voxels of positive weight.
        """
        sides = {"fixed": fixed, "moving": moving}
        maps = {name: _get_label_map(side, name) for name, side in sides.items()}
        voxels: Counter[int] = Counter()
        for name, labels in maps.items():
            counts = count_labels(labels, weight=sides[name].weight)
            if not any(counts.keys() - {0}):
                raise InputError(
                    f"{name}_segmentation must contain a label other than 0 inside the mask and the field of view, got "
                    "none; check the label map, or omit the mask"
                )
            voxels.update(counts)
        if not self.include_background:
            del voxels[0]
        values = sorted(voxels)
        if len(values) > _MAX_LABELS:
            raise InputError(
                f"fixed_segmentation and moving_segmentation must contain at most {_MAX_LABELS} labels, got "
                f"{len(values)} from {values[0]} to {values[-1]}; pass label maps instead of images, or merge labels"
            )
        counted = torch.tensor([voxels[value] for value in values], dtype=torch.float32, device="cpu")
        numbers = send(counted, torch.empty(0, dtype=torch.float32, device=maps["fixed"].device))
        factors = (self.scale * compute_class_factors(numbers, self.class_balance)).reshape(-1, 1, 1, 1)
        fixed_maps, moving_maps = (
            [pool_one_hot(m, values, spacing, weight=sides[name].weight).mul_(factors) for spacing in spacings]
            for name, m in maps.items()
        )
        return tuple(zip(fixed_maps, moving_maps, strict=True))


def count_labels(labels: Shaped[Tensor, "i j k"], *, weight: Volume | None = None) -> dict[int, int]:
    """Count the voxels of positive weight that have each label.

    In chunks, because ``torch.unique`` needs eight bytes per voxel.
    """
    flat = labels.flatten() if weight is None else labels[weight > 0]
    total: Counter[int] = Counter()
    for part in torch.split(flat, _CHUNK_VOXELS):
        values, counts = torch.unique(part, return_counts=True)
        total.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return dict(total)


def _get_label_map(side: FeatureInput, name: str) -> Shaped[Tensor, "i j k"]:
    labels = get_segmentation(side, "LabelFeatures")
    if labels.data.shape[0] != 1 or not labels.is_label:
        raise InputError(
            f"{name}_segmentation must be one channel of an integer type, got {labels.data.shape[0]} of "
            f"{labels.data.dtype}; use ProbabilityFeatures for probabilities"
        )
    return labels.data[0]
