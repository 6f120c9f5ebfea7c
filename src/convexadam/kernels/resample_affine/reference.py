"""Resampling by a linear map in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Float, Tensor, Triple
from convexadam.kernels.warp.reference import identity_positions, inside, sample_linear

ROUNDING = 1e-3
"""Tolerance at the edge of the field of view, in voxels: positions are rounded."""


def resample_affine(
    volume: Float[Tensor, "c i j k"],
    mask: Float[Tensor, "_ _ _"] | None,
    maps: tuple[Float[Tensor, "4 4"], Float[Tensor, "4 4"], Float[Tensor, "4 4"], Float[Tensor, "4 4"]],
    shape: Triple,
    fill_value: Float[Tensor, ""],
    margin: int,
) -> tuple[Float[Tensor, "c a b d"], Float[Tensor, "a b d"]]:
    """See the package."""
    to_index, matrix, grid_map, mask_index = maps
    index = identity_positions(shape, like=matrix).flatten(1)
    products = [first @ matrix @ grid_map for first in (to_index, mask_index)]
    positions, mask_positions = ((m[:3, :3] @ index + m[:3, 3:]).reshape(3, *shape).to(volume.dtype) for m in products)
    values = torch.where(inside(positions, _shape(volume[0])), sample_linear(volume, positions), fill_value)
    weight = torch.ones_like(positions[0])
    for axis, size in enumerate(volume.shape[1:]):
        edge = (margin * torch.linalg.vector_norm(products[0][axis, :3])).clamp_max(size // 8) - 0.5
        weight *= (positions[axis] >= edge - ROUNDING) & (positions[axis] <= size - 1 - edge + ROUNDING)
    if mask is not None:
        sampled = sample_linear(mask[None], mask_positions)[0]
        weight *= torch.where(inside(mask_positions, _shape(mask)), sampled, 0.0)
    return values, weight


def _shape(volume: Float[Tensor, "i j k"]) -> Triple:
    i, j, k = volume.shape
    return i, j, k
