"""Local normalisation on the CPU: both moments of a block of rows are summed while its planes are in the cache."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Channels, Float, Shaped, Tensor, Volume
from convexadam.kernels._cpu import (
    compile_kernel,
    fill_weights,
    make_constant,
    run_in_slabs,
    to_numpy,
    view_channels_last,
)
from convexadam.kernels.lncc.reference import ROUNDINGS
from convexadam.kernels.local_normalisation.reference import prepare_windows
from convexadam.kernels.warp_ssd.feature_rows import LARGEST, FeatureMap, FeatureRows, tensor_of

_ROWS = 16
"""Rows of a block, whose results fit the cache with all their channels."""

_LARGEST = np.float32(LARGEST)
_NO_SHARE = np.empty((0, 0, 0), np.float32)


def normalise_locally(
    features: Channels,
    *,
    radius: int,
    floor: float,
    weight: Volume | None = None,
    out: Shaped[Tensor, "c i j k"] | None = None,
    step: float | None = None,
) -> Shaped[Tensor, "c i j k"]:
    """See the package."""
    inverse, share = prepare_windows(features, radius, weight)
    result = torch.empty_like(features, memory_format=torch.contiguous_format) if out is None else out
    source, weights = to_numpy(features, *fill_weights(weight, like=features[0]))
    shifts, scales = _standardise(source, weights)
    factors = to_numpy(inverse)[0], _NO_SHARE if share is None else to_numpy(share)[0]
    arrays = source, weights, *factors, shifts, scales, result.detach().numpy()
    settings = make_constant(2 * radius + 1), np.float32(floor), np.float32(0 if step is None else 1 / step), _ROWS
    run_in_slabs(_normalise_planes, source.shape[1], *arrays, *settings)
    return result


def mean_squared_slopes(features: FeatureMap, weight: Volume | None = None) -> Float[Tensor, " c"]:
    """See the package."""
    like = tensor_of(features).new_empty(()).expand(features.shape[1:])
    (weights,) = to_numpy(*fill_weights(weight, like=like))
    rows = features.rows.numpy() if isinstance(features, FeatureRows) else view_channels_last(features)
    planes = np.zeros((rows.shape[0], rows.shape[3]))
    run_in_slabs(_sum_slopes, rows.shape[0], rows, weights, planes)
    slopes = torch.from_numpy(planes.sum(0) / max(float(weights.sum(dtype=np.float64)), 1e-12))
    if isinstance(features, FeatureRows):
        slopes = slopes[: features.channels] * features.scale.double().square()
    return slopes.float()


def scale_channels(features: Channels, factors: Float[Tensor, " c"]) -> None:
    """See the package."""
    rows = features.detach().permute(1, 2, 3, 0).numpy()
    run_in_slabs(_scale_rows, rows.shape[0], rows, to_numpy(factors)[0])


def _standardise(source: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what to subtract from each channel, and what to multiply it by, for mean 0 and variance 1."""
    total = max(float(weights.sum(dtype=np.float64)), float(np.finfo(np.float32).tiny))
    nothing = np.zeros(len(source), np.float32)
    means = _sum_moments(source, weights, nothing)[0] / total
    shifts = means.astype(np.float32)
    deviations = np.sqrt(_sum_moments(source, weights, shifts)[1] / total)
    varies = deviations > ROUNDINGS * np.finfo(np.float32).eps * np.abs(means)
    return shifts, np.where(varies, 1 / np.where(varies, deviations, 1.0), 0.0).astype(np.float32)


