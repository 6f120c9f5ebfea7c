"""MIND-SSC in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from convexadam._typing import Channels, Pooled, Tensor, Triple, Volume
from convexadam.kernels.resize import pool


def _neighbour_pairs() -> tuple[tuple[Triple, Triple], ...]:
    """Return the pairs of the six face neighbours that are not opposite, in a fixed order."""
    neighbours: list[Triple] = [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]
    return tuple(
        (p, q)
        for n, p in enumerate(neighbours)
        for q in neighbours[n + 1 :]
        if sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) == 2
    )


PAIRS = _neighbour_pairs()
"""Channel order: pairs of neighbours in units of the dilation, (-i,-j) (-i,+j) (-i,-k) (-i,+k) (+i,-j) ... (+j,+k)."""


def mind_ssc(volume: Volume, *, radius: int = 1, dilation: int = 2, weight: Volume | None = None) -> Channels:
    """See the package."""
    padded = functional.pad(volume[None, None], (dilation,) * 6, mode="replicate")[0, 0]
    features = torch.empty((len(PAIRS), *volume.shape), dtype=volume.dtype, device=volume.device)
    for channel, (p, q) in enumerate(PAIRS):
        difference = _shift(padded, p, dilation, volume) - _shift(padded, q, dilation, volume)
        features[channel] = _box_mean(difference.square(), radius)
    features = features - features.amin(0)
    variance = features.mean(0)
    average = variance.mean()
    if weight is not None:
        weighted = (variance * weight).sum() / weight.sum()
        # if all weights are 0, or the weighted voxels have no contrast
        average = torch.where(weighted > 0, weighted, average)
    variance = variance.clamp(1e-3 * average, 1e3 * average)
    variance = torch.where(variance > 0, variance, torch.ones_like(variance))  # without contrast S = 0, which gives 1
    return (features / variance).neg().exp()


def pooled_mind_ssc(
    volume: Volume,
    spacings: Sequence[Triple],
    *,
    radius: int = 1,
    dilation: int = 2,
    weight: Volume | None = None,
) -> tuple[Pooled, ...]:
    """See the package."""
    features = mind_ssc(volume, radius=radius, dilation=dilation, weight=weight)
    return tuple(pool(features, spacing, weight=weight) for spacing in spacings)


def _shift(padded: Tensor, step: Triple, dilation: int, like: Tensor) -> Tensor:
    starts = [dilation + dilation * s for s in step]
    i, j, k = (slice(start, start + n) for start, n in zip(starts, like.shape, strict=True))
    return padded[i, j, k]


def _box_mean(volume: Tensor, radius: int) -> Tensor:
    """Average over the cube of side ``2 radius + 1`` with edge replication, one axis after the other."""
    if radius == 0:
        return volume
    width = 2 * radius + 1
    for axis in range(3):
        n = volume.shape[axis]
        first, last = volume.narrow(axis, 0, 1), volume.narrow(axis, n - 1, 1)
        padded = torch.cat([first] * radius + [volume] + [last] * radius, axis)
        total = padded.narrow(axis, 0, n).clone()
        for shift in range(1, width):
            total += padded.narrow(axis, shift, n)
        volume = total / width
    return volume
