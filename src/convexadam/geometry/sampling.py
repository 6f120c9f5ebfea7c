"""Sampling of volumes at arbitrary positions: cubic B-splines, and labels by their trilinear weights."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from convexadam._typing import Channels, Float, Shaped, Tensor
from convexadam.kernels import backend_for
from convexadam.kernels._precision import full_precision
from convexadam.kernels.smooth import along_axes
from convexadam.kernels.warp import sample_heaviest, sample_linear, sample_nearest

Mode: TypeAlias = Literal["linear", "cubic", "nearest", "label"]

Sampler: TypeAlias = Callable[[Float[Tensor, "3 a b d"]], Shaped[Tensor, "c a b d"]]

_TIE = 1e-3
"""Weights of labels that differ by less are equal: positions are rounded."""


def make_sampler(volume: Shaped[Tensor, "c i j k"], mode: Mode) -> Sampler:
    """Return a function that samples a volume at positions; the volume is preprocessed once, here."""
    if mode == "linear":
        return functools.partial(sample_linear, volume)
    if mode == "cubic":
        return functools.partial(sample_cubic, spline_coefficients(volume))
    if mode == "nearest":
        return functools.partial(sample_nearest, volume)
    # on a GPU choosing among all positions is quicker than waiting for their number
    return functools.partial(sample_label, volume, None if volume.is_cuda else find_mixed_cells(volume))


@full_precision
def spline_coefficients(volume: Channels) -> Channels:
    """Compute the coefficients of the interpolating cubic B-spline, padded by one: ``[c, i + 2, j + 2, k + 2]``.

    The boundaries are mirrored at the outer voxel centres. Along each axis the coefficients solve
    ``(c[n - 1] + 4 c[n] + c[n + 1]) / 6 = volume[n]``. The inverse of this matrix is applied as a product, which runs
    on any device.
    """
    matrices = []
    for size in volume.shape[1:]:
        mirrored = [min(1, size - 1), *range(size), max(size - 2, 0)]
        weights = np.zeros((size, size))
        for row in range(size):
            for step, weight in zip((0, 1, 2), (1 / 6, 4 / 6, 1 / 6), strict=True):
                weights[row, mirrored[row + step]] += weight
        matrices.append(torch.from_numpy(np.linalg.inv(weights)[mirrored]).to(volume))
    i, j, k = matrices
    return torch.cat([along_axes(channel[None], (i, j, k)) for channel in volume])


def sample_cubic(coefficients: Channels, positions: Float[Tensor, "3 a b d"]) -> Float[Tensor, "c a b d"]:
    """Evaluate a cubic B-spline at ``positions``; beyond the outer voxel centres the edge values are repeated.

    The four coefficients along an axis are combined from two linear interpolations, each at the position whose linear
    weights have the ratio of the two spline weights (Sigg and Hadwiger, GPU Gems 2, 2005).
    """
    pairs: list[list[Tensor]] = []
    weights: list[list[Tensor]] = []
    for axis, padded in enumerate(coefficients.shape[1:]):
        where = positions[axis].clamp(0, padded - 3)
        low = where.floor().clamp_max(max(padded - 4, 0))
        t = where - low
        first, last = (1 - t) ** 3 / 6, t**3 / 6
        second = (4 - 6 * t**2 + 3 * t**3) / 6
        near = first + second
        far = 1 - near
        pairs.append([low + second / near, low + 2 + last / far])
        weights.append([near, far])
    total: Any = 0
    for i, j, k in itertools.product((0, 1), repeat=3):
        read = sample_linear(coefficients, torch.stack([pairs[0][i], pairs[1][j], pairs[2][k]]))
        total = total + weights[0][i] * weights[1][j] * weights[2][k] * read
    return torch.as_tensor(total, device=coefficients.device)


def find_mixed_cells(labels: Shaped[Tensor, "c i j k"]) -> Shaped[Tensor, "c a b d"]:
    """Find the cells between voxel centres whose eight corners differ; an axis of one voxel has one cell."""
    sizes = [max(n - 1, 1) for n in labels.shape[1:]]
    result = torch.zeros((labels.shape[0], *sizes), dtype=torch.bool, device=labels.device)
    first = labels[:, : sizes[0], : sizes[1], : sizes[2]]
    for i, j, k in itertools.product(*[(0, 1) if n > 1 else (0,) for n in labels.shape[1:]]):
        result |= labels[:, i : i + sizes[0], j : j + sizes[1], k : k + sizes[2]] != first
    return result


def sample_label(
    labels: Shaped[Tensor, "c i j k"],
    mixed: Shaped[Tensor, "c x y z"] | None,
    positions: Float[Tensor, "3 a b d"],
) -> Shaped[Tensor, "c a b d"]:
    """Sample labels: of the eight voxels around a position, the value with the largest sum of trilinear weights.

    This is the label with the largest interpolated indicator function. Ties are resolved in favour of the nearest
    voxel. Outside, the value of the nearest edge voxel is returned. ``mixed`` are the cells where there is a choice;
    ``None`` for all.
    """
    if positions.is_cuda and labels.dtype != torch.bool and backend_for(positions) == "triton":
        return sample_heaviest(labels, positions, tie=_TIE)
    result = sample_nearest(labels, positions)
    cell: Any = [
        positions[axis].floor().clamp(0, max(n - 2, 0)).to(torch.int64) for axis, n in enumerate(labels.shape[1:])
    ]
    for c, channel in enumerate(labels):
        undecided: Any = ... if mixed is None else mixed[(c, *cell)]
        low = [at[undecided] for at in cell]
        above = [(positions[a][undecided].clamp(0, n - 1) - low[a]).clamp(0, 1) for a, n in enumerate(channel.shape)]
        values, weights = [], []
        for corner in itertools.product((0, 1), repeat=3):
            index: Any = tuple((low[a] + corner[a]).clamp_max(n - 1) for a, n in enumerate(channel.shape))
            values.append(channel[index])
            i, j, k = (share if up else 1 - share for share, up in zip(above, corner, strict=True))
            weights.append(i * j * k)
        result[c][undecided] = _select_heaviest(result[c][undecided], torch.stack(values), torch.stack(weights))
    return result


def _select_heaviest(
    nearest: Shaped[Tensor, " m"], values: Shaped[Tensor, "8 m"], weights: Float[Tensor, "8 m"]
) -> Tensor:
    best, most = nearest, (weights * (values == nearest)).sum(0) + _TIE
    for value in values:
        weight = (weights * (values == value)).sum(0)
        heavier = weight > most
        best, most = torch.where(heavier, value, best), torch.where(heavier, weight, most)
    return best
