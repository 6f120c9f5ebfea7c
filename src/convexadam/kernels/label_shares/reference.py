"""Shares of labels in torch."""

from __future__ import annotations

import itertools

import torch

from convexadam._typing import Float, Shaped, Tensor, Triple, Volume


def pool_one_hot(
    labels: Shaped[Tensor, "i j k"], values: list[int], spacing: Triple, *, weight: Volume | None = None
) -> Float[Tensor, "n _ _ _"]:
    """See the package; loops over the voxels of a block, so that the time hardly depends on the number of labels."""
    blocks = [n // s for n, s in zip(labels.shape, spacing, strict=True)]
    channels = torch.tensor(values, dtype=torch.int64, device=labels.device)
    result = torch.zeros((*blocks, len(values)), dtype=torch.float32, device=labels.device)
    total = torch.zeros(blocks, dtype=torch.float32, device=labels.device)
    for offset in itertools.product(*(range(s) for s in spacing)):
        every = tuple(slice(f, f + n * s, s) for f, n, s in zip(offset, blocks, spacing, strict=True))
        label = labels[every].to(torch.int64).contiguous()
        channel = torch.searchsorted(channels, label).clamp_max_(len(values) - 1)
        share = torch.ones_like(total) if weight is None else weight[every]
        result.scatter_add_(3, channel[..., None], torch.where(channels[channel] == label, share, 0)[..., None])
        total += share
    return result.div_(total.clamp_min_(torch.finfo(total.dtype).tiny)[..., None]).movedim(3, 0)
