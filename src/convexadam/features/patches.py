"""A volume in overlapping patches, whose results blend into each other."""

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
"""First voxel of a patch along an axis, and how much it counts at each of its voxels."""


@final
@dataclass(frozen=True, eq=False)
class Patch:
    """A box of voxels from ``start`` on, and how much its result counts at each of them.

    The weights of all patches sum up to 1 at each voxel.
    """

    start: Triple
    weight: Volume

    def of(self, volume: Channels) -> Pooled:
        """Cut it out of ``[c, i, j, k]``."""
        i, j, k = (slice(s, s + n) for s, n in zip(self.start, self.weight.shape, strict=True))
        return volume[:, i, j, k]


def patches(shape: Triple, size: Triple, *, overlap: int, margin: int, device: torch.device) -> Iterator[Patch]:
    """Cover a volume with patches of ``size`` (less, where the volume is smaller) that overlap by ``overlap`` or more.

    Within ``margin`` of an edge that is none of the volume a patch does not count; from there its weight rises over the
    rest of the overlap. ``2 margin < overlap < size``, or both are 0.
    """
    axes = [_pieces(n, s, overlap, margin) for n, s in zip(shape, size, strict=True)]
    for i, j, k in itertools.product(*axes):
        weight = i[1][:, None, None] * j[1][:, None] * k[1]
        yield Patch((i[0], j[0], k[0]), weight.to(device, torch.float32))


def _pieces(length: int, size: int, overlap: int, margin: int) -> list[_Piece]:
    """Cover one axis; weights in float64 on the CPU."""
    size = min(size, length)
    number = 1 if size == length else math.ceil((length - overlap) / (size - overlap))
    starts = [round(n * (length - size) / max(number - 1, 1)) for n in range(number)]
    within = torch.arange(size, dtype=torch.float64, device="cpu") + 0.5
    total = torch.zeros(length, dtype=torch.float64, device="cpu")
    weights = []
    for start in starts:
        weight = torch.full_like(within, max(overlap - 2 * margin, 1))
        if start > 0:
            weight = weight.minimum(within - margin)
        if start + size < length:
            weight = weight.minimum(size - within - margin)
        weights.append(weight.clamp_min_(0))
        total[start : start + size] += weight
    return [(s, weight / total[s : s + size]) for s, weight in zip(starts, weights, strict=True)]


@final
class PooledSum:
    """Averages over blocks of ``spacing`` voxels as `pool` makes them, of a map that arrives in patches."""

    def __init__(self, shape: Triple, spacing: Triple) -> None:
        self._spacing = spacing
        self._nodes = [n // s for n, s in zip(shape, spacing, strict=True)]
        self._sums: Pooled | None = None

    def add(self, weighted: Pooled, start: Triple) -> None:
        """Add the part of a map from the voxel ``start`` on, times its weights."""
        before = [a % s for a, s in zip(start, self._spacing, strict=True)]
        after = [-(b + n) % s for b, n, s in zip(before, weighted.shape[1:], self._spacing, strict=True)]
        ends = [end for axis in (2, 1, 0) for end in (before[axis], after[axis])]
        blocks = pool(functional.pad(weighted, ends), self._spacing)
        if self._sums is None:
            self._sums = blocks.new_zeros((len(blocks), *self._nodes))
        first = [a // s for a, s in zip(start, self._spacing, strict=True)]
        i, j, k = (slice(f, min(f + b, n)) for f, b, n in zip(first, blocks.shape[1:], self._nodes, strict=True))
        target = self._sums[:, i, j, k]
        target += blocks[:, : target.shape[1], : target.shape[2], : target.shape[3]]

    def averages(self, evidence: Volume | None) -> Pooled:
        """Return ``[f, i // si, j // sj, k // sk]``, where ``evidence`` was among the weights of the parts."""
        assert self._sums is not None  # at least one part came
        if evidence is None:
            return self._sums
        share = pool(evidence[None], self._spacing)
        return torch.where(share > 0, self._sums / share.clamp_min(torch.finfo(share.dtype).tiny), 0.0)
