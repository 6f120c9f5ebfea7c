"""Sampling in torch. Positions are voxel indices: centres at integers, axis ``a`` in component ``a``.

A volume reaches half a voxel beyond its outer centres, from ``-0.5`` to ``n - 0.5``; there, and beyond, the
nearest edge value is read. `inside` tells where that is more than half a voxel away.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from convexadam._typing import Channels, Field, Float, Shaped, Tensor, Triple


def identity_positions(shape: Triple, *, like: Tensor) -> Field:
    """Each voxel's own index, ``[3, i, j, k]``, in the type and on the device of ``like``."""
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def inside(positions: Field, shape: Triple) -> Shaped[Tensor, "i j k"]:
    """Whether each position is within the volume's field of view; boolean ``[i, j, k]``."""
    i, j, k = ((positions[axis] >= -0.5) & (positions[axis] <= n - 0.5) for axis, n in enumerate(shape))
    return i & j & k


def sample_linear(volume: Float[Tensor, "c i j k"], positions: Float[Tensor, "3 a b d"]) -> Float[Tensor, "c a b d"]:
    """Trilinear values of ``[c, i, j, k]`` at ``positions``; outside, the nearest edge value. Differentiable."""
    scaled = [positions[axis] * (2 / max(n - 1, 1)) - 1 for axis, n in enumerate(volume.shape[1:])]
    grid = torch.stack(scaled[::-1], -1)  # grid_sample wants the innermost axis first
    return functional.grid_sample(
        volume[None], grid[None].to(volume.dtype), mode="bilinear", padding_mode="border", align_corners=True
    )[0]


def sample_nearest(volume: Shaped[Tensor, "c i j k"], positions: Float[Tensor, "3 a b d"]) -> Shaped[Tensor, "c a b d"]:
    """Values of the nearest voxels, of any type and unchanged; outside, those of the nearest edge voxel.

    Half-way between two voxels the higher index is taken, everywhere: rounding to even ones would drop every other
    plane of labels that move by half a voxel.
    """
    index: Any = [
        (positions[axis] + 0.5).floor().clamp(0, n - 1).to(torch.int64) for axis, n in enumerate(volume.shape[1:])
    ]
    i, j, k = index
    return volume[:, i, j, k]


def add_step(
    displacement: Field,
    step: Field,
    *,
    longest: float,
    factors: tuple[float, float] = (1.0, 1.0),
    out: Field | None = None,
) -> Field:
    """See the package."""
    step = step / (torch.linalg.vector_norm(step, dim=0) / longest).clamp_min(1)
    result = factors[0] * step + factors[1] * compose(displacement, step)
    return result if out is None else out.copy_(result)


def compose(field: Channels, displacement: Field) -> Channels:
    """``field(x + displacement(x))`` for two fields on the same grid, in voxels of it."""
    shape = (displacement.shape[1], displacement.shape[2], displacement.shape[3])
    return sample_linear(field, displacement + identity_positions(shape, like=displacement))
