"""Interpolation in torch. Positions are voxel indices: centres at integers, axis ``a`` in component ``a``.

The field of view ends half a voxel beyond the outer centres, at ``-0.5`` and ``n - 0.5``; see `inside`. Beyond the
outer centres the nearest edge value is used, also outside the field of view.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from convexadam._typing import Channels, Field, Float, Shaped, Tensor, Triple
from convexadam.kernels._batch import over_batch


def identity_positions(shape: Triple, *, like: Tensor) -> Field:
    """Return the index of each voxel, ``[3, i, j, k]``, with the type and device of ``like``."""
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def inside(positions: Field, shape: Triple) -> Shaped[Tensor, "i j k"]:
    """Whether each position is in the field of view of a volume of ``shape``; boolean ``[i, j, k]``."""
    i, j, k = ((positions[axis] >= -0.5) & (positions[axis] <= n - 0.5) for axis, n in enumerate(shape))
    return i & j & k


@over_batch(4)
def sample_linear(
    volume: Float[Tensor, "*n c i j k"], positions: Float[Tensor, "*n 3 a b d"]
) -> Float[Tensor, "*n c a b d"]:
    """Interpolate ``[c, i, j, k]`` trilinearly at ``positions``, with edge values outside; differentiable.

    Several volumes ``[n, c, i, j, k]`` are interpolated each at its positions.
    """
    scaled = [positions[axis] * (2 / max(n - 1, 1)) - 1 for axis, n in enumerate(volume.shape[1:])]
    grid = torch.stack(scaled[::-1], -1)  # grid_sample expects the innermost axis first
    return functional.grid_sample(
        volume[None], grid[None].to(volume.dtype), mode="bilinear", padding_mode="border", align_corners=True
    )[0]


def sample_nearest(volume: Shaped[Tensor, "c i j k"], positions: Float[Tensor, "3 a b d"]) -> Shaped[Tensor, "c a b d"]:
    """Return the values of the nearest voxels, of any type, with the nearest edge value outside.

    Midway between two voxels the higher index is selected: rounding to even would drop every second plane of a label
    map that is shifted by half a voxel.
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


def add_opposite_steps(forward: Field, backward: Field, *, factors: tuple[float, float]) -> tuple[Field, Field]:
    """See the package."""
    return (
        add_step(backward, forward, longest=math.inf, factors=factors),
        add_step(forward, backward, longest=math.inf, factors=factors),
    )


def compose(field: Channels, displacement: Field) -> Channels:
    """Compute ``field(x + displacement(x))`` for two fields on one grid, with displacements in grid units."""
    shape = (displacement.shape[1], displacement.shape[2], displacement.shape[3])
    return sample_linear(field, displacement + identity_positions(shape, like=displacement))