def _sum_moments(source: np.ndarray, weights: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Return the weighted sums of each channel and of its squares, after a shift."""
    planes = np.zeros((source.shape[1], 2, len(source)))  # summed in one order, whatever the number of threads
    run_in_slabs(_sum_plane_moments, source.shape[1], source, weights, shifts, planes)
    total: np.ndarray = planes.sum(0)
    return total


@no_type_check
@compile_kernel
def _sum_plane_moments(first, last, source, weights, shifts, planes):
    """Sum the planes ``first ... last - 1`` of all channels, and their squares."""
    channels, _, n1, n2 = source.shape
    for i in range(first, last):
        for c in range(channels):
            shift = shifts[c]
            for j in range(n1):
                values, weight = source[c, i, j], weights[i, j]
                one, two = np.float32(0), np.float32(0)
                for k in range(n2):
                    value = values[k] - shift
                    one += weight[k] * value
                    two += weight[k] * value * value
                planes[i, 0, c] += one
                planes[i, 1, c] += two


@no_type_check
@compile_kernel
def _normalise_planes(first, last, source, weights, inverse, share, shifts, scales, out, window, floor, steps, block):
    """Normalise the planes ``first ... last - 1`` of all channels; in ``steps`` per unit, unless that is 0."""
    channels, _, n1, n2 = source.shape
    radius = len(window) // 2
    rows = np.empty((2, block + 2 * radius, n2), np.float32)
    lines, line = np.zeros((2, n2 + 2 * radius), np.float32), np.empty(n2, np.float32)
    for i in range(first, last):
        for start in range(0, n1, block):
            stop = min(start + block, n1)
            low, high = max(start - radius, 0), min(stop + radius, n1)
            for c in range(channels):
                for j in range(low, high):
                    _sum_along_i(
                        source[c], weights, i, j, shifts[c], scales[c], rows[0, j - low], rows[1, j - low], window
                    )
                for j in range(start, stop):
                    above, below = max(j - radius, 0) - low, min(j + radius, n1 - 1) - low
                    for moment in range(2):
                        _sum_rows(rows[moment], above, below, lines[moment, radius : radius + n2], window)
                    _normalise_row(source[c, i, j], shifts[c], scales[c], lines, inverse[i, j], floor, line, window)
                    if share.size > 0:
                        factor = share[i, j]
                        for k in range(n2):
                            line[k] *= factor[k]
                    if steps > 0:
                        for k in range(n2):
                            line[k] = min(max(np.rint(line[k] * steps), -_LARGEST), _LARGEST)
                    target = out[c, i, j]
                    for k in range(n2):
                        target[k] = line[k]


@no_type_check
@compile_kernel
def _sum_along_i(source, weights, i, j, shift, scale, one, two, window):
    """Sum values and squares of one row over the planes of the window."""
    n0, n1, n2 = source.shape
    radius, plane = len(window) // 2, n1 * n2
    if i >= radius and i + radius < n0:
        values, factors, start = source.reshape(-1), weights.reshape(-1), ((i - radius) * n1 + j) * n2
        for k in range(n2):
            sum_one, sum_two = np.float32(0), np.float32(0)
            for o in range(len(window)):
                at = np.uintp(start + k) + np.uintp(o * plane)
                value = (values[at] - shift) * scale
                weighted = factors[at] * value
                sum_one += weighted
                sum_two += weighted * value
            one[k], two[k] = sum_one, sum_two
        return
    one[:], two[:] = 0, 0
    for o in range(max(i - radius, 0), min(i + radius, n0 - 1) + 1):
        values, factors = source[o, j], weights[o, j]
        for k in range(n2):
            value = (values[k] - shift) * scale
            weighted = factors[k] * value
            one[k] += weighted
            two[k] += weighted * value


@no_type_check
@compile_kernel
def _sum_rows(rows, above, below, out, window):
    """Sum the rows ``above ... below``."""
    if below - above + 1 == len(window):
        flat, n = rows.reshape(-1), len(out)
        for k in range(n):
            total, at = np.float32(0), np.uintp(above * n + k)
            for o in range(len(window)):
                total += flat[at + np.uintp(o * n)]
            out[k] = total
        return
    out[:] = rows[above]
    for o in range(above + 1, below + 1):
        more = rows[o]
        for k in range(len(out)):
            out[k] += more[k]


@no_type_check
@compile_kernel
def _normalise_row(values, shift, scale, sums, inverse, floor, out, window):
    """Sum both moments along k, and normalise."""
    ones, twos = sums[0], sums[1]
    for k in range(len(out)):
        mean, squares = np.float32(0), np.float32(0)
        for o in range(len(window)):
            at = np.uintp(k) + np.uintp(o)
            mean += ones[at]
            squares += twos[at]
        mean *= inverse[k]
        variance = squares * inverse[k] - mean * mean
        out[k] = ((values[k] - shift) * scale - mean) / np.sqrt(max(variance, np.float32(0)) + floor)


@no_type_check
@compile_kernel
def _sum_slopes(first, last, rows, weights, planes):
    """Sum the squared differences of neighbours of the planes ``first ... last - 1``, for each channel."""
    n0, n1, n2, channels = rows.shape
    sums = np.empty(channels, np.float32)
    for i in range(first, last):
        for j in range(n1):
            next_i, next_j = min(i + 1, n0 - 1), min(j + 1, n1 - 1)
            here, along_i, along_j = rows[i, j].reshape(-1), rows[next_i, j].reshape(-1), rows[i, next_j].reshape(-1)
            sums[:] = 0
            for k in range(n2):
                next_k = min(k + 1, n2 - 1)
                weight = weights[i, j, k]
                wi, wj, wk = (
                    min(weight, weights[next_i, j, k]),
                    min(weight, weights[i, next_j, k]),
                    min(weight, weights[i, j, next_k]),
                )
                at, after = np.uintp(k * channels), np.uintp(next_k * channels)
                for c in range(channels):
                    value = np.float32(here[at + np.uintp(c)])  # of integers as well
                    di, dj, dk = (
                        np.float32(along_i[at + np.uintp(c)]) - value,
                        np.float32(along_j[at + np.uintp(c)]) - value,
                        np.float32(here[after + np.uintp(c)]) - value,
                    )
                    sums[c] += wi * di * di + wj * dj * dj + wk * dk * dk
            for c in range(channels):
                planes[i, c] += sums[c]


@no_type_check
@compile_kernel
def _scale_rows(first, last, rows, factors):
    """Multiply the channels of the planes ``first ... last - 1``."""
    _, n1, n2, channels = rows.shape
    for i in range(first, last):
        for j in range(n1):
            for k in range(n2):
                for c in range(channels):
                    rows[i, j, k, c] *= factors[c]
