"""Overlapping patches of a volume, whose results are blended."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch.nn import functional

from convexadam._typing import Channels, Float, Pooled, Tensor, Triple, Volume
from convexadam.kernels.resize import pool

_Piece: TypeAlias = tuple[int, Float[Tensor, " n"]]
"""First voxel of a patch along an axis, and the blending weights of its voxels."""


@final
@dataclass(frozen=True, eq=False)
class Patch:
    """A box of voxels with blending weights.

    Attributes
    ----------
    start
        Index of the first voxel.
    weight
        ``[i, j, k]``; the weights of all patches sum to 1 at each voxel.
    """

    start: Triple
    weight: Volume

    def crop(self, volume: Channels) -> Pooled:
        """Return the voxels of the patch of a volume ``[c, i, j, k]``."""
        i, j, k = (slice(s, s + n) for s, n in zip(self.start, self.weight.shape, strict=True))
        return volume[:, i, j, k]


def iterate_patches(shape: Triple, size: Triple, *, overlap: int, margin: int, device: torch.device) -> Iterator[Patch]:
    """Cover a volume with patches of ``size``, or of its own size if that is smaller.

    Parameters
    ----------
    shape, size
        Of the volume and of the patches, in voxels.
    overlap
        Smallest overlap of neighbouring patches, in voxels.
    margin
        Voxels at an inner edge of a patch whose weight is 0; the weight rises over the rest of the overlap.
        ``2 margin < overlap < size``, or both are 0.
    device
        Of the weights.
    """
    axes = [_cover_axis(n, s, overlap, margin) for n, s in zip(shape, size, strict=True)]
    for i, j, k in itertools.product(*axes):
        weight = i[1][:, None, None] * j[1][:, None] * k[1]
        yield Patch((i[0], j[0], k[0]), weight.to(device, torch.float32))


def _cover_axis(length: int, size: int, overlap: int, margin: int) -> list[_Piece]:
    """Cover one axis; weights in float64 on the CPU."""
    size = min(size, length)
    number = 1 if size == length else math.ceil((length - overlap) / (size - overlap))
    starts = [round(n * (length - size) / max(number - 1, 1)) for n in range(number)]
    position = torch.arange(size, dtype=torch.float64, device="cpu") + 0.5
    total = torch.zeros(length, dtype=torch.float64, device="cpu")
    weights = []
    for start in starts:
        weight = torch.full_like(position, max(overlap - 2 * margin, 1))
        if start > 0:
            weight = weight.minimum(position - margin)
        if start + size < length:
            weight = weight.minimum(size - position - margin)
        weights.append(weight.clamp_min_(0))
        total[start : start + size] += weight
    return [(s, weight / total[s : s + size]) for s, weight in zip(starts, weights, strict=True)]


@final
class PooledSum:
    """Weighted averages over blocks, as `pool` computes them, of a map that is given in patches.

    Parameters
    ----------
    shape
        Of the map, in voxels.
    spacing
        Block size along (i, j, k), in voxels.
    """

    def __init__(self, shape: Triple, spacing: Triple) -> None:
        self._spacing = spacing
        self._blocks = [n // s for n, s in zip(shape, spacing, strict=True)]
        self._sums: Pooled | None = None

    def add(self, values: Pooled, start: Triple) -> None:
        """Add weighted values ``[f, a, b, d]`` of the map from voxel ``start`` on."""
        before = [a % s for a, s in zip(start, self._spacing, strict=True)]
        after = [-(b + n) % s for b, n, s in zip(before, values.shape[1:], self._spacing, strict=True)]
        ends = [end for axis in (2, 1, 0) for end in (before[axis], after[axis])]
        sums = pool(functional.pad(values, ends), self._spacing)
        if self._sums is None:
            self._sums = sums.new_zeros((len(sums), *self._blocks))
        first = [a // s for a, s in zip(start, self._spacing, strict=True)]
        i, j, k = (slice(f, min(f + b, n)) for f, b, n in zip(first, sums.shape[1:], self._blocks, strict=True))
        target = self._sums[:, i, j, k]
        target += sums[:, : target.shape[1], : target.shape[2], : target.shape[3]]

    def average(self, weight: Volume | None) -> Pooled:
        """Return the averages ``[f, i // si, j // sj, k // sk]``.

        ``weight`` is the voxel weight ``[i, j, k]`` by which all values were multiplied; ``None`` for 1.
        """
        assert self._sums is not None  # at least one patch was added
        if weight is None:
            return self._sums
        share = pool(weight[None], self._spacing)
        return torch.where(share > 0, self._sums / share.clamp_min(torch.finfo(share.dtype).tiny), 0.0)
