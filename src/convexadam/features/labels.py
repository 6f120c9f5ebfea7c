"""Label maps as features."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import final

import torch

from convexadam._axes import checked_number
from convexadam._typing import Float, Shaped, Tensor, Triple, Volume
from convexadam.errors import ConfigError, InputError
from convexadam.features.balance import balanced, labels_of
from convexadam.features.protocol import Pair, Scan

_MOST = 255
"""More labels than anybody draws: rather an image came."""

_CHUNK_VOXELS = 2**20


@final
@dataclass(frozen=True, kw_only=True)
class LabelFeatures:
    """One channel for each label that either image has: the share of a block's voxels that have it.

    The labels come beside the images: ``register(..., fixed_labels=..., moving_labels=...)``. The same number means the
    same in both. Squared differences then ask that equal labels come to lie on each other.

    Attributes
    ----------
    scale
        Factor on all channels. The regulariser is weighed against squared feature differences, so that a larger
        scale trusts the labels more.
    balance
        How much more small structures count: a channel has the factor ``n ** -balance``, with ``n`` its voxels in both
        images, over the mean of all channels' factors. It is a factor on the features, so that squared differences get
        its square. 0 makes all labels alike.
    background
        Whether label 0 is a channel as well.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Notes
    -----
    Siebert, Hansen and Heinrich, Learn2Reg 2021, with ``scale=10``, ``balance=0.3`` and the background as a channel.
    """

    scale: float = 5.0
    balance: float = 0.3
    background: bool = False

    def __post_init__(self) -> None:
        checked_number(self.scale, "scale", above=True)
        checked_number(self.balance, "balance")
        if not isinstance(self.background, bool):
            raise ConfigError(f"background is True or False, but {self.background!r} came")

    @property
    def uses_labels(self) -> bool:
        """Yes."""
        return True

    def pooled_pair(self, fixed: Scan, moving: Scan, spacings: tuple[Triple, ...]) -> tuple[Pair, ...]:
        """Return ``[labels, i // si, j // sj, k // sk]`` of both images for each spacing, in ascending order of labels.

        Raises
        ------
        ConfigError
            If a scan comes without labels.
        InputError
            If they are no whole numbers, there are more than 255 of them, or one scan has none but the background where
            it has evidence.
        """
        maps = [_whole_numbers(scan) for scan in (fixed, moving)]
        voxels: Counter[int] = Counter()
        for name, labels, scan in zip(("fixed", "moving"), maps, (fixed, moving), strict=True):
            found = label_voxels(labels, weight=scan.weight)
            if not any(found.keys() - {0}):
                raise InputError(f"the {name} labels are all 0, the background, where there is evidence")
            voxels.update(found)
        if not self.background:
            del voxels[0]
        values = sorted(voxels)
        if len(values) > _MOST:
            raise InputError(
                f"label maps have at most {_MOST} labels, but {len(values)} from {values[0]} to {values[-1]} came; "
                "pass label maps, not images, or merge labels"
            )
        numbers = torch.tensor([voxels[value] for value in values], dtype=torch.float32, device=maps[0].device)
        factors = (self.scale * balanced(numbers, self.balance)).reshape(-1, 1, 1, 1)
        here, there = (
            [pooled_one_hot(m, values, spacing, weight=scan.weight).mul_(factors) for spacing in spacings]
            for m, scan in zip(maps, (fixed, moving), strict=True)
        )
        return tuple(zip(here, there, strict=True))


def label_voxels(labels: Shaped[Tensor, "i j k"], *, weight: Volume | None = None) -> dict[int, int]:
    """How many voxels with evidence have each label; in pieces, since counting takes eight bytes a voxel."""
    seen = labels.flatten() if weight is None else labels[weight > 0]
    total: Counter[int] = Counter()
    for part in torch.split(seen, _CHUNK_VOXELS):
        values, counts = torch.unique(part, return_counts=True)
        total.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return dict(total)


def pooled_one_hot(
    labels: Shaped[Tensor, "i j k"], values: list[int], spacing: Triple, *, weight: Volume | None = None
) -> Float[Tensor, "n _ _ _"]:
    """Share of each of ``values`` (ascending) in blocks of ``spacing`` voxels, weighted as `pool` does.

    One voxel of all blocks at a time: a whole map of all labels never exists, and the time hardly depends on how many
    there are. Channels come last in memory, as the compiled kernels read them.
    """
    blocks = [n // s for n, s in zip(labels.shape, spacing, strict=True)]
    channels = torch.tensor(values, dtype=torch.int64, device=labels.device)
    result = torch.zeros((*blocks, len(values)), dtype=torch.float32, device=labels.device)
    total = torch.zeros(blocks, dtype=torch.float32, device=labels.device)
    for first in itertools.product(*(range(s) for s in spacing)):
        every = tuple(slice(f, f + n * s, s) for f, n, s in zip(first, blocks, spacing, strict=True))
        here = labels[every].to(torch.int64).contiguous()
        channel = torch.searchsorted(channels, here).clamp_max_(len(values) - 1)
        share = torch.ones_like(total) if weight is None else weight[every]
        result.scatter_add_(3, channel[..., None], torch.where(channels[channel] == here, share, 0)[..., None])
        total += share
    return result.div_(total.clamp_min_(torch.finfo(total.dtype).tiny)[..., None]).movedim(3, 0)


def _whole_numbers(scan: Scan) -> Shaped[Tensor, "i j k"]:
    labels = labels_of(scan, "LabelFeatures")
    if labels.data.shape[0] != 1 or not labels.is_label:
        raise InputError(
            f"LabelFeatures takes one channel of whole numbers, but {labels.data.shape[0]} of {labels.data.dtype} "
            "came; for probabilities there is ProbabilityFeatures"
        )
    return labels.data[0]
