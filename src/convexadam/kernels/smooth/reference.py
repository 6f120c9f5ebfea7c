"""Separable linear operators in torch, by one dense matrix for each axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from convexadam._typing import Channels, Float, Shaped, Tensor, Volume
from convexadam.kernels._device import send


def smoothing_matrix(taps: Sequence[float], size: int, *, like: Tensor) -> Float[Tensor, "n n"]:
    """Return the matrix of a symmetric filter along an axis of ``size`` voxels, with rows normalised to sum 1.

    Taps outside the axis are omitted and the others are scaled up, so that constants are reproduced. The adjoint of the
    filter is the transposed matrix.

    Parameters
    ----------
    taps
        Filter coefficients, odd in number.
    size
        Length of the axis.
    like
        Tensor with the type and device of the result.
    """
    matrix = _band_matrix(taps, size)
    matrix /= matrix.sum(1, keepdim=True)
    return send(matrix, like)


def smooth(
    field: Channels,
    taps: Sequence[float],
    *,
    before: Volume | None = None,
    after: Volume | None = None,
    out: Channels | None = None,
    condition: Shaped[Tensor, ""] | None = None,
    keep: bool = False,
    spare: bool = False,
) -> Channels:
    """See the package."""
    i, j, k = (_band_matrix(taps, n).to(field) for n in field.shape[1:])
    weighted = field if before is None else field * before
    result = along_axes(weighted, (i, j, k))
    if after is not None:
        result = result * after
    if keep:
        result = result + weighted
    if out is not None and condition is not None:
        result = torch.where(condition, result, out)
    return result if out is None else out.copy_(result)


def along_axes(
    volume: Channels, matrices: tuple[Float[Tensor, "a i"], Float[Tensor, "b j"], Float[Tensor, "d k"]]
) -> Float[Tensor, "c a b d"]:
    """Apply one matrix along each axis of ``[c, i, j, k]``: smoothing, its adjoint, or resampling.

    Dense matrix products, of ``n`` multiply-adds for each voxel and axis of length ``n``, starting at the last axis.
    """
    a, b, d = matrices
    volume = volume @ d.T
    volume = b @ volume
    c, i, j, k = volume.shape
    return (a @ volume.reshape(c, i, j * k)).reshape(c, a.shape[0], j, k)


def _band_matrix(taps: Sequence[float], size: int) -> Float[Tensor, "n n"]:
    """Return the matrix of a filter along an axis of ``size`` voxels, truncated at both ends; float64, on the CPU."""
    half = len(taps) // 2
    matrix = torch.zeros((size, size), dtype=torch.float64, device="cpu")
    for offset, tap in zip(range(-half, half + 1), taps, strict=True):
        if abs(offset) < size:
            matrix.diagonal(offset)[:] = tap
    return matrix
