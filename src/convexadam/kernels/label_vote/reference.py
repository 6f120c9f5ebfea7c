"""Weighted vote with torch, for blocks of voxels."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Float, Shaped, Tensor, Volume
from convexadam.kernels.patch_match.reference import list_offsets

_BLOCK_NUMBERS = 2**25
"""Sums of votes that are held at once."""


def cast_votes(
    labels: Shaped[Tensor, "n i j k"],
    weights: Float[Tensor, "m i j k"],
    offsets: Shaped[Tensor, "m i j k"],
    mask: Shaped[Tensor, "i j k"],
    *,
    count: int,
    chosen: Tensor | None = None,
    vote_radius: int = 2,
    search_radius: int = 3,
) -> tuple[Shaped[Tensor, "i j k"], Volume, Channels]:
    """See the package."""
    dtype, device = weights.dtype, weights.device
    search = list_offsets(search_radius).to(weights.device)
    every = [one for one in labels for _ in range(len(weights) // len(labels))]
    last = torch.tensor(mask.shape, dtype=torch.int64, device=weights.device) - 1
    winner = torch.zeros(mask.shape, dtype=torch.int32, device=weights.device)
    share = torch.zeros(mask.shape, dtype=dtype, device=device)
    wanted = torch.zeros(0, dtype=torch.int64, device=weights.device) if chosen is None else chosen.long()
    probabilities = torch.zeros((len(wanted), *mask.shape), dtype=dtype, device=device)
    for voxels in torch.split(mask.nonzero(), max(_BLOCK_NUMBERS // count, 1)):
        votes = torch.zeros((len(voxels), count), dtype=dtype, device=device)
        for step in list_offsets(vote_radius).to(weights.device):
            centres = voxels + step
            inside = ((centres >= 0) & (centres <= last)).all(1)
            inside[inside.clone()] = mask[tuple(centres[inside].T)]
            at = tuple(centres[inside].T)
            for own, weight, offset in zip(every, weights, offsets, strict=True):
                i, j, k = (voxels[inside] + search[offset[at].long()]).clamp_min(0).minimum(last).unbind(1)
                label, rows = own[i, j, k].long(), inside.nonzero()[:, 0]
                known = label >= 0
                votes.index_put_((rows[known], label[known]), weight[at][known], accumulate=True)
        votes.clamp_min_(0)
        votes /= votes.sum(1, keepdim=True).clamp_min(torch.finfo(votes.dtype).tiny)
        at = tuple(voxels.T)
        largest, label = votes.max(1)
        winner[at], share[at] = label.int(), largest
        probabilities[(slice(None), *at)] = votes[:, wanted].T
    return winner, share, probabilities
