"""Between voxels and the nodes of a pooled grid: node ``n`` lies at voxel ``s n + (s - 1) / 2``."""

from __future__ import annotations

import torch
from torch.nn import functional

from convexadam._typing import Channels, Field, Float, Tensor, Triple, Volume
from convexadam.kernels.interpolate import interpolated


def pool(volume: Channels, spacing: Triple, *, weight: Volume | None = None) -> Float[Tensor, "c a b d"]:
    """Average ``[c, i, j, k]`` over blocks of ``spacing`` voxels; what fills no whole block is left out.

    With a ``weight`` (``[i, j, k]``, not negative) the averages are weighted, and a block without any
    weight becomes 0.
    """
    if weight is None:
        return functional.avg_pool3d(volume[None], spacing, spacing)[0]
    total = functional.avg_pool3d((volume * weight)[None], spacing, spacing)[0]
    share = functional.avg_pool3d(weight[None, None], spacing, spacing)[0]
    return torch.where(share > 0, total / share.clamp_min(torch.finfo(share.dtype).tiny), torch.zeros_like(total))


def pool_weight(weight: Volume | None, spacing: Triple) -> Float[Tensor, "a b d"] | None:
    """Average evidence ``[i, j, k]`` over blocks as `pool` does; ``None``, which stands for 1 everywhere, stays."""
    return None if weight is None else pool(weight[None], spacing)[0]


def nodes_to_voxels(field: Channels, spacing: Triple, shape: Triple) -> Float[Tensor, "c a b d"]:
    """Linear interpolation from nodes to the voxels of a volume of ``shape``; values are not rescaled."""
    return nodes_to_nodes(field, spacing, (1, 1, 1), shape)


def voxels_to_nodes(field: Channels, spacing: Triple) -> Float[Tensor, "c a b d"]:
    """Linear interpolation of a smooth ``[c, i, j, k]`` at the nodes; values are not rescaled."""
    shape = (field.shape[1], field.shape[2], field.shape[3])
    return nodes_to_nodes(field, (1, 1, 1), spacing, shape)


def in_voxels(field: Field, spacing: Triple) -> Field:
    """Displacements counted in nodes as displacements in voxels, ``[3, i, j, k]``; the grid stays."""
    return field * _per_axis(spacing, field)


def in_nodes(field: Field, spacing: Triple) -> Field:
    """Displacements counted in voxels as displacements in nodes, ``[3, i, j, k]``; the grid stays."""
    return field / _per_axis(spacing, field)


def _per_axis(spacing: Triple, like: Tensor) -> Tensor:
    return torch.tensor(spacing, dtype=like.dtype, device=like.device).reshape(3, 1, 1, 1)


def nodes_to_nodes(field: Channels, spacing: Triple, to: Triple, shape: Triple) -> Float[Tensor, "c a b d"]:
    """Linear interpolation from the nodes of one spacing to those of another; values are not rescaled."""
    i, j, k = (
        (torch.arange(n // t, dtype=torch.float64, device="cpu") * t + (t - s) / 2) / s
        for n, s, t in zip(shape, spacing, to, strict=True)
    )
    return interpolated(field, (i, j, k))
