"""Probabilities of classes, such as a network gives, as features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from convexadam._axes import checked_number
from convexadam._typing import Channels, Float, Pooled, Shaped, Tensor, Triple, Volume
from convexadam.errors import ConfigError, InputError
from convexadam.features.balance import balanced, labels_of
from convexadam.features.protocol import Pair, Scan
from convexadam.kernels.resize import pool

_ROUNDING = 1e-3
"""Probabilities of half precision, interpolated, may miss [0, 1] by this much."""

_CHUNK_VALUES = 2**20


@final
@dataclass(frozen=True, kw_only=True)
class ProbabilityFeatures:
    """One channel for each class: its mean probability within a block.

    The probabilities come beside the images, one channel for each class: ``register(..., fixed_labels=...,
    moving_labels=...)``. `Precomputed` takes feature maps as they are; this one makes probabilities of logits, leaves
    out the background and makes small structures count more.

    Attributes
    ----------
    scale
        Factor on all channels. The regulariser is weighed against squared feature differences, so that a larger
        scale trusts the probabilities more.
    balance
        How much more small structures count: a channel has the factor ``n ** -balance``, with ``n`` the sum of its
        probabilities over the voxels of both images, over the mean of all channels' factors. It is a factor on the
        features, so that squared differences get its square. 0 makes all classes alike.
    background
        Whether channel 0 is compared as well.
    logits
        Whether the channels are logits: probabilities are then their softmax.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    scale: float = 5.0
    balance: float = 0.3
    background: bool = False
    logits: bool = False

    def __post_init__(self) -> None:
        checked_number(self.scale, "scale", above=True)
        checked_number(self.balance, "balance")
        for name in ("background", "logits"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is True or False, but {getattr(self, name)!r} came")

    @property
    def uses_labels(self) -> bool:
        """Yes."""
        return True

    def pooled_pair(self, fixed: Scan, moving: Scan, spacings: tuple[Triple, ...]) -> tuple[Pair, ...]:
        """Return ``[classes, i // si, j // sj, k // sk]`` of both images for each spacing.

        Raises
        ------
        ConfigError
            If a scan comes without labels.
        InputError
            If they are no probabilities of the same classes, or a scan has less than a voxel of all of them.
        """
        maps = [self._channels(scan) for scan in (fixed, moving)]
        if len(maps[0]) != len(maps[1]):
            raise InputError(
                f"both images need probabilities of the same classes, but {len(maps[0])} and {len(maps[1])} came"
            )
        sums = [
            self._voxels(m, s.weight, n) for m, s, n in zip(maps, (fixed, moving), ("fixed", "moving"), strict=True)
        ]
        factors = (self.scale * balanced(sums[0] + sums[1], self.balance)).reshape(-1, 1, 1, 1)
        here, there = (
            [self._pooled(m, spacing, scan.weight).mul_(factors) for spacing in spacings]
            for m, scan in zip(maps, (fixed, moving), strict=True)
        )
        return tuple(zip(here, there, strict=True))

    def _channels(self, scan: Scan) -> Shaped[Tensor, "c i j k"]:
        labels = labels_of(scan, "ProbabilityFeatures")
        if labels.is_label or labels.data.shape[0] < 2:
            raise InputError(
                "ProbabilityFeatures takes several channels of floating-point numbers, one for each class and the "
                f"background first, but {labels.data.shape[0]} of {labels.data.dtype} came; for label maps there is "
                "LabelFeatures"
            )
        return labels.data

    def _slabs(
        self, channels: Shaped[Tensor, "c i j k"], weight: Volume | None, rows: int
    ) -> Iterator[tuple[Channels, Volume | None]]:
        """Probabilities of the classes to compare, and evidence, a multiple of ``rows`` planes at a time."""
        planes = rows * max(1, _CHUNK_VALUES // (rows * channels[:, 0].numel()))
        for first in range(0, channels.shape[1], planes):
            part = channels[:, first : first + planes].float()
            if self.logits:
                part = part.softmax(0)
            yield part if self.background else part[1:], None if weight is None else weight[first : first + planes]

    def _voxels(self, channels: Shaped[Tensor, "c i j k"], weight: Volume | None, name: str) -> Float[Tensor, " n"]:
        """Sum of each class over the voxels that have evidence."""
        sums, ends = [], []
        for part, share in self._slabs(channels, weight, 1):
            ends.append(torch.stack(torch.aminmax(part)))
            sums.append((part if share is None else part * (share > 0)).sum((1, 2, 3)))
        low, high = (float(end) for end in (torch.stack(ends).amin(0)[0], torch.stack(ends).amax(0)[1]))
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise InputError(
                f"probabilities lie in [0, 1], but those of the {name} image reach from {low:g} to {high:g}; "
                "set logits=True for the output of a network before its softmax"
            )
        total = torch.stack(sums).sum(0)
        if not bool((total[1:] if self.background else total).sum() >= 1):
            raise InputError(f"the {name} labels are all background (channel 0), where there is evidence")
        return total

    def _pooled(self, channels: Shaped[Tensor, "c i j k"], spacing: Triple, weight: Volume | None) -> Pooled:
        whole = channels.shape[1] // spacing[0] * spacing[0]
        return torch.cat(
            [
                pool(part, spacing, weight=share)
                for part, share in self._slabs(
                    channels[:, :whole], None if weight is None else weight[:whole], spacing[0]
                )
            ],
            dim=1,
        )
