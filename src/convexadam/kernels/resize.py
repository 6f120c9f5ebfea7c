"""Resampling between voxels and control points of spacing ``s``: point ``n`` is at voxel ``s n + (s - 1) / 2``."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Field, Float, Tensor, Triple, Volume
from convexadam.kernels._device import send_constant
from convexadam.kernels.block_mean import block_mean
from convexadam.kernels.interpolate import interpolate


def pool(volume: Channels, spacing: Triple, *, weight: Volume | None = None) -> Float[Tensor, "c a b d"]:
    """Average ``[c, i, j, k]`` over blocks of ``spacing`` voxels; incomplete blocks are omitted.

    With a ``weight`` (``[i, j, k]``, not negative) the averages are weighted, and a block of zero weight gets 0.
    """
    if volume.dtype.itemsize < 4 and volume.device.type == "cpu":  # for which torch has no pooling
        volume = volume.float()
    return block_mean(volume, spacing, weight)


def pool_weight(weight: Volume | None, spacing: Triple) -> Float[Tensor, "a b d"] | None:
    """Average weights ``[i, j, k]`` over blocks as `pool` does; ``None``, which means 1 everywhere, is returned."""
    return None if weight is None else pool(weight[None], spacing)[0]


def control_points_to_voxels(field: Channels, spacing: Triple, shape: Triple) -> Float[Tensor, "c a b d"]:
    """Interpolate linearly from control points to the voxels of a volume of ``shape``; values are not rescaled."""
    return resample_control_points(field, spacing, (1, 1, 1), shape)


def voxels_to_control_points(field: Channels, spacing: Triple) -> Float[Tensor, "c a b d"]:
    """Interpolate a smooth ``[c, i, j, k]`` linearly at the control points; values are not rescaled."""
    shape = (field.shape[1], field.shape[2], field.shape[3])
    return resample_control_points(field, (1, 1, 1), spacing, shape)


def scale_to_voxels(field: Field, spacing: Triple) -> Field:
    """Convert displacements ``[3, i, j, k]`` from control-point spacings to voxels, on the same grid."""
    return field * _per_axis(spacing, field)


def scale_to_control_points(field: Field, spacing: Triple) -> Field:
    """Convert displacements ``[3, i, j, k]`` from voxels to control-point spacings, on the same grid."""
    return field / _per_axis(spacing, field)


def _per_axis(spacing: Triple, like: Tensor) -> Tensor | float:
    if len(set(spacing)) == 1:
        return float(spacing[0])
    return send_constant(torch.tensor(spacing, device="cpu"), like).reshape(3, 1, 1, 1)


def resample_control_points(field: Channels, spacing: Triple, to: Triple, shape: Triple) -> Float[Tensor, "c a b d"]:
    """Interpolate linearly from the control points of one spacing to those of another; values are not rescaled."""
    i, j, k = (
        (torch.arange(n // t, dtype=torch.float64, device="cpu") * t + (t - s) / 2) / s
        for n, s, t in zip(shape, spacing, to, strict=True)
    )
    return interpolate(field, (i, j, k))
