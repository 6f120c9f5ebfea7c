"""Linear interpolation in torch: a matrix for each axis."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Float, Tensor
from convexadam.kernels.smooth import along_axes


def interpolated(
    field: Channels, positions: tuple[Float[Tensor, " a"], Float[Tensor, " b"], Float[Tensor, " d"]]
) -> Float[Tensor, "c a b d"]:
    """See the package."""
    i, j, k = (interpolation_matrix(p, n, like=field) for p, n in zip(positions, field.shape[1:], strict=True))
    return along_axes(field, (i, j, k))


def interpolation_matrix(positions: Float[Tensor, " n"], size: int, *, like: Tensor) -> Float[Tensor, "n size"]:
    """Matrix that reads an axis of ``size`` samples at ``positions`` linearly, clamped to its ends."""
    where = positions.to(torch.float64).clamp(0, size - 1)
    low = where.floor().clamp_max(max(size - 2, 0)).to(torch.int64)
    share = (where - low)[:, None]
    matrix = torch.zeros((len(where), size), dtype=torch.float64, device=where.device)
    matrix.scatter_add_(1, low[:, None], 1 - share)
    matrix.scatter_add_(1, (low + 1).clamp_max(size - 1)[:, None], share)
    return matrix.to(like)
