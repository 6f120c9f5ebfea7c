"""Volumes read at arbitrary positions: smoothly by cubic splines, and labels by the weight that each has."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from convexadam._typing import Channels, Float, Shaped, Tensor
from convexadam.kernels._precision import full_precision
from convexadam.kernels.smooth import along_axes
from convexadam.kernels.warp import sample_linear, sample_nearest

Mode: TypeAlias = Literal["linear", "cubic", "nearest", "label"]

Reader: TypeAlias = Callable[[Float[Tensor, "3 a b d"]], Shaped[Tensor, "c a b d"]]

_TIE = 1e-3
"""Weights of labels this close to each other are equal: positions are rounded."""


def reader(volume: Shaped[Tensor, "c i j k"], mode: Mode) -> Reader:
    """Return the function that reads a volume at positions; what it needs to know of the volume is found once, here."""
    if mode == "linear":
        return functools.partial(sample_linear, volume)
    if mode == "cubic":
        return functools.partial(sample_cubic, spline_coefficients(volume))
    if mode == "nearest":
        return functools.partial(sample_nearest, volume)
    return functools.partial(sample_label, volume, mixed_cells(volume))


@full_precision
def spline_coefficients(volume: Channels) -> Channels:
    """Coefficients of the cubic B-spline through all voxels, one more on each side: ``[c, i + 2, j + 2, k + 2]``.

    The volume goes on as its mirror image beyond the outer centres. Along each axis the coefficients solve
    ``(c[n - 1] + 4 c[n] + c[n + 1]) / 6 = volume[n]``; the inverse of that small matrix is applied as a product, which
    any device can do.
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
    """Values of a cubic B-spline at ``positions``; beyond the outer centres the nearest edge value.

    Of the four coefficients along an axis, two and two are read at once, linearly between them, at the place where they
    have their shares (Sigg and Hadwiger, GPU Gems 2, 2005).
    """
    places: list[list[Tensor]] = []
    shares: list[list[Tensor]] = []
    for axis, padded in enumerate(coefficients.shape[1:]):
        where = positions[axis].clamp(0, padded - 3)
        low = where.floor().clamp_max(max(padded - 4, 0))
        t = where - low
        first, last = (1 - t) ** 3 / 6, t**3 / 6
        second = (4 - 6 * t**2 + 3 * t**3) / 6
        near = first + second
        far = 1 - near
        places.append([low + second / near, low + 2 + last / far])
        shares.append([near, far])
    total: Any = 0
    for i, j, k in itertools.product((0, 1), repeat=3):
        read = sample_linear(coefficients, torch.stack([places[0][i], places[1][j], places[2][k]]))
        total = total + shares[0][i] * shares[1][j] * shares[2][k] * read
    return torch.as_tensor(total, device=coefficients.device)


def mixed_cells(labels: Shaped[Tensor, "c i j k"]) -> Shaped[Tensor, "c a b d"]:
    """Whether the eight voxels around each cell between voxel centres differ; an axis of one voxel has one cell."""
    sizes = [max(n - 1, 1) for n in labels.shape[1:]]
    result = torch.zeros((labels.shape[0], *sizes), dtype=torch.bool, device=labels.device)
    first = labels[:, : sizes[0], : sizes[1], : sizes[2]]
    for i, j, k in itertools.product(*[(0, 1) if n > 1 else (0,) for n in labels.shape[1:]]):
        result |= labels[:, i : i + sizes[0], j : j + sizes[1], k : k + sizes[2]] != first
    return result


def sample_label(
    labels: Shaped[Tensor, "c i j k"], mixed: Shaped[Tensor, "c x y z"], positions: Float[Tensor, "3 a b d"]
) -> Shaped[Tensor, "c a b d"]:
    """Of the eight voxels around each position, the value whose weights in linear interpolation sum up to the most.

    That is the largest of the interpolated indicators of all labels. Among equal ones the nearest voxel's value is
    taken. Outside, the nearest edge voxel's.
    """
    result = sample_nearest(labels, positions)
    cell: Any = [
        positions[axis].floor().clamp(0, max(n - 2, 0)).to(torch.int64) for axis, n in enumerate(labels.shape[1:])
    ]
    for c, channel in enumerate(labels):
        undecided = mixed[(c, *cell)]
        low = [at[undecided] for at in cell]
        above = [(positions[a][undecided].clamp(0, n - 1) - low[a]).clamp(0, 1) for a, n in enumerate(channel.shape)]
        values, weights = [], []
        for corner in itertools.product((0, 1), repeat=3):
            index: Any = tuple((low[a] + corner[a]).clamp_max(n - 1) for a, n in enumerate(channel.shape))
            values.append(channel[index])
            i, j, k = (share if up else 1 - share for share, up in zip(above, corner, strict=True))
            weights.append(i * j * k)
        result[c][undecided] = _heaviest(result[c][undecided], torch.stack(values), torch.stack(weights))
    return result


def _heaviest(nearest: Shaped[Tensor, " m"], values: Shaped[Tensor, "8 m"], weights: Float[Tensor, "8 m"]) -> Tensor:
    best, most = nearest, (weights * (values == nearest)).sum(0) + _TIE
    for value in values:
        weight = (weights * (values == value)).sum(0)
        heavier = weight > most
        best, most = torch.where(heavier, value, best), torch.where(heavier, weight, most)
    return best
