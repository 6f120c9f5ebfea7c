"""Linear interpolation in torch, by a matrix for each axis."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Float, Tensor
from convexadam.kernels._device import send
from convexadam.kernels.smooth import along_axes


def interpolate(
    field: Channels, positions: tuple[Float[Tensor, " a"], Float[Tensor, " b"], Float[Tensor, " d"]]
) -> Float[Tensor, "c a b d"]:
    """See the package."""
    i, j, k = (interpolation_matrix(p, n, like=field) for p, n in zip(positions, field.shape[1:], strict=True))
    return along_axes(field, (i, j, k))


def interpolation_matrix(positions: Float[Tensor, " n"], size: int, *, like: Tensor) -> Float[Tensor, "n size"]:
    """Return the matrix of linear interpolation of ``size`` samples at ``positions``, clamped to both ends."""
    low, share = find_neighbours(positions, size)
    low, share = low.to(torch.int64)[:, None], share[:, None]
    matrix = torch.zeros((len(positions), size), dtype=torch.float64, device=positions.device)
    matrix.scatter_add_(1, low, 1 - share)
    matrix.scatter_add_(1, (low + 1).clamp_max(size - 1), share)
    return send(matrix, like)


def find_neighbours(positions: Float[Tensor, " n"], size: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return the lower neighbour of each position, clamped to both ends, and the weight of the upper one."""
    clamped = positions.to(torch.float64).clamp(0, size - 1)
    low = clamped.floor().clamp_max(max(size - 2, 0))
    return low, clamped - low
