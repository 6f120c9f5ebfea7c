"""Separable linear maps in torch: one small dense matrix for each axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from convexadam._typing import Channels, Float, Tensor, Volume


def smoothing_matrix(taps: Sequence[float], size: int, *, like: Tensor) -> Float[Tensor, "n n"]:
    """Matrix of a symmetric filter along an axis of ``size`` voxels, each row normalised to sum 1.

    Near a border the taps that fall outside are left out and the rest is scaled up, so that a constant
    stays the same constant. The adjoint of the filter is the transposed matrix.

    Parameters
    ----------
    taps
        An odd number of weights, centred.
    size
        Length of the axis.
    like
        A tensor whose type and device the matrix takes.
    """
    matrix = _banded(taps, size)
    matrix /= matrix.sum(1, keepdim=True)
    return matrix.to(like)


def smooth(
    field: Channels,
    taps: Sequence[float],
    *,
    before: Volume | None = None,
    after: Volume | None = None,
    out: Channels | None = None,
) -> Channels:
    """See the package."""
    i, j, k = (_banded(taps, n).to(field) for n in field.shape[1:])
    result = along_axes(field if before is None else field * before, (i, j, k))
    if after is not None:
        result = result * after
    return result if out is None else out.copy_(result)


def along_axes(
    volume: Channels, matrices: tuple[Float[Tensor, "a i"], Float[Tensor, "b j"], Float[Tensor, "d k"]]
) -> Float[Tensor, "c a b d"]:
    """Apply one matrix along each axis of ``[c, i, j, k]``: smoothing, its adjoint, or resampling.

    The cost is ``n`` multiply-adds for each voxel and axis, as dense matrix products; the last axis goes first.
    """
    a, b, d = matrices
    volume = volume @ d.T
    volume = b @ volume
    c, i, j, k = volume.shape
    return (a @ volume.reshape(c, i, j * k)).reshape(c, a.shape[0], j, k)


def _banded(taps: Sequence[float], size: int) -> Float[Tensor, "n n"]:
    """Matrix of a filter along an axis of ``size`` voxels: what falls outside is left out; float64, on the CPU."""
    half = len(taps) // 2
    matrix = torch.zeros((size, size), dtype=torch.float64, device="cpu")
    for offset, tap in zip(range(-half, half + 1), taps, strict=True):
        if abs(offset) < size:
            matrix.diagonal(offset)[:] = tap
    return matrix
