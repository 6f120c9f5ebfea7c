"""Means over blocks by the pooling of torch."""

from __future__ import annotations

import torch
from torch.nn import functional

from convexadam._typing import Channels, Float, Tensor, Triple, Volume

WHOLE = 0.999
"""Share of voxels with weight from which on a block is complete."""


def block_mean(volume: Channels, spacing: Triple, weight: Volume | None = None) -> Float[Tensor, "c a b d"]:
    """See the package."""
    if weight is None:
        return functional.avg_pool3d(volume[None], spacing, spacing)[0]
    total = functional.avg_pool3d((volume * weight)[None], spacing, spacing)[0]
    share = functional.avg_pool3d(weight[None, None], spacing, spacing)[0]
    return total.div_(share.clamp_min(torch.finfo(share.dtype).tiny)).masked_fill_(share <= 0, 0.0)


def complete_weight(weight: Volume, spacing: Triple) -> Float[Tensor, "a b d"]:
    """See the package."""
    return select_complete(*(block_mean(w[None], spacing)[0] for w in (weight, weight.sign())))


def select_complete(pooled: Float[Tensor, "a b d"], share: Float[Tensor, "a b d"]) -> Float[Tensor, "a b d"]:
    """Return pooled weights, 0 where the share of voxels with weight is not 1 unless that is everywhere."""
    complete = pooled.masked_fill(share <= WHOLE, 0.0)
    return torch.where(complete.amax() > 0, complete, pooled)
